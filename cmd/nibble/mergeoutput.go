package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/receipt"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// outputOptions are the flags of what merge writes.
type outputOptions struct {
	dtype, quantize string
	through, report string
	bnb             bnbOptions
	gguf            ggufOptions

	families familyFlags
	base     *seenBase
}

// keepTypes is the --quantize that stores what a merge changes as the base has it.
const keepTypes = "keep"

func outputFlags(cmd *cobra.Command, o *outputOptions) {
	f := cmd.Flags()
	f.StringVar(&o.dtype, "dtype", "auto", "f32, f16, bf16, auto (the base's, or what it was before it was quantized); for .gguf also q8_0")
	f.StringVar(&o.quantize, "quantize", "", "quantize the result: keep (as the base is), nf4, fp4, int8, or a type of .gguf such as q4_k_m (default: 16 bits of a quantized base)")
	f.StringVar(&o.through, "through", "", "merge into the base as it is behind a quantization, which an adapter saw in training: nf4, nf4:128, fp4, int8")
	f.StringVar(&o.report, "report", "", "write what the adapters add and what quantization does to it to a .html or .json file, or both to a directory")
	f.Var(&o.bnb.maxShard, "max-shard-size", "largest shard of a directory (default: the shards of the base, else 5GB)")
	o.families = make(familyFlags)
	o.families.add(bnbFamily, cmd, func() { bnbTypeFlags(cmd, &o.bnb) })
	o.families.add(ggufFamily, cmd, func() { ggufTypeFlags(cmd, &o.gguf) })
	o.gguf.file.ggufFlags(cmd)
}

// check refuses flags that say nothing about the output.
func (o *outputOptions) check(cmd *cobra.Command, out string) error {
	o.quantize = strings.ToLower(o.quantize)
	file := o.gguf.file
	file.maxShard = o.bnb.maxShard
	if err := file.check(out); err != nil {
		return err
	}
	if o.quantize != "" && isGGUF(out) && o.dtype != "auto" {
		return badUsage(hint.Add(fmt.Errorf("--dtype %s and --quantize %s of one .gguf file", o.dtype, o.quantize), "leave one of them out"))
	}
	family := quantFamily("no quantization")
	switch {
	case o.quantize == keepTypes && isGGUF(out):
		if o.gguf.pure || o.gguf.leaveOutput || o.gguf.output+o.gguf.embedding != "" || len(o.gguf.tensorTypes) > 0 {
			return badUsage(hint.Add(fmt.Errorf("--quantize keep has the types of the base, and a flag chooses others"), "give a type in place of keep"))
		}
		family = ggufFamily
	case o.quantize == "", o.quantize == keepTypes:
	default:
		q, ok := quantTypes()[o.quantize]
		if !ok {
			return badUsage(hint.Add(fmt.Errorf("no quantization type %q", o.quantize), "there are: keep, %s", strings.Join(slices.Sorted(maps.Keys(quantTypes())), ", ")))
		}
		if q.quantFamily == ggufFamily && !isGGUF(out) {
			return badUsage(hint.Add(fmt.Errorf("%s: %s is a type of GGUF files", out, o.quantize), "give an --out that ends in .gguf"))
		}
		if q.quantFamily == bnbFamily && isGGUF(out) {
			return badUsage(hint.Add(fmt.Errorf("%s: %s is stored as safetensors, in a directory", out, o.quantize), "give a directory as --out"))
		}
		family = q.quantFamily
	}
	if o.through != "" {
		if _, _, err := o.parseThrough(); err != nil {
			return err
		}
		for _, name := range []string{"no-double-quant", "skip-modules", "experts"} { // which are of both
			o.families[bnbFamily] = slices.DeleteFunc(o.families[bnbFamily], func(flag string) bool { return flag == name })
		}
	}
	return o.families.check(cmd, family, cmp.Or(o.quantize, "plain numbers"))
}

// A mergedModel is a base with what adapters do to it, on its way to be written.
type mergedModel struct {
	*model
	*adapted
	targets map[string]bool // of the changes

	// about is what is said of how it was made. receipt is written of it if it is not
	// nil, along with the model if followed, else after it.
	about    *provenance
	receipt  *receipt.Writer
	followed bool

	// inFile says which tensors of the view those of a GGUF file are, where a plan names
	// them as they are in the file; nil where it does not.
	inFile func(name string) convert.Origin
}

func newMergedModel(x *adapted) *mergedModel {
	targets := make(map[string]bool)
	for _, c := range x.changes {
		targets[c.Target()] = true
	}
	return &mergedModel{model: x.model, adapted: x, targets: targets}
}

