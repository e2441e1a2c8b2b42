package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// mergeOptions are the flags of merge.
type mergeOptions struct {
	base, out, dtype, pre string
	adapters              []string
	maxShard              sizeFlag
}

func (a *app) mergeCommand() *cobra.Command {
	var o mergeOptions
	cmd := &cobra.Command{
		Use:   "merge --base IN --adapter DIR[:weight] ... --out OUT",
		Short: "Merge LoRA adapters into base weights",
		Long: `Add adapters to the weights of a base, row by row. Sums are taken in 32 bits and
rounded once. A quantized base is decoded first. OUT ending in .gguf becomes a
GGUF file, anything else a Hugging Face directory.

Every tensor of the adapter must find its place in the base: an adapter for
another model is an error, never ignored.`,
		Example: "  nibble merge --base stories260K --adapter adapters --out merged\n  nibble merge --base base --adapter style:0.7 --adapter facts:0.3 --out merged.gguf --dtype f16",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.merge(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "the model that the adapters were trained on")
	f.StringArrayVar(&o.adapters, "adapter", nil, "PEFT directory, with :weight if not 1; may be repeated")
	f.StringVar(&o.out, "out", "", "where to write the merged model")
	f.StringVar(&o.dtype, "dtype", "auto", "f32, f16, bf16, auto (the base's); for .gguf also q8_0")
	f.Var(&o.maxShard, "max-shard-size", "largest shard of a directory (default: the shards of the base, else 5GB)")
	preFlag(cmd, &o.pre)
	need(cmd, "base", "adapter", "out")
	return cmd
}

type mergeResult struct {
	writeResult
	Changed   int `json:"tensors_changed"`
	Unchanged int `json:"tensors_unchanged"`
	Zero      int `json:"zero_deltas"`
}

func (r *mergeResult) text(w io.Writer) {
	r.writeResult.text(w)
	fmt.Fprintf(w, "  %d of %d tensors changed\n", r.Changed-r.Zero, r.Changed+r.Unchanged)
	if r.Zero > 0 {
		fmt.Fprintf(w, "  %d of the deltas are zero: those adapters were not trained\n", r.Zero)
	}
}

func (a *app) merge(ctx context.Context, o *mergeOptions) error {
	var list []weighted
	inputs := []string{o.base}
	for _, s := range o.adapters {
		w, err := parseWeighted(s)
		if err != nil {
			return err
		}
		list = append(list, w)
		inputs = append(inputs, w.path)
	}
	if err := fsx.CheckOutput(o.out, inputs...); err != nil {
		return badUsage(err)
	}
	m, err := openModel(o.base)
	if err != nil {
		return err
	}
	defer m.Close()

	var all []merge.Delta
	zero := 0
	for _, w := range list {
		ad, err := openAdapter(w.path)
		if err != nil {
			return err
		}
		e, err := match(m.view, ad, w.path)
		ad.Close() // the tensors are in memory now
		if err != nil {
			return err
		}
		for _, c := range e.Changes {
			ds, err := merge.Deltas(e.Base, codecs, c)
			if err != nil {
				return fmt.Errorf("%s: %w", o.base, err)
			}
			for _, d := range ds {
				if d.Zero() {
					zero++
				}
				all = append(all, merge.Scaled(d, float32(w.weight)))
			}
		}
	}
	changes := merge.Sums(all)

	r, err := a.writeMerged(ctx, m, changes, o)
	if err != nil {
		return err
	}
	return a.print(&mergeResult{writeResult: *r, Changed: len(changes), Unchanged: total(r.Actions) - r.Actions["drop"] - len(changes), Zero: zero})
}

// nameActions says in a plan that copies a merged view what is behind it.
func nameActions(p *pipeline.Plan, m *model, changes []merge.Change) {
	targets := make(map[string]bool)
	for _, c := range changes {
		targets[c.Target()] = true
	}
	for i, s := range p.Steps {
		info, err := m.view.Info(s.In[0])
		switch {
		case targets[s.In[0]]:
			p.Steps[i].Action = "merge"
		case err == nil && info.DType != s.Out[0].DType:
			p.Steps[i].Action = "cast"
		}
	}
}

// writeMerged writes the base with the changes done to it.
func (a *app) writeMerged(ctx context.Context, m *model, changes []merge.Change, o *mergeOptions) (*writeResult, error) {
	view := func(d tensor.DType) (tensor.Source, error) {
		v, err := merge.View(m.view, codecs, changes, func(info tensor.Info) tensor.DType { return plainType(m.view, info, d) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.base, err)
		}
		return v, nil
	}
	if isGGUF(o.out) {
		// The sums are rounded once, to the type in the file: until then they
		// are F32. Only "auto" looks at what the base had.
		outType := o.dtype
		if outType == "auto" {
			outType = "f16"
			if m.dtype() == tensor.BF16 {
				outType = "bf16"
			}
		}
		src, err := view(tensor.F32)
		if err != nil {
			return nil, err
		}
		return a.writeGGUF(ctx, m, src, o.out, &convertOptions{outType: outType, pre: o.pre})
	}
	d, err := parseOutType(o.dtype)
	if err != nil {
		return nil, err
	}
	src, err := view(d)
	if err != nil {
		return nil, err
	}
	plan, err := castPlan(src, func(info tensor.Info) tensor.DType { return info.DType }, nil)
	if err != nil {
		return nil, err
	}
	nameActions(plan, m, changes)
	opts := dirOptions{dtype: m.orOwn(d), maxShard: int64(o.maxShard)}
	if m.quantized() {
		opts.drop = m.quantization()
	}
	return a.writeDir(ctx, m, src, plan, o.out, opts)
}
