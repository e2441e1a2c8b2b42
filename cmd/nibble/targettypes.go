package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

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