// plain returns the model with every tensor as a plain number: of d, or if that is
// tensor.Invalid of the type it has or had.
func (m *mergedModel) plain(d tensor.DType) (tensor.Source, error) {
	return m.changed(func(info tensor.Info) tensor.DType { return m.plainType(info, d) })
}

// wide returns the model with all that was computed in F32, for an encoding that rounds
// it once. What is stored as a plain number or in blocks stays so where nothing changes
// it.
func (m *mergedModel) wide() (tensor.Source, error) {
	return m.changed(func(info tensor.Info) tensor.DType {
		if m.targets[info.Name] || info.DType.Opaque() {
			return retyped(info, tensor.F32)
		}
		return info.DType
	})
}

func (m *mergedModel) changed(dtype func(tensor.Info) tensor.DType) (tensor.Source, error) {
	v, account, err := merge.Measured(m.view, codecs, m.changes, dtype)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	m.account = account
	return v, nil
}

// write writes the model, as the flags say.
func (a *app) writeMerged(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	switch q, known := quantTypes()[o.quantize]; {
	case o.quantize == "" && isGGUF(out) && m.GGUF != nil && o.dtype == "auto":
		return a.writeMergedAlike(ctx, m, out, o, func(tensor.DType) tensor.DType { return tensor.F16 })
	case o.quantize == "" && isGGUF(out):
		return a.writeMergedGGUF(ctx, m, out, o)
	case o.quantize == "":
		return a.writeMergedDir(ctx, m, out, o)
	case o.quantize == keepTypes && isGGUF(out) && m.GGUF != nil:
		return a.writeMergedAlike(ctx, m, out, o, func(d tensor.DType) tensor.DType { return d })
	case o.quantize == keepTypes:
		if m.HF == nil || isGGUF(out) {
			return nil, badUsage(hint.Add(fmt.Errorf("--quantize keep: %s cannot be quantized as %s is", out, m.Path), "name the type: --quantize nf4 for a directory, --quantize q4_k_m for a .gguf file"))
		}
		return a.writeMergedBnbAlike(ctx, m, out, o)
	case known && q.quantFamily == bnbFamily:
		return a.writeMergedBnb(ctx, m, out, o)
	default:
		return a.writeMergedQuantized(ctx, m, out, o)
	}
}

// writeMergedDir writes a directory of plain numbers.
func (a *app) writeMergedDir(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	d, err := parseOutType(o.dtype)
	if err != nil {
		return nil, err
	}
	src, err := m.plain(d)
	if err != nil {
		return nil, err
	}
	plan, err := castPlan(src, func(info tensor.Info) tensor.DType { return info.DType }, nil)
	if err != nil {
		return nil, err
	}
	m.nameDecoded(plan)
	m.nameActions(plan)
	opts := dirOptions{dtype: m.orOwn(d), set: m.config, files: m.files, maxShard: int64(o.bnb.maxShard)}
	if m.quantized() {
		opts.drop = m.quantization()
	}
	if err := m.about.describe(m.model, plan, &opts); err != nil {
		return nil, err
	}
	if m.receipt != nil {
		// What is recorded is read beside what is written, by a view of its own.
		again, err := merge.View(m.view, codecs, m.changes, func(info tensor.Info) tensor.DType { return m.plainType(info, d) })
		if err != nil {
			return nil, err
		}
		if err := m.receipt.Merged(again); err != nil {
			return nil, err
		}
		opts.receipt, m.followed = m.receipt, true
	}
	return a.writeDir(ctx, m.model, src, plan, out, opts)
}

// writeMergedGGUF writes a GGUF file of plain numbers or Q8_0. The sums are rounded once,
// to the type in the file; only auto looks at what the base had.
func (a *app) writeMergedGGUF(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	file := o.gguf.file
	if file.outType = o.dtype; file.outType == "auto" {
		file.outType = "f16"
		if m.dtype() == tensor.BF16 {
			file.outType = "bf16"
		}
	}
	if err := checkGGUFType(file.outType); err != nil {
		return nil, err
	}
	src, err := m.wide()
	if err != nil {
		return nil, err
	}
	g, err := m.planGGUF(src, &file)
	if err != nil {
		return nil, err
	}
	m.nameActions(g.Plan)
	return a.runMerged(ctx, m, out, &file, job{m.Path, g.Plan, g.Source, m.original(), m.view.Origin}, g.Notes)
}

