package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/formats/gguf/imatrix"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// ggufOptions are the flags of GGUF's types.
type ggufOptions struct {
	imatrix           string
	pure, leaveOutput bool
	output, embedding string
	tensorTypes       []string
	dryRun            bool

	file convertOptions // of the file that is written
}

func ggufQuantFlags(cmd *cobra.Command, o *ggufOptions) {
	ggufTypeFlags(cmd, o)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "print the types and the size of the file, and write nothing")
	o.file.ggufFlags(cmd)
}

// ggufTypeFlags adds the flags that choose types.
func ggufTypeFlags(cmd *cobra.Command, o *ggufOptions) {
	f := cmd.Flags()
	f.StringVar(&o.imatrix, "imatrix", "", "importance matrix, a .gguf file or llama.cpp's older .dat")
	f.BoolVar(&o.pure, "pure", false, "one type for all matrices in place of a mix")
	f.StringVar(&o.output, "output-tensor-type", "", "type of output.weight")
	f.StringVar(&o.embedding, "token-embedding-type", "", "type of the token embedding")
	f.StringArrayVar(&o.tensorTypes, "tensor-type", nil, "PATTERN=TYPE, the type of the tensors in whose name the regular expression is found; the first that fits counts")
	f.BoolVar(&o.leaveOutput, "leave-output-tensor", false, "keep the type of output.weight")
}

// options returns what the flags say about types.
func (o *ggufOptions) options(typ ftype.Type) (ftype.Options, error) {
	c := ftype.Options{Type: typ, Pure: o.pure, LeaveOutput: o.leaveOutput, Imatrix: o.imatrix != ""}
	for _, f := range []struct {
		flag, value string
		to          *tensor.DType
	}{{"output-tensor-type", o.output, &c.Output}, {"token-embedding-type", o.embedding, &c.Embedding}} {
		if f.value == "" {
			continue
		}
		d, err := ftype.ParseDType(f.value)
		if err == nil {
			err = writable(d)
		}
		if err != nil {
			return c, badUsage(hint.Add(fmt.Errorf("--%s: %w", f.flag, err), "there are: %s", strings.Join(tensorTypes(), ", ")))
		}
		*f.to = d
	}
	for _, text := range o.tensorTypes {
		v, err := ftype.ParseOverride(text)
		if err == nil {
			err = writable(v.DType)
		}
		if err != nil {
			return c, badUsage(hint.Add(fmt.Errorf("--tensor-type: %w", err), "as attn_v=q6_k; types are: %s", strings.Join(tensorTypes(), ", ")))
		}
		c.Overrides = append(c.Overrides, v)
	}
	return c, nil
}

// writable returns an error if a type can only be read.
func writable(d tensor.DType) error {
	_, err := codecs.Encoder(d)
	return err
}

// tensorTypes are the types that a tensor of a GGUF file can be written as.
func tensorTypes() []string {
	var names []string
	for d := range maps.Keys(codecs) {
		if _, err := ftype.ParseDType(d.String()); err == nil && writable(d) == nil {
			names = append(names, strings.ToLower(d.String()))
		}
	}
	slices.Sort(names)
	return names
}

// ggufInput is a model on its way to a quantized GGUF file: what an unquantized
// one would be.
type ggufInput struct {
	job
	in *formats.Input

	// tensors are those of the unquantized file, with the types they would have
	// there. What they are in the source of the job can be another one.
	tensors []tensor.Info
	notes   []string
}

