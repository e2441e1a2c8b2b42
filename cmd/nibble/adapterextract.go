package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/lowrank"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/tensor"
)

// extractOptions are the flags of adapter extract.
type extractOptions struct {
	budgetFlags
	base, tuned, out string
	embeddings, rest string
	seed             uint64
}

const (
	// mostRank is the highest rank that is looked for where none is given.
	mostRank = 128

	// heldBytes is how much of a difference is kept in memory unless --memory says
	// otherwise: the head of a model of 7B parameters. What is larger is read again for
	// each product.
	heldBytes = 600 << 20
)

func (a *app) adapterExtractCommand() *cobra.Command {
	var o extractOptions
	cmd := &cobra.Command{
		Use:   "extract --base BASE --model FINETUNED --out DIR (--rank R | --energy SHARE | --max-size SIZE)",
		Short: "Make an adapter of the difference between a fine-tuned model and its base",
		Long: `Take the difference of each linear layer's weight to the base's, find the matrices of
low rank that are nearest to it, and write them as a PEFT adapter for the base. What is
lost is printed for each module.

--energy gives each module the lowest rank that keeps that share of the sum of its
squared singular values, --max-size spends numbers where they take away most of the
error; neither goes beyond --rank, or 128.

Norms, biases and embeddings that changed are stored whole, in modules_to_save and as
biases. Tensors are handled one at a time: memory is for one difference, or with a
--memory that is less, for some rows of it.`,
		Example: "  nibble adapter extract --base llama --model llama-tuned --out adapter --rank 32\n  nibble adapter extract --base llama --model llama-tuned --out adapter --max-size 100MB",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.adapterExtract(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "the model before")
	f.StringVar(&o.tuned, "model", "", "the model after")
	f.StringVar(&o.out, "out", "", "where to write the adapter")
	f.IntVar(&o.rank, "rank", 0, "highest rank of a module")
	f.Float64Var(&o.energy, "energy", 0, "share of its energy that each module keeps, as 0.9")
	f.Var(&o.maxSize, "max-size", "most bytes of the adapter")
	f.StringVar(&o.embeddings, "embeddings", "whole", "embeddings that changed: whole, lora, skip")
	f.StringVar(&o.rest, "others", "whole", "norms and biases that changed: whole, skip")
	f.Uint64Var(&o.seed, "seed", 42, "of the random start of the decomposition")
	need(cmd, "base", "model", "out")
	return cmd
}

func (o *extractOptions) check() error {
	switch {
	case o.rank == 0 && o.energy == 0 && o.maxSize == 0:
		return badUsage(hint.Add(fmt.Errorf("it is not said what size the adapter is to have"), "give --rank, --energy or --max-size"))
	case !slices.Contains([]string{"whole", "lora", "skip"}, o.embeddings):
		return badUsage(fmt.Errorf("--embeddings is %q, want whole, lora or skip", o.embeddings))
	case !slices.Contains([]string{"whole", "skip"}, o.rest):
		return badUsage(fmt.Errorf("--others is %q, want whole or skip", o.rest))
	}
	_, err := o.budget(0)
	return err
}

// extraction is the work of adapter extract.
type extraction struct {
	*app
	ctx         context.Context
	o           *extractOptions
	base, tuned *model
	draft       *draft
	result      *adapterWritten
	config      *peft.Config

	room  []float32       // for a difference
	whole map[string]bool // modules that are stored whole
	rest  int64           // bytes of what is stored whole
}

func (a *app) adapterExtract(ctx context.Context, o *extractOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := fsx.CheckOutput(o.out, o.base, o.tuned); err != nil {
		return badUsage(err)
	}
	base, err := openModel(o.base)
	if err != nil {
		return err
	}
	defer base.Close()
	tuned, err := openModel(o.tuned)
	if err != nil {
		return err
	}
	defer tuned.Close()
	if base.arch.Name != tuned.arch.Name {
		return hint.Add(fmt.Errorf("%s: %w: it is of the %s family, the base %s of %s", o.tuned, tensor.ErrMalformed, tuned.arch.Name, o.base, base.arch.Name),
			"was the model fine-tuned from this base?")
	}
	d, err := a.newDraft(o.out)
	if err != nil {
		return err
	}
	defer d.Close()
	e := &extraction{app: a, ctx: ctx, o: o, base: base, tuned: tuned, draft: d, result: &adapterWritten{Out: o.out}, config: peft.NewConfig(), whole: make(map[string]bool)}
	e.config.TaskType, e.config.BaseModel, e.config.FanInFanOut = "CAUSAL_LM", o.base, base.arch.FanInFanOut()
	if err := e.run(); err != nil {
		return err
	}
	return a.print(e.result)
}

func (e *extraction) run() error {
	kinds, err := e.classify()
	if err != nil {
		return err
	}
	bar := e.progress("extract", int64(len(kinds)), itemsUnit)
	defer bar.stop()
	for _, k := range kinds {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		if err := e.extract(k); err != nil {
			return err
		}
		bar.add(1)
	}
	bar.stop()
	e.room = nil
	return e.write()
}

// kind is a tensor of both models, and what can become of its difference.
type kind struct {
	arch.Tensor
	lora      bool // a pair
	embedding bool
}

// classify lists the tensors and checks that the models have the same.
func (e *extraction) classify() ([]kind, error) {
	known := make(map[string]arch.Tensor)
	for _, t := range append(e.base.arch.Tensors(), e.base.arch.Extras()...) {
		known[t.Name] = t
	}
	var out []kind
	var most int64
	for info := range e.base.view.All() {
		t, ok := known[info.Name]
		if !ok {
			continue // no part of the model's table, and of no layer
		}
		other, err := e.tuned.view.Info(info.Name)
		if err != nil {
			return nil, hint.Add(fmt.Errorf("%s: tensor %q: %w: the base has it, this model does not", e.o.tuned, info.Name, tensor.ErrMalformed), "was the model fine-tuned from this base?")
		}
		k := kind{Tensor: t, embedding: t.Role == arch.Embedding || t.Role == arch.Position}
		k.lora = t.Part == "weight" && len(t.Dims) == 2 && (!k.embedding || e.o.embeddings == "lora")
		if !info.Shape.Equal(other.Shape) {
			if t.Role != arch.Embedding && t.Role != arch.Head {
				return nil, hint.Add(fmt.Errorf("%s: tensor %q: %w: shape %v, that of the base is %v", e.o.tuned, info.Name, tensor.ErrMalformed, other.Shape, info.Shape), "was the model fine-tuned from this base?")
			}
			// The vocabulary is another one.
			if err := e.keep(t.Module()); err != nil {
				return nil, err
			}
			e.note("%s has %d rows, in the base it has %d: the vocabulary of the base must be resized", info.Name, other.Shape[0], info.Shape[0])
			continue
		}
		if n := info.Shape.Elems(); k.lora && n*4 <= e.mostHeld() {
			most = max(most, n)
		}
		out = append(out, k)
	}
	for info := range e.tuned.view.All() {
		if tensor.Has(e.base.view, info.Name) {
			continue
		}
		t, ok := known[info.Name]
		if !ok || t.Role != arch.Head {
			return nil, hint.Add(fmt.Errorf("%s: tensor %q: %w: the base has no such tensor", e.o.tuned, info.Name, tensor.ErrMalformed), "was the model fine-tuned from this base?")
		}
		if err := e.keep(t.Module()); err != nil {
			return nil, err
		}
	}
	e.room = make([]float32, most)
	return out, nil
}

func (e *extraction) mostHeld() int64 {
	if e.memory > 0 {
		return int64(e.memory) / 2
	}
	return heldBytes
}

func (e *extraction) note(format string, args ...any) {
	e.result.Notes = append(e.result.Notes, fmt.Sprintf(format, args...))
}

// extract does what is to be done with the difference of a tensor.
func (e *extraction) extract(k kind) error {
	d, err := factors.NewDifference(e.ctx, e.base.view, e.tuned.view, codecs, k.Name)
	if err != nil {
		return err
	}
	head := e.tiedHead(k)
	rows, cols := d.Dims()
	var room []float32
	if k.lora && rows*cols <= len(e.room) {
		room = e.room[:rows*cols]
	}
	energy, err := d.Energy(room)
	if err != nil || energy == 0 {
		return err
	}
	switch {
	case k.lora:
		rank := mostRank
		if e.o.rank > 0 {
			rank = e.o.rank
		}
		if need := lowrank.Memory(rows, cols, min(rank, rows, cols)); e.memory > 0 && need > int64(e.memory) {
			return badUsage(fmt.Errorf("--memory %s: the decomposition of %s at rank %d takes %s", e.memory.String(), k.Name, rank, memory.FormatSize(need)))
		}
		p, spectrum, left, err := d.Extract(rank, e.o.seed)
		if err != nil {
			return err
		}
		if head != "" {
			if err := e.add(factors.Module{Name: head}, p, spectrum, left); err != nil {
				return err
			}
			e.note("%s and %s are one tensor, to which PEFT's merge_and_unload adds both: --embeddings whole has not this fault", k.Name, head)
		}
		if k.embedding || k.Transposed {
			p = p.Transposed()
		}
		return e.add(factors.Module{Name: k.Module(), Embedding: k.embedding}, p, spectrum, left)
	case k.embedding && e.o.embeddings == "skip", !k.embedding && e.o.rest == "skip":
		e.result.Dropped = append(e.result.Dropped, k.Name)
		return nil
	case k.Part == "bias" && e.linear(k.Module()):
		return e.bias(k)
	}
	if head != "" {
		info, err := e.tuned.view.Info(k.Name)
		if err != nil {
			return err
		}
		e.whole[head] = true
		e.store(info, head+".weight")
	}
	return e.keep(k.Module())
}

// tiedHead returns the head that shares a tensor with what changed, "" for none: to PEFT it is
// a module of its own, which must be changed as well. PEFT's ensure_weight_tying would do that,
// but does not know every family's embeddings.
func (e *extraction) tiedHead(k kind) string {
	m := e.base.arch
	if k.Role != arch.Embedding || k.Part != "weight" || !m.TieWordEmbeddings {
		return ""
	}
	for _, t := range m.Extras() {
		if t.Role == arch.Head && t.Part == "weight" && !tensor.Has(e.tuned.view, t.Name) && !tensor.Has(e.base.view, t.Name) {
			return t.Module()
		}
	}
	return ""
}

// add puts a pair in the draft. left is the square of what it lacks.
func (e *extraction) add(m factors.Module, p *factors.Pair, spectrum factors.Spectrum, left float64) error {
	if err := e.draft.add(m, p, spectrum); err != nil {
		return err
	}
	n := spectrum.Norm()
	e.draft.modules[len(e.draft.modules)-1].energy = n*n + left
	return nil
}

// linear reports whether a module is one that gets a pair.
func (e *extraction) linear(module string) bool {
	info, err := e.base.view.Info(module + ".weight")
	return err == nil && len(info.Shape) == 2
}

// keep stores the tensors of a module whole, as modules_to_save.
func (e *extraction) keep(module string) error {
	if e.whole[module] {
		return nil
	}
	e.whole[module] = true
	for _, part := range []string{".weight", ".bias"} {
		info, err := e.tuned.view.Info(module + part)
		if errors.Is(err, tensor.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		e.store(info, info.Name)
	}
	return nil
}

// bias stores the bias of a linear layer.
func (e *extraction) bias(k kind) error {
	info, err := e.tuned.view.Info(k.Name)
	if err != nil {
		return err
	}
	e.config.Bias = "all"
	// Where the layer has a pair, PEFT holds the layer itself one level down; whether it
	// does is known at the end.
	e.store(info, info.Name)
	return nil
}

func (e *extraction) store(info tensor.Info, as string) {
	e.draft.copied(e.ctx, e.tuned.view, info, as, 1)
	e.rest += 4 * info.Shape.Elems()
}

// write gives each module its rank and writes the adapter.
func (e *extraction) write() error {
	d, r := e.draft, e.result
	budget, err := e.o.budget(e.rest)
	if err != nil {
		return err
	}
	if e.o.maxSize > 0 && e.rest >= int64(e.o.maxSize) {
		return badUsage(hint.Add(fmt.Errorf("--max-size %s: what is stored whole has %s", e.o.maxSize.String(), memory.FormatSize(e.rest)), "give more, or --embeddings skip, --others skip"))
	}
	ranks := budget.Ranks(d.candidates())
	var modules []string
	for i, m := range d.modules {
		r.Modules = append(r.Modules, &moduleSize{Module: m.Name, Was: min(m.Out, m.In), Rank: ranks[i], Norm: math.Sqrt(m.energy), Error: m.spectrum.Left(ranks[i], m.energy)})
		r.Bytes += 4 * int64(ranks[i]) * int64(m.Out+m.In)
		if ranks[i] == 0 {
			r.Dropped = append(r.Dropped, m.Name)
			continue
		}
		modules = append(modules, m.Name)
	}
	if len(modules) == 0 {
		return hint.Add(fmt.Errorf("%s: no linear layer differs from that of %s, so there is no adapter", e.o.tuned, e.o.base), "PEFT has no LoRA without one; nibble diff shows what differs")
	}
	for i := range d.rest {
		info := &d.rest[i].info
		module, isBias := strings.CutSuffix(info.Name, ".bias")
		if isBias && slices.Contains(modules, module) {
			info.Name = module + ".base_layer.bias"
		}
		r.Bytes += 4 * info.Shape.Elems()
		r.Whole = append(r.Whole, info.Name)
	}
	var saved []string
	for module := range e.whole {
		saved = append(saved, module)
	}
	if len(saved) > 0 {
		e.config.ModulesToSave = peft.TargetsOf(saved).Names
	}
	e.config.TargetModules = peft.TargetsOf(modules)
	if e.config.BaseModel, err = filepath.Abs(e.o.base); err != nil {
		return err
	}
	if err := e.writeDraft(e.ctx, d, e.o.out, e.config, ranks); err != nil {
		return err
	}
	r.account()
	return nil
}