// runMerged does the job of a merge that makes a GGUF file.
func (a *app) runMerged(ctx context.Context, m *mergedModel, out string, file *convertOptions, j job, notes []string) (*writeResult, error) {
	j.plan.Meta = m.about.addTo(j.plan.Meta)
	r, err := a.runToGGUF(ctx, m.Input, out, j, file)
	if err != nil {
		return nil, err
	}
	r.Notes = slices.Concat(r.Notes, notes)
	return r, nil
}

// writeMergedQuantized writes a GGUF file of a type, in one pass.
func (a *app) writeMergedQuantized(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	typ, ok := ftype.Types()[o.quantize]
	if !ok {
		return nil, badUsage(fmt.Errorf("no quantization type %q", o.quantize))
	}
	opts, err := o.gguf.options(typ)
	if err != nil {
		return nil, err
	}
	src, err := m.wide()
	if err != nil {
		return nil, err
	}
	var g *ggufInput
	if m.GGUF != nil {
		if g, err = m.ownFile(src, &o.gguf); err != nil {
			return nil, err
		}
	}
	if g == nil {
		if g, err = o.gguf.openModel(m.model, src); err != nil {
			return nil, err
		}
	}
	q := &ggufQuantizer{ggufInput: g, nonFinite: &pipeline.NonFinite{}}
	if err := q.readImatrix(o.gguf.imatrix); err != nil {
		return nil, err
	}
	if err := q.choose(opts); err != nil {
		return nil, err
	}
	if err := q.setPlan(typ, o.gguf.imatrix); err != nil {
		return nil, err
	}
	return a.runQuantized(ctx, m, q, typ, out, o)
}

func (a *app) runQuantized(ctx context.Context, m *mergedModel, q *ggufQuantizer, typ ftype.Type, out string, o *outputOptions) (*writeResult, error) {
	for _, c := range q.choices {
		a.detail("%-14v %s: %s", c.Out.DType, c.Out.Name, cmp.Or(c.Fallback, c.Why, "the type of the mix"))
	}
	m.nameActions(q.plan)
	account := q.account(typ)
	notes := append(q.notes, fmt.Sprintf("%.2f bits per weight", account.Bits))
	for _, f := range account.Fallbacks {
		notes = append(notes, fmt.Sprintf("%s fell back to %s, as %s", f.Name, f.DType, f.Reason))
	}
	return a.runMerged(ctx, m, out, &o.gguf.file, q.job, notes)
}

// ownFile is the GGUF file that the base is, with the tensors of src where those differ
// from it: its names, order, metadata and types stay. It is nil if adapters gave the
// model other tensors or shapes, which a file with its metadata cannot have.
func (m *mergedModel) ownFile(src tensor.Source, o *ggufOptions) (*ggufInput, error) {
	g, err := o.openGGUF(m.Input)
	if err != nil {
		return nil, err
	}
	view, err := convert.InGGUF(src, codecs, m.arch)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	for info := range view.All() {
		was, err := m.Input.Info(info.Name)
		if err != nil || was.Shape.Elems() != info.Shape.Elems() {
			return nil, nil
		}
	}
	var entries []tensor.Entry
	for info := range m.Input.All() {
		from := view.Origin(info.Name).From
		if !tensor.Has(view, info.Name) || !slices.ContainsFunc(from, func(name string) bool { return m.differs(src, name) }) {
			entries = append(entries, tensor.Forward(m.Input, info, info.Name))
			continue
		}
		now, err := view.Info(info.Name)
		if err != nil {
			return nil, err
		}
		e := tensor.Forward(view, now, info.Name)
		e.Info.Shape = info.Shape // which may lack leading dimensions of 1
		entries = append(entries, e)
	}
	if g.src, err = tensor.NewTable(m.Input.Meta(), entries); err != nil {
		return nil, err
	}
	m.inFile = view.Origin
	return g, nil
}

// differs reports whether a tensor of src is another than the base has.
func (m *mergedModel) differs(src tensor.Source, name string) bool {
	was, err := m.source().Info(name)
	if err != nil || m.targets[name] {
		return true
	}
	now, err := src.Info(name)
	return err != nil || now.DType != was.DType
}