// quantizeGGUF quantizes a model to a GGUF file.
func (a *app) quantizeGGUF(ctx context.Context, path, out string, typ ftype.Type, all *quantizeOptions) error {
	o := &all.gguf
	if !isGGUF(out) {
		return badUsage(hint.Add(fmt.Errorf("%s: %s is a type of GGUF files", out, typ), "give an OUT that ends in .gguf"))
	}
	opts, err := o.options(typ)
	if err != nil {
		return err
	}
	split, err := o.file.split()
	if err != nil {
		return err
	}
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := fsx.CheckOutput(out, in.Paths()...); err != nil {
		return badUsage(err)
	}
	g, err := o.open(in)
	if err != nil {
		return err
	}
	q := &ggufQuantizer{ggufInput: g, nonFinite: all.nonFinite(), dryRun: o.dryRun}
	if err := q.readImatrix(o.imatrix); err != nil {
		return err
	}
	if err := q.choose(opts); err != nil {
		return err
	}
	if all.target.given() {
		if typ, err = a.chooseTypes(ctx, q, split, all); err != nil {
			return err
		}
	}
	for _, c := range q.choices {
		if why := cmp.Or(c.Fallback, c.Why); !blockType(c.Out.DType) {
			all.loss.keep(c.In.Name, why)
		}
	}
	if err := q.setPlan(typ, o.imatrix); err != nil {
		return err
	}
	for _, c := range q.choices {
		a.detail("%-14v %s: %s", c.Out.DType, c.Out.Name, cmp.Or(c.Fallback, c.Why, "the type of the mix"))
	}
	if o.dryRun {
		sizes, err := split.Sizes(q.plan.Meta, q.plan.Layout())
		if err == nil {
			err = q.plan.Check(q.src, int64(a.memory))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return a.print(q.dryResult(typ, out, sizes))
	}
	w, err := a.runToGGUF(ctx, in, out, q.job, &o.file)
	if err != nil {
		return err
	}
	w.Notes = slices.Concat(w.Notes, q.notes, q.nonFinite.Notes())
	return a.print(q.result(typ, w))
}

// open finds out what the unquantized file would be.
func (o *ggufOptions) open(in *formats.Input) (*ggufInput, error) {
	if in.GGUF != nil {
		return o.openGGUF(in)
	}
	m := &model{Input: in}
	if err := m.understand(); err != nil {
		return nil, err
	}
	return o.openModel(m, m.view)
}

// openModel finds out what the unquantized file of src would be, which has the tensors
// of m.
func (o *ggufOptions) openModel(m *model, src tensor.Source) (*ggufInput, error) {
	// bf16 is what matrices show themselves by; the others have one type always.
	file := o.file
	file.outType = "bf16"
	g, err := m.planGGUF(src, &file)
	if err != nil {
		return nil, err
	}
	r := &ggufInput{job: job{m.Path, g.Plan, g.Source, m.original(), m.view.Origin}, in: m.Input, notes: g.Notes}
	if m.quantized() {
		r.notes = append(r.notes, quantizedTwice(m.source()))
	}
	for _, s := range g.Plan.Steps {
		info := s.Out[0]
		if info.DType == tensor.BF16 {
			// Of its own type if that is a plain one, or decoded.
			own, err := m.view.Info(s.From[0])
			if err != nil {
				own, err = g.Source.Info(info.Name) // which the model does not have by itself
			}
			if err != nil {
				return nil, err
			}
			if info.DType = own.DType; info.DType != tensor.BF16 && info.DType != tensor.F16 {
				info.DType = tensor.F32
			}
		}
		r.tensors = append(r.tensors, info)
	}
	return r, nil
}

func (o *ggufOptions) openGGUF(in *formats.Input) (*ggufInput, error) {
	if kind, ok := tensor.Lookup[string](in.Meta(), gguf.KeyType); ok && kind != "model" {
		return nil, hint.Add(fmt.Errorf("%s: %w: %s is %q, where a model is needed", in.Path, tensor.ErrUnsupported, gguf.KeyType, kind),
			"quantize the model that it belongs to")
	}
	if err := o.file.checkOwnMeta(in); err != nil {
		return nil, err
	}
	r := &ggufInput{job: job{in.Path, &pipeline.Plan{Meta: in.Meta()}, in, in, nil}, in: in, tensors: slices.Collect(in.All())}
	for _, info := range r.tensors {
		r.plan.Steps = append(r.plan.Steps, pipeline.Copy(info, info.Name))
	}
	if slices.ContainsFunc(r.tensors, func(i tensor.Info) bool { return blockType(i.DType) }) {
		r.notes = append(r.notes, quantizedTwice(in))
	}
	return r, nil
}

// quantizedTwice says that a model has lost something before.
func quantizedTwice(src tensor.Source) string {
	var was []string
	for info := range src.All() {
		if d := info.DType; d.Opaque() || blockType(d) {
			if name := d.String(); !slices.Contains(was, name) {
				was = append(was, name)
			}
		}
	}
	slices.Sort(was)
	return fmt.Sprintf("the input was quantized before (%s): what that lost stays lost, and this adds to it", strings.Join(was, ", "))
}

// ggufQuantizer plans the quantized file.
type ggufQuantizer struct {
	*ggufInput
	imatrix   *imatrix.File // nil if there is none
	nonFinite *pipeline.NonFinite
	dryRun    bool
	choices   []ftype.Choice
}

// readImatrix reads the importance matrix, if there is to be one.
func (q *ggufQuantizer) readImatrix(path string) (err error) {
	if path != "" {
		q.imatrix, err = imatrix.Read(path)
	}
	return err
}

// choose fixes what each tensor becomes.
func (q *ggufQuantizer) choose(o ftype.Options) error {
	m, err := ftype.ModelOf(q.plan.Meta)
	if err == nil {
		q.choices, err = ftype.Choose(q.tensors, m, o)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", q.path, err)
	}
	if o.Type == ftype.MXFP4_MOE && !o.Pure && !slices.ContainsFunc(q.choices, func(c ftype.Choice) bool { return c.Out.DType == tensor.MXFP4 }) {
		q.notes = append(q.notes, "mxfp4 is for experts, and there are none: as with llama.cpp the matrices are Q8_0; with --pure they are MXFP4")
	}
	for _, c := range q.choices {
		if !c.NeedsImatrix || q.imatrix != nil && q.imatrix.Entry(c.In.Name) != nil {
			continue
		}
		if q.dryRun && q.imatrix == nil {
			q.notes = append(q.notes, "this needs an importance matrix: nibble imatrix makes one, and --imatrix takes it")
			return nil
		}
		return badUsage(hint.Add(fmt.Errorf("%s: tensor %q as %v in a %s file needs an importance matrix", q.path, c.In.Name, c.Out.DType, o.Type),
			"nibble imatrix makes one, and --imatrix takes it"))
	}
	return nil
}

// importance returns that of a tensor, nil if there is none.
func (q *ggufQuantizer) importance(c ftype.Choice) ([]float32, error) {
	values, _, ok := q.imatrix.Importance(c.In.Name)
	if !ok {
		return nil, nil
	}
	mats := int64(1)
	if n := len(c.Out.Shape); n > 2 {
		mats = c.Out.Shape[n-3]
	}
	if int64(len(values)) == mats*c.Out.Shape.Cols() {
		return values, nil
	}
	if strings.HasSuffix(c.In.Name, "token_embd.weight") {
		return nil, nil // whose importance is of something else: a row is looked up
	}
	return nil, hint.Add(fmt.Errorf("tensor %q: %w: the importance matrix has %d values, its shape is %v", c.In.Name, tensor.ErrMalformed, len(values), c.Out.Shape),
		"the importance matrix was made of another model")
}

// setPlan makes the plan of the quantized file of that of the unquantized one.
func (q *ggufQuantizer) setPlan(typ ftype.Type, imatrixPath string) error {
	was := make(map[string]pipeline.Step)
	for _, s := range q.plan.Steps {
		was[s.Out[0].Name] = s
	}
	plan := &pipeline.Plan{Meta: q.meta(typ, imatrixPath), Drop: q.plan.Drop}
	var without []string
	for _, c := range q.choices {
		e := pipeline.Encoding{NonFinite: q.nonFinite}
		if q.imatrix != nil && !c.Keeps() {
			var err error
			if e.Importance, err = q.importance(c); err != nil {
				return fmt.Errorf("%s: %w", q.path, err)
			}
			if e.Importance == nil {
				without = append(without, c.In.Name)
			}
		}
		s, err := q.step(was[c.In.Name], c, e)
		if err != nil {
			return fmt.Errorf("%s: %w", q.path, err)
		}
		plan.Steps = append(plan.Steps, s)
	}
	if len(without) > 0 {
		q.notes = append(q.notes, fmt.Sprintf("%s without importance, as the matrix has nothing on them: %s", plural(len(without), "tensor"), listed(without)))
	}
	q.plan = plan
	return nil
}

// step returns the step that stores a tensor, of which the one was that would in
// the unquantized file.
func (q *ggufQuantizer) step(was pipeline.Step, c ftype.Choice, e pipeline.Encoding) (pipeline.Step, error) {
	in := was.In[0]
	info, err := q.src.Info(in)
	if err != nil {
		return pipeline.Step{}, err
	}
	var s pipeline.Step
	if info.DType == c.Out.DType && !info.DType.Float() {
		s = pipeline.Copy(info, c.Out.Name)
		s.Out[0].Shape = c.Out.Shape
	} else if s, err = pipeline.Encode(codecs, in, c.Out, e); err != nil { // it looks for NaN in what is kept too
		return s, err
	}
	switch {
	case was.From != nil && len(was.From) == 0:
		s.Action = was.Action
	case info.DType == c.Out.DType:
		s.Action = "copy"
	case c.Keeps():
		s.Action = "cast"
	}
	if was.From != nil {
		s.Derive(was.From, was.Change)
	}
	return s, nil
}

// Keys of what a file was quantized with (tools/quantize/quantize.cpp).
const (
	keyImatrixFile    = "quantize.imatrix.file"
	keyImatrixDataset = "quantize.imatrix.dataset"
	keyImatrixEntries = "quantize.imatrix.entries_count"
	keyImatrixChunks  = "quantize.imatrix.chunks_count"

	// maxOverride is how many bytes of a text llama-quantize keeps.
	maxOverride = 127
)

// meta returns the metadata: that of the unquantized file, with the keys that
// quantizing sets at the end.
func (q *ggufQuantizer) meta(typ ftype.Type, imatrixPath string) tensor.Meta {
	set := tensor.Meta{
		{Key: gguf.KeyQuantizationVersion, Value: gguf.QuantizationVersion},
		{Key: gguf.KeyFileType, Value: uint32(typ)},
	}
	if q.imatrix != nil {
		short := func(s string) string { return s[:min(len(s), maxOverride)] }
		set = append(set, tensor.KV{Key: keyImatrixFile, Value: short(imatrixPath)})
		if len(q.imatrix.Datasets) > 0 {
			set = append(set, tensor.KV{Key: keyImatrixDataset, Value: short(q.imatrix.Datasets[0])})
		}
		set = append(set, tensor.KV{Key: keyImatrixEntries, Value: uint32(len(q.imatrix.Entries))})
		if q.imatrix.Chunks > 0 {
			set = append(set, tensor.KV{Key: keyImatrixChunks, Value: uint32(q.imatrix.Chunks)})
		}
	}
	var meta tensor.Meta
	for _, kv := range q.plan.Meta {
		// The alignment of a file that is written is the default.
		if _, again := set.Get(kv.Key); !again && kv.Key != gguf.KeyAlignment {
			meta = append(meta, kv)
		}
	}
	return append(meta, set...)
}
