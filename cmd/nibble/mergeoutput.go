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
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/receipt"
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
		opts.sink = func(dir tensor.Sink, files []hf.SideFile) tensor.Sink {
			return followed(ctx, m.receipt, plan, files, dir)
		}
		m.followed = true
	}
	return a.writeDir(ctx, m.model, src, plan, out, opts)
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
