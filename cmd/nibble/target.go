package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/formats/gguf/imatrix"
	"github.com/seed18967229/nibble/internal/budget"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// targetOptions are the flags of the choice of a type for each tensor.
type targetOptions struct {
	bits  float64
	size  sizeFlag
	types []string
}

func targetFlags(cmd *cobra.Command, o *targetOptions) {
	f := cmd.Flags()
	f.Float64Var(&o.bits, "target-bits", 0, "choose a type for each tensor, for at most so many bits per weight of the whole model")
	f.Var(&o.size, "target-size", "choose a type for each tensor, for at most so many bytes of a GGUF file, or of a directory's weights")
	f.StringSliceVar(&o.types, "types", nil, "what --target-bits and --target-size choose among (default "+strings.Join(defaultBlocks, ",")+",keep or GGUF's types from q2_k on)")
}

func (o *targetOptions) given() bool { return o.bits != 0 || o.size != 0 }

// check returns what is wrong with the flags.
func (o *targetOptions) check() error {
	switch {
	case o.bits != 0 && o.size != 0:
		return badUsage(errors.New("--target-bits and --target-size are two budgets, where one is needed"))
	case !(o.bits >= 0) || o.bits > 64:
		return badUsage(fmt.Errorf("--target-bits is %g, want a number of bits above 0", o.bits))
	}
	return nil
}

// asked says what the budget is.
func (o *targetOptions) asked() string {
	if o.size != 0 {
		return fmt.Sprintf("--target-size %v", o.size.String())
	}
	return fmt.Sprintf("--target-bits %g", o.bits)
}

// budget returns how many bytes the tensors may take, of which there are so many
// weights, beside other bytes that are in the output too.
func (o *targetOptions) budget(weights, other int64) int64 {
	if o.size != 0 {
		return int64(o.size) - other
	}
	return int64(o.bits * float64(weights) / 8)
}

// target refuses flags that do not go with a choice of types. An importance matrix
// goes with both families.
func (f familyFlags) target(cmd *cobra.Command, out string) error {
	if cmd.Flags().Changed("type") {
		return badUsage(hint.Add(errors.New("--type is one type for all, and --target-bits and --target-size choose one for each tensor"), "leave one of them out, or list types with --types"))
	}
	family := bnbFamily
	if isGGUF(out) {
		family = ggufFamily
	}
	for _, name := range []string{"block-size", "pure"} {
		if cmd.Flags().Changed(name) {
			return badUsage(hint.Add(fmt.Errorf("--%s does not go with a choice of types", name), "list what may be chosen with --types"))
		}
	}
	own := maps.Clone(f)
	own[ggufFamily] = slices.DeleteFunc(slices.Clone(own[ggufFamily]), func(name string) bool { return name == "imatrix" })
	return own.check(cmd, family, out)
}

// quantizeTarget quantizes each tensor to the type that is best for it within a budget.
func (a *app) quantizeTarget(ctx context.Context, in, out string, o *quantizeOptions) error {
	if err := o.target.check(); err != nil {
		return err
	}
	if err := fsx.CheckOutput(out, in); err != nil {
		return badUsage(err)
	}
	// To try all types takes long, and to say then that there is no room for the result
	// would be late.
	if old, err := os.Stat(out); err == nil && !a.force {
		if names, err := os.ReadDir(out); !old.IsDir() || err != nil || len(names) > 0 {
			return hint.Add(fmt.Errorf("%s: %w", out, fsx.ErrExists), "choose another output, or give --force to replace it")
		}
	}
	return a.withAccount(ctx, in, out, o, func(a *app, ctx context.Context, in, out string, o *quantizeOptions) error {
		if isGGUF(out) {
			return a.quantizeGGUF(ctx, in, out, ftype.Q8_0, o)
		}
		return a.quantizeBnb(ctx, in, out, tensor.NF4, o)
	})
}

// importances reads the importance matrix that --imatrix names, nil if it names none.
func (o *quantizeOptions) importances() (importances, error) {
	if o.gguf.imatrix == "" {
		return nil, nil
	}
	f, err := imatrix.Read(o.gguf.imatrix)
	if err != nil {
		return nil, err
	}
	return func(t matrix) []float32 {
		values, mats, ok := f.Importance(t.GGUFName)
		if !ok {
			return nil
		}
		if t.Expert >= 0 && t.Expert < mats {
			n := len(values) / mats
			values = values[t.Expert*n:][:n]
		}
		return values
	}, nil
}

// choosable is a tensor for which there is something to choose.
type choosable struct {
	name       string // in src
	source     tensor.Info
	group      string // what has one tensor's weight in the sum
	importance []float32
	options    []encoding
}

// choice is what was chosen of the options of each.
type choice struct {
	of     []encoding
	report *report.Choice
}

