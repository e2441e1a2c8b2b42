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

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/formats/gguf/imatrix"
	"github.com/seed18967229/nibble/internal/budget"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/nf4/bnb"
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
	fixed      bool // it has one option that needs no trial
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
	var total int64
	groups := make(map[string]int)
	for _, c := range list {
		total += c.source.Size()
		groups[c.group]++
	}
	found := make([]map[encoding]outcome, len(list))
	bar := a.progress("try", total, bytesUnit)
	err := each(ctx, a.scanWorkers(3), len(list), func(ctx context.Context, i int) (err error) {
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
	return hint.Add(fmt.Errorf("%s: %s is less than the smallest types take, with what is not quantized", path, o.asked()), "%s", advice)
}

// defaultBlocks are the types that a directory's weights are chosen among, beside their
// own.
var defaultBlocks = []string{"nf4:32", "nf4:64", "nf4:128", "nf4:256"}

// keepName stands in --types for the type that a tensor has.
const keepName = "keep"

// blockOptions reads --types for a directory.
func (o *targetOptions) blockOptions(double bool) (list []encoding, keep bool, err error) {
	names := o.types
	if names == nil {
		names = append(slices.Clone(defaultBlocks), keepName)
	}
	for _, name := range names {
		if strings.EqualFold(name, keepName) {
			keep = true
			continue
		}
		c, err := parseCandidate(strings.ToLower(name), 64, double)
		if err != nil {
			return nil, false, err
		}
		if c.of.block == 0 || len(list) > 0 && c.of.dtype != list[0].dtype {
			return nil, false, badUsage(hint.Add(fmt.Errorf("--types %s: bitsandbytes has one type for all layers of a model, with a block size for each", strings.Join(names, ",")),
				"for a directory list nf4 (or fp4) with block sizes, as nf4:32, and keep; a .gguf file can mix types"))
		}
		list = append(list, c.of)
	}
	if len(list) == 0 {
		return nil, false, badUsage(fmt.Errorf("--types has nothing to quantize to"))
	}
	return list, keep, nil
}

// chooseBlocks chooses the block size of each weight and completes the options with it.
func (a *app) chooseBlocks(ctx context.Context, b *bnbInput, m *model, opts *bnb.Options, all *quantizeOptions) error {
	o := &all.target
	list, keep, err := o.blockOptions(opts.DoubleQuant)
	if err != nil {
		return err
	}
	opts.Type = list[0].dtype
	_, account, err := bnb.Plan(b.src, codecs, *opts)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Path, err)
	}
	important, err := all.importances()
	if err != nil {
		return err
	}
	table := make(map[string]matrix)
	for _, t := range m.arch.Tensors() {
		table[t.Name] = matrix{Tensor: t}
	}
	var choices []choosable
	var weights, fixed int64
	for _, x := range account.Results() {
		weights += x.Shape.Elems()
		if !x.Quantized() {
			fixed += x.After
			continue
		}
		info, err := b.src.Info(x.Name)
		if err != nil {
			return err
		}
		c := choosable{name: x.Name, source: info, group: report.Group(x.Name), options: slices.Clone(list)}
		if was := b.plain(info, opts); keep && was != tensor.Invalid {
			c.options = append(c.options, encoding{dtype: was})
		}
		if t, ok := table[x.Name]; ok && important != nil {
			c.importance = important(t)
		}
		choices = append(choices, c)
	}
	limit := o.budget(weights, 0) - fixed
	size := func(c choosable, e encoding) int64 { return e.size(c.source.Shape) }
	picked, err := a.choose(ctx, o, b.src, choices, limit, important != nil, opts.NonFinite, size)
	if err != nil {
		return o.tooSmall(err, m.Path, fixed+least(choices, size), 0, weights)
	}
	opts.BlockSizes = make(map[string]int)
	sizes := make(map[int]int)
	for i, c := range choices {
		opts.BlockSizes[c.name] = picked.of[i].block
		sizes[picked.of[i].block]++
	}
	// What is said of the model as a whole is what most of its weights have.
	for size, n := range sizes {
		if most := sizes[opts.BlockSize]; size != 0 && (n > most || n == most && size < opts.BlockSize) {
			opts.BlockSize = size
		}
	}
	return a.announce(all, picked.report, limit+fixed, fixed)
}

// plain returns the type that a weight has where it is not quantized.
func (b *bnbInput) plain(info tensor.Info, o *bnb.Options) tensor.DType {
	if o.Was != nil && (info.DType.Opaque() || blockType(info.DType)) {
		return o.Was(info)
	}
	if info.DType.Float() {
		return info.DType
	}
	return tensor.Invalid
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
	return a.print(&chosenResult{c})
}

