package recipe

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/combine"
)

// A Recipe is what is merged and how.
type Recipe struct {
	Method *combine.Method

	// Base is the model that adapters and differences belong to, "" for none.
	Base string

	// Parts are what is combined, in order.
	Parts []Part

	// DType is what the result is stored in, as config.json names it; "" for what the base is.
	DType string

	// Absolute says that the weights of the parts are combined themselves, not what they add to
	// a base. Plan finds it out.
	Absolute bool

	params settings // of all
	slices []slice
}

// A Part is a model or an adapter.
type Part struct {
	Path    string
	Adapter bool
}

// slice is a range of layers with parameters of its own.
type slice struct {
	from, to int // to is 0 for the last there is
	params   settings
	each     []settings // of each part
}

// New returns a recipe of one slice that has everything.
func New(method *combine.Method, base string, parts []Part) *Recipe {
	return &Recipe{Method: method, Base: base, Parts: parts, params: make(settings), slices: []slice{{each: make([]settings, len(parts))}}}
}

// Set sets a parameter of all tensors, for one part or, if that is -1, for all. The value is a
// float64, a bool or a string.
func (r *Recipe) Set(part int, name string, value any) error {
	s := constant(value)
	if err := r.check(name, s); err != nil {
		return err
	}
	if part < 0 {
		r.params[name] = s
		return nil
	}
	for i := range r.slices {
		if r.slices[i].each[part] == nil {
			r.slices[i].each[part] = make(settings)
		}
		r.slices[i].each[part][name] = s
	}
	return nil
}

// check returns an error if the method does not take a parameter, or not such a value.
func (r *Recipe) check(name string, s *setting) error {
	q, err := r.Method.Parameter(name)
	if err != nil {
		return err
	}
	p := r.Method.Defaults(1, false)
	for _, c := range append(s.cases, filtered{values: s.values}) {
		for _, v := range c.values {
			if err := q.Set(&p, 0, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// Plan decides what the parts are to the base, and returns an error if the method cannot combine
// them:
//
//   - linear and slerp combine weights themselves if there is no base, or if it is one of the
//     models; slerp too if there is but one model, which is then taken with the base. slerp goes
//     from the base to the other.
//   - The others combine what the parts add to the base. If it is one of the models, it adds
//     nothing and is left out.
func (r *Recipe) Plan() error {
	own := -1 // the base's place among the parts
	if r.Base != "" {
		own = slices.IndexFunc(r.Parts, func(p Part) bool { return !p.Adapter && filepath.Clean(p.Path) == filepath.Clean(r.Base) })
	}
	adapters := slices.ContainsFunc(r.Parts, func(p Part) bool { return p.Adapter })
	switch {
	case !r.Method.Absolute || adapters:
		if r.Base == "" {
			return hint.Add(fmt.Errorf("%s needs a base, which there is none of", what(r.Method, adapters)), "give it with --base, or as base_model in a recipe")
		}
		if own >= 0 {
			r.Parts = slices.Delete(slices.Clone(r.Parts), own, own+1)
			for i, s := range r.slices {
				r.slices[i].each = slices.Delete(slices.Clone(s.each), own, own+1)
			}
		}
	case r.Method.Most == 2 && r.Base != "" && own < 0 && len(r.Parts) == 1:
		r.Parts = append(r.Parts, Part{Path: r.Base})
		for i, s := range r.slices {
			r.slices[i].each = append(slices.Clone(s.each), nil)
		}
		own = 1
		fallthrough
	default:
		r.Absolute = r.Base == "" || own >= 0
		if r.Method.Most == 2 && own == 1 {
			slices.Reverse(r.Parts)
			for i := range r.slices {
				slices.Reverse(r.slices[i].each)
			}
		}
	}
	if len(r.Parts) == 0 {
		return errors.New("there is nothing to combine")
	}
	return r.Method.Check(len(r.Parts))
}

func what(m *combine.Method, adapters bool) string {
	if adapters {
		return "an adapter"
	}
	return m.Name
}

// Covers returns an error if the slices do not cover a model of that many layers.
func (r *Recipe) Covers(layers int) error {
	last := &r.slices[len(r.slices)-1]
	if last.to != 0 && last.to != layers {
		return hint.Add(fmt.Errorf("the slices end at layer %d, the model has %d", last.to, layers), "slices that are not the whole model are not done")
	}
	return nil
}

// A Place is where a tensor is in a model of so many layers.
type Place struct {
	Tensor        string
	Layer, Layers int // Layer is -1 outside of them

	// After says of a tensor outside of the layers that it comes after them.
	After bool
}

// Params returns the parameters for a tensor.
func (r *Recipe) Params(at Place) (combine.Params, error) {
	s, t := r.slice(at)
	p := r.Method.Defaults(len(r.Parts), r.Absolute)
	for _, name := range r.Method.Uses {
		q := combine.ParameterByName(name)
		inputs := 1
		if q.Each {
			inputs = len(r.Parts)
		}
		for i := range inputs {
			from := []settings{s.params, r.params}
			if q.Each {
				from = slices.Insert(from, 0, s.each[i])
			}
			for _, level := range from {
				if x, ok := level[name]; ok {
					if v, ok := x.at(at.Tensor, t); ok {
						if err := q.Set(&p, i, v); err != nil {
							return p, fmt.Errorf("tensor %q: %w", at.Tensor, err)
						}
						break
					}
				}
			}
		}
	}
	return p, nil
}

// slice returns the slice that a place is in, and how far it is from its first layer to its last.
func (r *Recipe) slice(at Place) (*slice, float64) {
	if at.Layer < 0 {
		if at.After {
			return &r.slices[len(r.slices)-1], 0
		}
		return &r.slices[0], 0
	}
	for i := range r.slices {
		s := &r.slices[i]
		to := s.to
		if to == 0 {
			to = at.Layers
		}
		if at.Layer >= to {
			continue
		}
		if n := to - s.from; n > 1 {
			return s, float64(at.Layer-s.from) / float64(n-1)
		}
		return s, 1
	}
	return &r.slices[len(r.slices)-1], 1
}
