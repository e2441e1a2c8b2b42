package merge

import (
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// An Effect is what an adapter does to a base.
type Effect struct {
	// Base is what the changes are done to: the base itself, unless the adapter
	// adds tensors to it or gives some another shape. Origins says which of the
	// base's tensors those of another name are made of.
	Base    tensor.Source
	Origins map[string]string

	// Changes has one change for each tensor that the adapter changes.
	Changes []Change

	// Untied says that Base has a head of its own, which the base had not;
	// Vocabulary and Layers are the new numbers of tokens and of layers, 0 if they
	// are what they were.
	Untied             bool
	Vocabulary, Layers int64

	// Notes say what whoever merges should know.
	Notes []string

	// How each adapter's part is to be weighted and joined with others'.
	arithmetic Arithmetic
	codecs     tensor.Codecs
}

// Zeros returns how many of the deltas are zero.
func (e *Effect) Zeros() int {
	n := 0
	for _, c := range e.Changes {
		for _, d := range deltasIn(c) {
			if d.Zero() {
				n++
			}
		}
	}
	return n
}

// deltasIn returns the deltas that a change is made of.
func deltasIn(c Change) []Delta {
	switch c := c.(type) {
	case *sum:
		return c.deltas
	case *rounded:
		return []Delta{c.delta}
	case *dora:
		return []Delta{c.delta}
	case chain:
		var out []Delta
		for _, one := range c {
			out = append(out, deltasIn(one)...)
		}
		return out
	}
	return nil
}

// Weighted returns the changes of an adapter that counts so much: a part of the
// way from the base to what it makes of it. Of a sum that is a factor to its
// scale. With PEFT's arithmetic it is what set_scale does: the scales of all
// products get the factor, and what is replaced is replaced.
func (e *Effect) Weighted(weight float64) ([]Change, error) {
	if weight == 1 {
		return e.Changes, nil
	}
	out := make([]Change, len(e.Changes))
	for i, c := range e.Changes {
		var err error
		if out[i], err = e.weighted(c, weight); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (e *Effect) weighted(c Change, weight float64) (Change, error) {
	switch c := c.(type) {
	case *sum:
		var ds []Delta
		for _, d := range c.deltas {
			ds = append(ds, times(d, weight))
		}
		return Sum(ds...), nil
	case *rounded:
		return &rounded{delta: times(c.delta, weight), to: c.to, early: c.early}, nil
	}
	if e.arithmetic != Once {
		switch c := c.(type) {
		case *dora:
			again := c.clone()
			again.delta = times(c.delta, weight)
			return again, nil
		case chain:
			var out []Change
			for _, one := range c {
				w, err := e.weighted(one, weight)
				if err != nil {
					return nil, err
				}
				out = append(out, w)
			}
			return newChain(out), nil
		}
		return c, nil
	}
	ds, err := Deltas(e.Base, e.codecs, c)
	if err != nil {
		return nil, err
	}
	for i, d := range ds {
		ds[i] = times(d, weight)
	}
	return Sum(ds...), nil
}

// times returns a delta times a factor.
func times(d Delta, factor float64) Delta {
	if own, ok := d.(interface{ times(float64) Delta }); ok {
		return own.times(factor)
	}
	return Scaled(d, float32(factor))
}

// Join returns what several adapters do to one base, base being that of the last
// Effect: the sum of what each adds. With PEFT's arithmetic the adapters are
// merged one after the other, as PEFT does it.
//
// Two that put values in place of the same ones cannot be joined.
func Join(base tensor.Source, codecs tensor.Codecs, a Arithmetic, adapters ...[]Change) ([]Change, error) {
	var order []string
	by := make(map[string][]Change)
	for _, list := range adapters {
		for _, c := range list {
			if by[c.Target()] == nil {
				order = append(order, c.Target())
			}
			by[c.Target()] = append(by[c.Target()], c)
		}
	}
	var out []Change
	for _, target := range order {
		list := by[target]
		if err := disjoint(list); err != nil {
			return nil, hint.Add(fmt.Errorf("tensor %q: %w", target, err), "merge one adapter, and then the other into the result")
		}
		if a == Once {
			var err error
			if list, err = summed(base, codecs, list); err != nil {
				return nil, err
			}
		} else {
			for i, c := range list {
				if i > 0 {
					list[i] = afterOthers(c)
				}
			}
		}
		out = append(out, newChain(list))
	}
	return out, nil
}

// summed has the first change that is no sum before all others, which are added.
func summed(base tensor.Source, codecs tensor.Codecs, list []Change) ([]Change, error) {
	var first Change
	var deltas []Delta
	for _, c := range list {
		if _, ok := c.(*sum); !ok && first == nil {
			first = c
			continue
		}
		ds, err := Deltas(base, codecs, c)
		if err != nil {
			return nil, err
		}
		deltas = append(deltas, ds...)
	}
	var out []Change
	if first != nil {
		out = append(out, first)
	}
	if len(deltas) > 0 {
		out = append(out, Sum(deltas...))
	}
	return out, nil
}

// afterOthers returns a change for when other adapters have changed the weight.
func afterOthers(c Change) Change {
	switch c := c.(type) {
	case *dora:
		again := c.clone()
		again.merged = true
		return again
	case chain:
		out := slices.Clone(c)
		for i := range out {
			out[i] = afterOthers(out[i])
		}
		return out
	}
	return c
}

// disjoint returns an error if two adapters put values in place of the same.
func disjoint(list []Change) error {
	whole := false
	rows := make(map[int64]bool)
	for _, c := range list {
		parts, ok := c.(chain)
		if !ok {
			parts = chain{c}
		}
		own := make(map[int64]bool)
		all := false
		for _, p := range parts {
			switch p := p.(type) {
			case *replacement:
				all = true
			case *tokenRows:
				for row := range p.at {
					own[row] = true
				}
			}
		}
		if (all || len(own) > 0) && whole || all && len(rows) > 0 {
			return fmt.Errorf("%w: two adapters hold values to put in its place", tensor.ErrUnsupported)
		}
		for row := range own {
			if rows[row] {
				return fmt.Errorf("%w: two adapters hold values to put in place of row %d", tensor.ErrUnsupported, row)
			}
			rows[row] = true
		}
		whole = whole || all
	}
	return nil
}
