package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/train/data/chat"
)

// mergeOptions are the flags of merge.
type mergeOptions struct {
	base, out, receipt string
	template           string
	adapters           []string
	output             outputOptions

	arithmetic string
	untie      bool
	initial    []string
	residual   bool

	methodOptions
}

func (a *app) mergeCommand() *cobra.Command {
	var o mergeOptions
	cmd := &cobra.Command{
		Use:   "merge --base IN --adapter DIR[:weight] ... --out OUT",
		Short: "Merge LoRA adapters into base weights, or models with each other",
		Long: `Add adapters to the weights of a base, row by row. Sums are taken in 32 bits and
rounded once. A quantized base is decoded first. OUT ending in .gguf becomes a
GGUF file, anything else a Hugging Face directory.

--quantize quantizes the result in the same pass: to a type of bitsandbytes, to one
of GGUF, or, with keep, what changes as it is in the base. The result of a quantized
base has 16 bits without it, as a weak fine-tune does not survive a second rounding.

An adapter that was trained on a quantized model (QLoRA) fits what that decodes to.
Give it as --base, or the original with --through nf4, which quantizes and decodes
its linear layers as transformers does. How large the error of quantization is
beside what the adapter adds is measured, and said where it matters.

Every tensor of the adapter must find its place in the base: an adapter for
another model is an error, never ignored. Whatever PEFT's LoRA has is merged:
rsLoRA, patterns of ranks and alphas, DoRA, embeddings, biases, saved modules,
tokens, stacks of experts, repeated layers. A weight takes that part of the way
from the base to what the adapter makes of it.

--arithmetic peft rounds where PEFT's merge does, after each adapter; peft-safe as
its merge with safe_merge. Where head and embedding of the base are one tensor,
what is added to either is added to both, as PEFT does it; --untie makes the head
a tensor of its own, which is what the adapter was trained as.

PiSSA, OLoRA, CorDA and LoRA-GA change the base when training begins. Give the
adapter as it was then with --initial-adapter, or that changed base as --base
with --residual-base.

Several adapters are added unless --method says otherwise; --model stands beside
--adapter for fine-tuned models of the base, which linear and slerp combine without
one too. A recipe says the same in a file, by layer and by tensor, and reads as
mergekit's configurations do.

--receipt writes down what rounding destroys, so that nibble unmerge gives the base
back to the same bits. The output says in its metadata and its model card what it was
made of, by hashes.`,
		Example: "  nibble merge --base stories260K --adapter adapters --out merged\n  nibble merge --base base --adapter style:0.7 --adapter facts:0.3 --out merged.gguf --dtype f16\n" +
			"  nibble merge --base base --model chat --model code:0.5 --method ties --density 0.3 --out both\n  nibble merge --recipe recipe.yaml --out merged",
		Args: exactArgs(0),
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
	f.StringVar(&o.receipt, "receipt", "", "file to write what nibble unmerge needs to make the base again")
	f.StringVar(&o.template, "chat-template", "", "chat template of the output in place of the base's: a file (Jinja), the name of another that the base has, or "+strings.Join(chat.Names(), ", "))
	f.StringVar(&o.arithmetic, "arithmetic", "f32", "f32, peft, peft-safe: where sums are rounded")
	f.BoolVar(&o.untie, "untie", false, "give a head that is the embedding a tensor of its own")
	f.StringArrayVar(&o.initial, "initial-adapter", nil, "a PiSSA adapter as it was before training; for each such adapter, in their order")
	f.BoolVar(&o.residual, "residual-base", false, "the base is the one that the training of a PiSSA or LoftQ adapter changed")
	o.flags(f)
	need(cmd, "out")
	return cmd
}

// arithmetics are the values of --arithmetic.
var arithmetics = []struct {
	name string
	a    merge.Arithmetic
}{{"f32", merge.Once}, {"peft", merge.PEFT}, {"peft-safe", merge.PEFTSafe}}

func parseArithmetic(name string) (merge.Arithmetic, error) {
	var names []string
	for _, x := range arithmetics {
		if x.name == name {
			return x.a, nil
		}
		names = append(names, x.name)
	}
	return 0, badUsage(hint.Add(fmt.Errorf("no arithmetic %q", name), "there are: %s", strings.Join(names, ", ")))
}

func (a *app) merge(ctx context.Context, o *mergeOptions) (err error) {
	arithmetic, err := parseArithmetic(o.arithmetic)
	if err != nil {
		return err
	}
	list, inputs, err := o.combined(arithmetic)
	if err != nil {
		return err
	}
	if err := fsx.CheckOutput(o.out, append(inputs, o.initial...)...); err != nil {
		return badUsage(err)
	}
	files, err := a.parseReport(o.output.report, append(inputs, o.out)...)
	if err != nil {
		return err
	}
	m, err := openModel(o.base)
	if err != nil {
		return err
	}
	defer m.Close()
	if o.output.base, err = o.output.seen(m); err != nil {
		return err
	}
	x, err := o.output.base.model.adapted(list, arithmetic, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	merged := newMergedModel(x)
	if o.template != "" {
		if merged.template, err = m.templateSource(o.template); err != nil {
			return err
		}
	}
	if merged.about, err = provenanceOf(ctx, m, list, o.arithmetic); err != nil {
		return err
	}
	if o.receipt != "" && o.output.through != "" {
		return badUsage(hint.Add(fmt.Errorf("--receipt with --through: the receipt is of the base as it is stored, and the sums are of another"), "leave one of them out"))
	}
	if merged.receipt, err = a.startReceipt(m, x.changes, o.receipt, o.out, merged.about); err != nil {
		return err
	}
	if merged.receipt != nil {
		defer merged.receipt.Abort() // of one that is not finished
	}
	r, err := a.writeMerged(ctx, merged, o.out, &o.output)
	if err == nil && merged.receipt != nil && !merged.followed {
		err = finishReceipt(ctx, merged.receipt, o.out)
	}
	r, err = noteReceipt(r, err, merged.receipt, o)
	if err != nil {
		return err
	}
	result := newMergeResult(r, x)
	if result.Quantization, err = a.mergeLoss(ctx, merged, o.out, &o.output); err != nil {
		return err
	}
	if files != nil {
		if err := a.writeReport(files, result.Quantization.report(merged, o.out)); err != nil {
			return err
		}
	}
	return a.print(result)
}

// mergeResult is the account of a merge.
type mergeResult struct {
	writeResult
	Changed   int `json:"tensors_changed"`
	Unchanged int `json:"tensors_unchanged"`
	Zero      int `json:"zero_deltas"`

	// Vanished are the tensors to which something was added that was lost when it
	// was rounded.
	Vanished int           `json:"vanished_deltas"`
	Deltas   []deltaResult `json:"deltas"`

	// Mean and Largest are of the relative norms of the deltas that are not zero.
	Mean    float64 `json:"mean_relative_norm"`
	Largest float64 `json:"largest_relative_norm"`
	largest string

	Quantization *mergeLoss `json:"quantization,omitempty"`
}

// deltaResult is what was added to a tensor.
type deltaResult struct {
	Name     string  `json:"name"`
	Norm     float64 `json:"norm"`
	Delta    float64 `json:"delta_norm"`
	Relative float64 `json:"relative_norm"`
	Changed  bool    `json:"changed"`
}

func newMergeResult(r *writeResult, x *adapted) *mergeResult {
	m := &mergeResult{writeResult: *r, Zero: x.zero, Deltas: []deltaResult{}}
	m.Notes = append(x.notes, m.Notes...)
	n := 0
	for _, t := range x.account.Tensors() {
		d := deltaResult{t.Name, t.Norm, t.Delta, t.Relative(), t.Changed}
		if d.Relative-d.Relative != 0 {
			d.Relative = 0 // of a tensor of zeros there is no part
		}
		m.Deltas = append(m.Deltas, d)
		switch {
		case t.Changed:
			m.Changed++
		case t.Delta > 0:
			m.Vanished++
		}
		if t.Delta > 0 {
			n++
			m.Mean += d.Relative
			if d.Relative > m.Largest {
				m.Largest, m.largest = d.Relative, d.Name
			}
		}
	}
	if n > 0 {
		m.Mean /= float64(n)
	}
	m.Unchanged = len(r.Tensors) - m.Changed
	return m
}

func (r *mergeResult) text(w io.Writer) {
	r.writeResult.text(w)
	fmt.Fprintf(w, "  %d of %d tensors changed\n", r.Changed, r.Changed+r.Unchanged)
	if r.largest != "" {
		fmt.Fprintf(w, "  what was added, relative to the norm of the tensor: mean %.3g, largest %.3g in %s\n", r.Mean, r.Largest, r.largest)
	}
	if r.Zero > 0 {
		fmt.Fprintf(w, "  %d of the deltas are zero: those adapters were not trained\n", r.Zero)
	}
	if r.Vanished > 0 {
		fmt.Fprintf(w, "  %d of the deltas are too small for the type of the output and have no effect: --dtype f32 keeps them\n", r.Vanished)
	}
	if r.Quantization != nil {
		r.Quantization.text(w)
	}
}
