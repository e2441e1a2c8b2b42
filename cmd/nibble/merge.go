package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/merge"
)

// mergeOptions are the flags of merge.
type mergeOptions struct {
	base, out string
	adapters  []string
	output    outputOptions
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.output.check(cmd, o.out); err != nil {
				return err
			}
			return a.merge(cmd.Context(), &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "the model that the adapters were trained on")
	f.StringArrayVar(&o.adapters, "adapter", nil, "PEFT directory, with :weight if not 1; may be repeated")
	f.StringVar(&o.out, "out", "", "where to write the merged model")
	outputFlags(cmd, &o.output)
	need(cmd, "base", "adapter", "out")
	return cmd
}

type mergeResult struct {
	writeResult
	Changed   int `json:"tensors_changed"`
	Unchanged int `json:"tensors_unchanged"`
	Zero      int `json:"zero_deltas"`

	Quantization *mergeLoss `json:"quantization,omitempty"`
}

func (r *mergeResult) text(w io.Writer) {
	r.writeResult.text(w)
	fmt.Fprintf(w, "  %d of %d tensors changed\n", r.Changed-r.Zero, r.Changed+r.Unchanged)
	if r.Zero > 0 {
		fmt.Fprintf(w, "  %d of the deltas are zero: those adapters were not trained\n", r.Zero)
	}
	if r.Quantization != nil {
		r.Quantization.text(w)
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

	seen, err := o.output.seen(m)
	if err != nil {
		return err
	}
	var all []merge.Delta
	zero := 0
	for _, w := range list {
		ad, err := openAdapter(w.path)
		if err != nil {
			return err
		}
		e, err := match(seen.src, ad, w.path)
		seen.note(w.path, ad.Config)
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

	merged := newMergedModel(m, seen.src, changes)
	r, err := a.writeMerged(ctx, merged, o.out, &o.output)
	if err != nil {
		return err
	}
	loss, err := a.mergeLoss(ctx, merged, seen, o.out, &o.output)
	if err != nil {
		return err
	}
	return a.print(&mergeResult{writeResult: *r, Changed: len(changes), Unchanged: total(r.Actions) - r.Actions["drop"] - len(changes), Zero: zero, Quantization: loss})
}