// writeMergedAlike writes a GGUF file like the one that is the base: what does not change
// is copied, what does has the type that as returns for its own if that is one of blocks.
func (a *app) writeMergedAlike(ctx context.Context, m *mergedModel, out string, o *outputOptions, as func(tensor.DType) tensor.DType) (*writeResult, error) {
	src, err := m.wide()
	if err != nil {
		return nil, err
	}
	g, err := m.ownFile(src, &o.gguf)
	switch {
	case err != nil:
		return nil, err
	case g == nil && o.quantize == keepTypes:
		return nil, hint.Add(fmt.Errorf("%s: %w: the adapter gives the model other tensors or shapes, and --quantize keep the types of those it has", m.Path, tensor.ErrUnsupported),
			"name the type of the output: --quantize q4_k_m")
	case g == nil:
		return a.writeMergedGGUF(ctx, m, out, o)
	}
	q := &ggufQuantizer{ggufInput: g, nonFinite: &pipeline.NonFinite{}}
	if err := q.readImatrix(o.gguf.imatrix); err != nil {
		return nil, err
	}
	half, _ := gguf.FileTypeOf(tensor.F16)
	typ := ftype.Type(half)
	if own, ok := tensor.Lookup[uint32](m.GGUF.Meta(), gguf.KeyFileType); ok {
		typ = ftype.Type(own)
	}
	for _, was := range g.tensors {
		now, err := g.src.Info(was.Name)
		if err != nil {
			return nil, err
		}
		c := ftype.Choice{In: now, Out: was, Why: "as it is in the base"}
		if now.DType != was.DType && blockType(was.DType) {
			if c.Out.DType = as(was.DType); c.Out.DType != was.DType {
				c.Why, typ = "it changes, and is not quantized again", ftype.Type(half)
			}
			if err := writable(c.Out.DType); err != nil {
				return nil, hint.Add(fmt.Errorf("%s: tensor %q: %w", m.Path, was.Name, err), "name a type that can be written: --quantize q4_k_m")
			}
		}
		q.choices = append(q.choices, c)
	}
	if err := q.setPlan(typ, o.gguf.imatrix); err != nil {
		return nil, err
	}
	return a.runQuantized(ctx, m, q, typ, out, o)
}

