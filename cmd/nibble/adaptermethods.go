package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/combine"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/merge/recipe"
	"github.com/seed18967229/nibble/tensor"
)

// A combiner makes one pair of those that adapters have for a module.
type combiner struct {
	// exact says that the result is the sum; zeros that an adapter without the module is a
	// part without a pair.
	exact, zeros bool

	// combine returns the pair, the norm of what should be added, and the norm of the
	// difference to that over it.
	combine func(module string, number int, parts []factors.Part) (p *factors.Pair, norm, apart float64, err error)
}

// wholeMethods are those of merge that combine what adapters add, whatever their factors.
func wholeMethods() []string {
	var out []string
	for _, m := range combine.Methods() {
		if _, err := factors.ByName(m.Name); err != nil {
			out = append(out, m.Name)
		}
	}
	return out
}

// combiner returns the method of n adapters, with flags that it would not heed refused.
func (o *combineOptions) combiner(ctx context.Context, n int) (*combiner, error) {
	if o.rank < 0 {
		return nil, badUsage(fmt.Errorf("--rank is %d, want 1 or more", o.rank))
	}
	f, err := factors.ByName(o.method)
	if err == nil {
		return o.ofFactors(f, n)
	}
	if !slices.Contains(wholeMethods(), o.method) {
		return nil, badUsage(hint.Add(err, "%s, %s", hint.Of(err), strings.Join(wholeMethods(), ", ")))
	}
	return o.ofWhole(ctx, n)
}

// parameters returns what the flags tell a method.
func (o *combineOptions) parameters(m *combine.Method, n int) (combine.Params, error) {
	p := m.Defaults(n, false)
	p.Rank = o.rank
	if err := m.Check(n); err != nil {
		return p, badUsage(err)
	}
	for _, flag := range o.params.given() {
		q, err := m.Parameter(flag.name)
		if err == nil {
			for i := range n {
				if err = q.Set(&p, i, recipe.Value(flag.text)); err != nil || !q.Each {
					break
				}
			}
		}
		if err != nil {
			return p, badUsage(hint.Add(fmt.Errorf("--%s %s: %w", flag.flag(), flag.text, err), "%s takes: %s", m.Name, strings.Join(m.Uses, ", ")))
		}
	}
	return p, nil
}

// ofFactors is a method that works on factors.
func (o *combineOptions) ofFactors(f *factors.Method, n int) (*combiner, error) {
	m, err := combine.ByName(f.Name)
	if err != nil {
		return nil, err
	}
	if given := o.params.given(); !m.LowRank && len(given) > 0 { // merge's method of that name takes more
		return nil, badUsage(fmt.Errorf("--%s is not for --method %s", given[0].flag(), f.Name))
	}
	p, err := o.parameters(m, n)
	if err != nil {
		return nil, err
	}
	opts := factors.Options{Rank: o.rank, Density: p.Each[0].Density, Seed: p.Seed, Frequency: p.Frequency}
	switch {
	case o.rank > 0 && !f.Ranked:
		return nil, badUsage(hint.Add(fmt.Errorf("--rank is not for --method %s", f.Name), "--method svd cuts the sum to a rank"))
	case f.Prunes && !slices.ContainsFunc(o.params.given(), func(p *paramFlag) bool { return p.name == "density" }):
		return nil, badUsage(hint.Add(fmt.Errorf("--density is missing"), "PEFT has no default of it; 1 keeps all"))
	case f.Prunes && opts.Density == 0:
		return nil, badUsage(fmt.Errorf("--density is 0, so nothing would be left"))
	}
	return &combiner{exact: f.Exact, combine: func(_ string, number int, parts []factors.Part) (*factors.Pair, float64, float64, error) {
		opts.Module = uint64(number)
		p, err := f.Combine(parts, opts)
		if err != nil {
			return nil, 0, 0, err
		}
		norm, apart, err := f.Apart(parts, p)
		return p, norm, apart, err
	}}, nil
}

// ofWhole is a method that works on what is added: its result is decomposed and cut.
func (o *combineOptions) ofWhole(ctx context.Context, n int) (*combiner, error) {
	m, err := combine.ByName(o.method)
	if err != nil {
		return nil, err
	}
	params, err := o.parameters(m, n)
	if err != nil {
		return nil, err
	}
	var room []float32
	return &combiner{zeros: true, combine: func(module string, _ int, parts []factors.Part) (*factors.Pair, float64, float64, error) {
		p := params
		p.Each = slices.Clone(params.Each)
		var inputs []tensor.Rows
		rank, first := o.rank, (*factors.Pair)(nil)
		for i, x := range parts {
			if x.Weight != 1 && !slices.Contains(m.Uses, "weight") {
				return nil, 0, 0, badUsage(hint.Add(fmt.Errorf("%s takes no weight, and there is one of %v", m.Name, x.Weight), "%s takes: %s", m.Name, strings.Join(m.Uses, ", ")))
			}
			p.Each[i].Weight = x.Weight
			if x.Pair == nil {
				inputs = append(inputs, nil)
				continue
			}
			inputs = append(inputs, x.Pair)
			if first == nil {
				first = x.Pair
			}
			if o.rank == 0 {
				rank = max(rank, x.Rank)
			}
			if x.Out != first.Out || x.In != first.In {
				return nil, 0, 0, hint.Add(fmt.Errorf("%w: one is for a layer of %d to %d, another of %d to %d", tensor.ErrMalformed, first.In, first.Out, x.In, x.Out),
					"were the adapters trained on the same model?")
			}
		}
		// The name is that of the weight, so that what is dropped at random is what nibble
		// merge drops.
		rows, err := m.Combine(module+".weight", tensor.Shape{int64(first.Out), int64(first.In)}, inputs, p)
		if err != nil {
			return nil, 0, 0, err
		}
		d := factors.NewSum(ctx, module, rows, first.Out, first.In)
		if need := first.Out * first.In; need > len(room) && 4*need <= heldBytes {
			room = make([]float32, need)
		}
		if first.Out*first.In <= len(room) {
			_, err = d.Energy(room)
		} else {
			_, err = d.Energy(nil)
		}
		if err != nil {
			return nil, 0, 0, err
		}
		made, spectrum, left, err := d.Extract(rank, p.Seed)
		if err != nil {
			return nil, 0, 0, err
		}
		norm := spectrum.Norm()
		energy := norm*norm + left
		return made, math.Sqrt(energy), spectrum.Left(len(spectrum), energy), nil
	}}, nil
}