// choose tries the options of all tensors and chooses within limit, the bytes that they
// may take together. size says what an option takes.
func (a *app) choose(ctx context.Context, o *targetOptions, src tensor.Source, list []choosable, limit int64, weighted bool, bad *pipeline.NonFinite, size func(c choosable, e encoding) int64) (*choice, error) {
	if n := least(list, size); n > limit {
		return nil, fmt.Errorf("%w: %d of %d bytes", budget.ErrTooSmall, limit, n)
	}
	var total, most int64
	groups := make(map[string]int)
	for _, c := range list {
		total, most = total+c.source.Size(), max(most, tryMemory(c.source.Shape, c.options))
		groups[c.group]++
	}
	found := make([]map[encoding]outcome, len(list))
	bar := a.progress("try", total, bytesUnit)
	err := each(ctx, a.tryWorkers(most), len(list), func(ctx context.Context, i int) (err error) {
		defer bar.add(list[i].source.Size())
		found[i], err = try(ctx, src, list[i].name, list[i].options, list[i].importance, bad)
		return err
	})
	bar.stop()
	if err != nil {
		return nil, err
	}
	items := make([]budget.Item, len(list))
	for i, c := range list {
		items[i].Name = c.name
		for _, e := range c.options {
			items[i].Options = append(items[i].Options, budget.Option{Size: size(c, e), Cost: found[i][e].relative() / float64(groups[c.group])})
		}
	}
	picked, err := budget.Choose(items, limit)
	if err != nil {
		return nil, err
	}
	out := &choice{report: &report.Choice{Asked: o.asked(), Objective: objective(weighted)}}
	for i, c := range list {
		out.of = append(out.of, c.options[picked[i]])
		out.report.Used += items[i].Options[picked[i]].Size
		out.report.Cost += report.Number(items[i].Options[picked[i]].Cost)
		for _, e := range c.options {
			if name := e.String(); !slices.Contains(out.report.Candidates, name) {
				out.report.Candidates = append(out.report.Candidates, name)
			}
		}
	}
	out.report.Types = chosenTypes(list, out.of, items, picked)
	return out, nil
}

// objective says what is minimised. The relative error of a layer's output, of inputs
// whose columns have the mean square that an importance matrix says, or are alike without
// one, is the root of what a tensor adds. To add the squares up with equal weights is what
// follows if errors are small and independent (Malinovskii et al., Pushing the Limits of
// Large Language Model Quantization via the Linearity Theorem, 2024), up to a factor for
// each layer that only a run of the model could tell.
func objective(weighted bool) string {
	s := "sum over the tensors of the squared error relative to the squared weights"
	if weighted {
		s = "sum over the tensors of the squared error relative to the squared weights, columns weighted by the importance matrix"
	}
	return s + " (the experts of a layer count as one tensor)"
}

// chosenTypes groups what was chosen.
func chosenTypes(list []choosable, of []encoding, items []budget.Item, picked []int) []report.ChosenType {
	groups := make(map[string]*report.ChosenType)
	modules := make(map[string]map[string]int)
	for i, c := range list {
		name := of[i].String()
		g := groups[name]
		if g == nil {
			g = &report.ChosenType{Type: name}
			groups[name], modules[name] = g, make(map[string]int)
		}
		g.Tensors++
		n := items[i].Options[picked[i]].Size
		g.Size = report.NewSize(g.Weights+c.source.Shape.Elems(), g.Bytes+n)
		modules[name][starred(c.name)]++
	}
	var out []report.ChosenType
	for name, g := range groups {
		for _, m := range slices.Sorted(maps.Keys(modules[name])) {
			g.Modules = append(g.Modules, report.ChosenModule{Name: m, Tensors: modules[name][m]})
		}
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b report.ChosenType) int {
		return cmp.Or(cmp.Compare(a.Bits, b.Bits), cmp.Compare(a.Type, b.Type))
	})
	return out
}

// chosenResult prints what was chosen.
type chosenResult struct{ *report.Choice }

func (r *chosenResult) text(w io.Writer) {
	fmt.Fprintf(w, "chosen for %s: %s of %s\n", r.Asked, memory.FormatSize(r.Used), memory.FormatSize(r.Budget))
	for _, t := range r.Types {
		var names []string
		for _, m := range t.Modules {
			names = append(names, fmt.Sprintf("%s (%d)", m.Name, m.Tensors))
		}
		fmt.Fprintf(w, "  %-8s %5d tensors, %.2f bits  %s\n", t.Type, t.Tensors, t.Bits, strings.Join(names, ", "))
	}
}

// tooSmall explains that nothing fits, where all weights take at least so many bytes.
func (o *targetOptions) tooSmall(err error, path string, least, other, weights int64) error {
	if !errors.Is(err, budget.ErrTooSmall) {
		return err
	}
	advice := fmt.Sprintf("give at least --target-bits %.3f, or types with fewer bits in --types", 8*float64(least)/float64(max(1, weights))+0.0005)
	if o.size != 0 {
		advice = fmt.Sprintf("give at least --target-size %s, or types with fewer bits in --types", memory.AtLeast(least+other))
	}
	return badUsage(hint.Add(fmt.Errorf("%s: %s is less than the smallest types take, with what is not quantized", path, o.asked()), "%s", advice))
}

// least returns what the smallest options take.
func least(list []choosable, size func(c choosable, e encoding) int64) (n int64) {
	for _, c := range list {
		best := int64(-1)
		for _, e := range c.options {
			if s := size(c, e); best < 0 || s < best {
				best = s
			}
		}
		n += best
	}
	return n
}

// announce prints what was chosen, and keeps it for the report.
func (a *app) announce(all *quantizeOptions, c *report.Choice, limit, fixed int64) error {
	c.Budget, c.Used = limit, c.Used+fixed
	all.loss.choice = c
	if a.json {
		return nil // it is a part of the result
	}
	return a.print(&chosenResult{c})
}