// writeMergedBnb quantizes to a type of bitsandbytes.
func (a *app) writeMergedBnb(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	d, err := parseOutType(o.dtype)
	if err != nil {
		return nil, err
	}
	opts, err := o.bnb.parse(bnbTypes[o.quantize])
	if err != nil {
		return nil, err
	}
	src, err := m.plain(d)
	if err != nil {
		return nil, err
	}
	b, err := newBnbInput(m.model, &convert.View{Source: src, Origins: m.view.Origins, Dropped: m.view.Dropped}, &opts)
	if err != nil {
		return nil, err
	}
	plan, account, err := bnb.Plan(b.src, codecs, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	m.nameActions(plan)
	set := append(slices.Clone(m.config), hf.Field{Name: "quantization_config", Value: account.QuantizationConfig()})
	to := dirOptions{dtype: m.orOwn(d), set: set, files: m.files, drop: m.quantization(), maxShard: int64(o.bnb.maxShard)}
	if err := m.about.describe(m.model, plan, &to); err != nil {
		return nil, err
	}
	r, err := a.writeDir(ctx, m.model, b.src, plan, out, to)
	if err != nil {
		return nil, err
	}
	s := summarize(r, account, opts)
	r.Bytes, r.Notes = s.Bytes, slices.Concat(r.Notes, b.notes)
	return r, nil
}

// writeMergedBnbAlike quantizes what changes as the base is. Quantized weights that do
// not change are copied, and so is the quantization_config.
func (a *app) writeMergedBnbAlike(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	if o.dtype != "auto" {
		return nil, badUsage(hint.Add(fmt.Errorf("--dtype %s with --quantize keep, which keeps the type that weights had", o.dtype), "leave one of them out"))
	}
	plain, err := m.plain(tensor.Invalid)
	if err != nil {
		return nil, err
	}
	view, err := (&convert.View{Source: plain, Origins: m.view.Origins, Dropped: m.view.Dropped}).OutIn(m.arch, codecs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	s := scheme{opts: bnb.Options{BlockSizes: make(map[string]int)}, parts: bnb.Stored(m.Input)}
	var entries []tensor.Entry
	for info := range m.view.All() {
		stored := m.view.Origin(info.Name).From[0]
		switch parts := s.parts[stored]; {
		case parts == nil:
			now, err := plain.Info(info.Name)
			if err != nil {
				return nil, err
			}
			entries = append(entries, tensor.Forward(plain, now, info.Name))
		case m.targets[info.Name]:
			if err := s.again(m.stored, m.Input, info.Name, stored); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Path, err)
			}
			now, err := view.Info(info.Name)
			if err != nil {
				return nil, err
			}
			entries = append(entries, tensor.Forward(view, now, info.Name))
		default:
			module, as := strings.TrimSuffix(stored, ".weight"), strings.TrimSuffix(info.Name, ".weight")
			for _, part := range parts {
				entries = append(entries, tensor.Forward(m.Input, part, as+strings.TrimPrefix(part.Name, module)))
			}
		}
	}
	src, err := tensor.NewTable(plain.Meta(), entries)
	if err != nil {
		return nil, err
	}
	if len(s.parts) == 0 {
		return nil, badUsage(hint.Add(fmt.Errorf("--quantize keep: %s has no weights of bitsandbytes that could be kept", m.Path), "name a type, as --quantize nf4, or leave the flag out"))
	}
	var plan *pipeline.Plan
	if len(s.opts.Linear) > 0 {
		s.opts.Was = func(info tensor.Info) tensor.DType { return plainType(src, info, tensor.Invalid) }
		plan, _, err = bnb.Plan(src, codecs, s.opts)
	} else {
		plan, err = castPlan(src, func(info tensor.Info) tensor.DType { return info.DType }, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	m.nameActions(plan)
	to := dirOptions{set: m.config, files: m.files, maxShard: int64(o.bnb.maxShard)}
	if err := m.about.describe(m.model, plan, &to); err != nil {
		return nil, err
	}
	return a.writeDir(ctx, m.unmerged(), src, plan, out, to)
}

// unmerged returns the model as one of which all stored tensors are used.
func (m *mergedModel) unmerged() *model {
	return &model{Input: m.Input, stored: m.Input, view: m.view, arch: m.arch}
}

// scheme is how a base is quantized.
type scheme struct {
	opts  bnb.Options
	parts map[string][]tensor.Info // by weight, as stored
}

// again has a weight quantized as it is in view, stored in raw under the name stored.
func (s *scheme) again(view, raw tensor.Source, name, stored string) error {
	info, err := view.Info(stored)
	if err != nil {
		return err
	}
	o := &s.opts
	if o.Type != tensor.Invalid && o.Type != info.DType {
		return fmt.Errorf("tensor %q: %w: it is %v, and others are %v", name, tensor.ErrUnsupported, info.DType, o.Type)
	}
	first := o.Type == tensor.Invalid
	o.Type = info.DType
	o.Linear = append(o.Linear, name)
	if info.DType == tensor.INT8 {
		return nil
	}
	h, err := nf4.Describe(view, stored)
	if err != nil {
		return err
	}
	storage, err := raw.Info(stored)
	if err != nil {
		return err
	}
	if storage.DType == tensor.I8 {
		storage.DType = tensor.U8 // as bitsandbytes reads it
	}
	if !first && (o.DoubleQuant != h.Double || o.Storage != storage.DType) {
		return fmt.Errorf("tensor %q: %w: it is stored otherwise than the others: double quantization %t, codes as %v", name, tensor.ErrUnsupported, h.Double, storage.DType)
	}
	o.DoubleQuant, o.Storage = h.Double, storage.DType
	if first {
		o.BlockSize = int(h.BlockSize)
	}
	o.BlockSizes[name] = int(h.BlockSize)
	return nil
}

// nameActions says in a plan what is behind the tensors of a merge.
func (m *mergedModel) nameActions(p *pipeline.Plan) {
	for i := range p.Steps {
		s := &p.Steps[i]
		from := s.From
		if from == nil {
			from = s.In
		}
		of := from
		if m.inFile != nil {
			of = nil
			for _, name := range from {
				of = append(of, m.inFile(name).From...)
			}
		}
		if !slices.ContainsFunc(of, func(name string) bool { return m.targets[name] }) {
			continue
		}
		first, rest, _ := strings.Cut(s.Action, "+")
		if first == "copy" || first == "cast" || first == "dequantize" || s.Out[0].DType.Float() && first == lower(s.Out[0].DType) {
			s.Action = strings.TrimSuffix("merge+"+rest, "+")
		} else {
			s.Action = "merge+" + s.Action
		}
	}
}

// nameDecoded says of the copies in a plan of what merge.View decodes that they are none.
func (m *mergedModel) nameDecoded(p *pipeline.Plan) {
	for i, s := range p.Steps {
		was, err := m.view.Info(s.In[0])
		switch {
		case err != nil || s.Action != "copy" || was.DType == s.Out[0].DType:
		case was.DType.Opaque() || blockType(was.DType):
			p.Steps[i].Action = "dequantize"
		default:
			p.Steps[i].Action = "cast"
		}
	}
}