// Types of GGUF that are chosen among unless --types says otherwise: those that a matrix
// has if its rows divide into blocks of 256, and those it has if they do not.
var (
	largeBlocks = []tensor.DType{tensor.Q2_K, tensor.Q3_K, tensor.IQ4_XS, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K, tensor.Q8_0}
	smallBlocks = []tensor.DType{tensor.IQ4_NL, tensor.Q5_0, tensor.Q5_1, tensor.Q8_0}
)

// typeOptions returns what there is to choose among for a matrix, which unquantized is of
// the type own.
func (o *targetOptions) typeOptions(info tensor.Info, own tensor.DType) ([]encoding, error) {
	half := tensor.F16
	if own == tensor.BF16 {
		half = tensor.BF16
	}
	types := append(slices.Clone(largeBlocks), half)
	if block, _ := tensor.Q4_K.Block(); info.Shape.Cols()%block != 0 {
		types = append(slices.Clone(smallBlocks), half)
	}
	if o.types != nil {
		types = nil
		for _, name := range o.types {
			d, err := ftype.ParseDType(name)
			if err == nil {
				err = writable(d)
			}
			if err != nil {
				return nil, badUsage(hint.Add(fmt.Errorf("--types: %w", err), "for a .gguf file there are: %s", strings.Join(tensorTypes(), ", ")))
			}
			types = append(types, d)
		}
	}
	var out []encoding
	for _, d := range types {
		if e := (encoding{dtype: d}); e.fits(info.Shape) && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		out = []encoding{{dtype: half}}
	}
	return out, nil
}

// chooseTypes chooses the type of each matrix of a GGUF file, in place of what the rules
// of one type chose, and returns what the file then is mostly.
func (a *app) chooseTypes(ctx context.Context, q *ggufQuantizer, split gguf.SplitOptions, all *quantizeOptions) (ftype.Type, error) {
	o := &all.target
	steps := make(map[string]string)
	for _, s := range q.plan.Steps {
		if len(s.In) > 0 {
			steps[s.Out[0].Name] = s.In[0]
		}
	}
	var choices []choosable
	var at []int
	var weights, fixed, before int64
	for i, c := range q.choices {
		weights += c.Out.Shape.Elems()
		before += aligned(c.Out.Size())
		// What a flag named is not chosen again.
		if !blockType(c.Out.DType) || strings.HasPrefix(c.Why, "--") {
			fixed += aligned(c.Out.Size())
			continue
		}
		info, err := q.src.Info(steps[c.In.Name])
		if err != nil {
			return 0, err
		}
		x := choosable{name: info.Name, source: info, group: c.In.Name}
		if x.options, err = o.typeOptions(c.Out, c.In.DType); err != nil {
			return 0, err
		}
		if q.imatrix != nil {
			if x.importance, err = q.importance(c); err != nil {
				return 0, fmt.Errorf("%s: %w", q.path, err)
			}
		}
		choices, at = append(choices, x), append(at, i)
	}
	if len(choices) == 0 {
		return 0, fmt.Errorf("%s: %w: there is no matrix to choose a type for", q.path, tensor.ErrUnsupported)
	}
	files, err := split.Sizes(q.meta(ftype.Q8_0, all.gguf.imatrix), layoutOf(q.choices))
	if err != nil {
		return 0, err
	}
	other := -before // all that is no tensor
	for _, n := range files {
		other += n
	}
	size := func(c choosable, e encoding) int64 { return aligned(e.size(c.source.Shape)) }
	limit := o.budget(weights, other) - fixed
	picked, err := a.choose(ctx, o, q.src, choices, limit, q.imatrix != nil, q.nonFinite, size)
	if err != nil {
		return 0, o.tooSmall(err, q.path, fixed+least(choices, size), other, weights)
	}
	share := make(map[tensor.DType]int64)
	for k, i := range at {
		d := picked.of[k].dtype
		q.choices[i].Out.DType, q.choices[i].Fallback, q.choices[i].Why = d, "", "chosen"
		share[d] += choices[k].source.Shape.Elems()
	}
	return mostly(share), a.announce(all, picked.report, limit+fixed, fixed)
}

// aligned returns what a tensor of so many bytes takes in a GGUF file.
func aligned(n int64) int64 {
	const alignment = 32
	return (n + alignment - 1) / alignment * alignment
}

func layoutOf(choices []ftype.Choice) []tensor.Info {
	var out []tensor.Info
	for _, c := range choices {
		out = append(out, c.Out)
	}
	return out
}

// mostly returns the file type of the type that most weights have.
func mostly(share map[tensor.DType]int64) ftype.Type {
	best, most := ftype.Q8_0, int64(-1)
	for name, t := range ftype.Types() {
		if n, ok := share[t.Base()]; ok && name == lower(t.Base()) && (n > most || n == most && t < best) {
			best, most = t, n
		}
	}
	return best
}
