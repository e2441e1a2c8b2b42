package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/combine"
	"github.com/seed18967229/nibble/merge/recipe"
	"github.com/seed18967229/nibble/tensor"
)

// outTypes are the names that a recipe has for dtypes.
var outTypes = map[string]string{"float32": "f32", "float16": "f16", "bfloat16": "bf16"}

// combination is a recipe whose models are open.
type combination struct {
	*recipe.Recipe
	open []*model
	of   []*model // of each part, nil for an adapter
}

// host returns the path of the model that the result is one of: the base, or else the first.
func host(r *recipe.Recipe) string {
	if r.Base != "" {
		return r.Base
	}
	return r.Parts[0].Path
}

// adapterPaths returns those of a recipe.
func adapterPaths(r *recipe.Recipe) []string {
	var out []string
	for _, p := range r.Parts {
		if p.Adapter {
			out = append(out, p.Path)
		}
	}
	return out
}

// openParts opens the models of a recipe. base is its host, which is open.
func openParts(r *recipe.Recipe, base *model) (*combination, error) {
	c := &combination{Recipe: r}
	for _, p := range r.Parts {
		var m *model
		if !p.Adapter {
			if m = base; p.Path != host(r) {
				var err error
				if m, err = openPart(p.Path); err != nil {
					return nil, errors.Join(err, c.close())
				}
				c.open = append(c.open, m)
			}
		}
		c.of = append(c.of, m)
	}
	if err := r.Covers(int(base.arch.NumHiddenLayers)); err != nil {
		return nil, errors.Join(badUsage(err), c.close())
	}
	return c, nil
}

// openPart opens a model of a recipe. What mergekit writes for one with a revision or with an
// adapter is explained.
func openPart(path string) (*model, error) {
	m, err := openModel(path)
	if errors.Is(err, os.ErrNotExist) && strings.ContainsAny(path, "+@") {
		return nil, hint.Add(err, "a revision (@) must be fetched before, and an adapter (+) is listed among the adapters")
	}
	return m, err
}

func (c *combination) close() error {
	var errs []error
	for _, m := range c.open {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// changes returns what is done to the tensors of base, to which the adapters do what is said of
// each, in the order of the recipe.
func (c *combination) changes(base *model, adapters [][]merge.Change) ([]merge.Change, error) {
	for i, m := range c.of {
		if m != nil && m != base {
			if err := c.sameShape(base, m, c.Parts[i].Path); err != nil {
				return nil, err
			}
		}
	}
	added, err := byTarget(base.view, adapters)
	if err != nil {
		return nil, err
	}
	places := placesOf(base.arch)
	var out []merge.Change
	for info := range base.view.All() {
		inputs, any := make([]tensor.Rows, len(c.Parts)), false
		next := 0
		for i, m := range c.of {
			switch {
			case m == nil:
				if ds := added[next][info.Name]; ds != nil {
					inputs[i] = combine.Of(ds...)
				}
				next++
			case !computable(base.view, info):
			case c.Absolute:
				inputs[i] = combine.Opened(m.view, codecs, info.Name)
			default:
				inputs[i] = combine.Difference(combine.Opened(m.view, codecs, info.Name), combine.Opened(base.view, codecs, info.Name))
			}
			any = any || inputs[i] != nil
		}
		if !any {
			continue
		}
		place, ok := places[info.Name]
		if !ok {
			place = recipe.Place{Tensor: info.Name, Layer: -1}
		}
		params, err := c.Params(place)
		if err != nil {
			return nil, badUsage(err)
		}
		rows, err := c.Method.Combine(info.Name, info.Shape, inputs, params)
		switch {
		case errors.Is(err, tensor.ErrUnsupported):
			return nil, err
		case err != nil:
			return nil, badUsage(err)
		case c.Absolute:
			out = append(out, combine.Replaced(info.Name, rows))
		default:
			out = append(out, merge.Sum(combine.Added(info.Name, rows)))
		}
	}
	return out, nil
}

// computable reports whether a tensor has numbers that are combined.
func computable(src tensor.Source, info tensor.Info) bool {
	return floatOf(src, info) != tensor.Invalid || blockType(info.DType)
}

// byTarget returns what each adapter adds to each tensor. Deltas that are known to be zero are
// left out.
func byTarget(base tensor.Source, adapters [][]merge.Change) ([]map[string][]merge.Delta, error) {
	out := make([]map[string][]merge.Delta, len(adapters))
	for i, changes := range adapters {
		out[i] = make(map[string][]merge.Delta)
		for _, change := range changes {
			ds, err := merge.Deltas(base, codecs, change)
			if err != nil {
				return nil, err
			}
			for _, d := range ds {
				if !d.Zero() {
					out[i][d.Target()] = append(out[i][d.Target()], d)
				}
			}
		}
	}
	return out, nil
}

// placesOf returns where the tensors of a model are.
func placesOf(m *arch.Model) map[string]recipe.Place {
	out := make(map[string]recipe.Place)
	for _, t := range append(m.Tensors(), m.Extras()...) {
		out[t.Name] = recipe.Place{
			Tensor: t.Name, Layer: t.Layer, Layers: int(m.NumHiddenLayers),
			After: t.Role == arch.FinalNorm || t.Role == arch.Head,
		}
	}
	return out
}

// sameShape returns an error unless two models have the same tensors.
func (c *combination) sameShape(base, m *model, path string) error {
	if base.arch.Name != m.arch.Name {
		return fmt.Errorf("%s: %w: a model of the family %s, where %s is of %s", path, tensor.ErrUnsupported, m.arch.Name, base.Path, base.arch.Name)
	}
	var tokens = map[string]bool{}
	for _, t := range append(base.arch.Tensors(), base.arch.Extras()...) {
		tokens[t.Name] = t.Role == arch.Embedding || t.Role == arch.Head
	}
	for info := range base.view.All() {
		other, err := m.view.Info(info.Name)
		if err != nil {
			return differs(fmt.Errorf("%s: %w: it has no tensor %q, which %s has", path, tensor.ErrUnsupported, info.Name, base.Path), tokens[info.Name])
		}
		if !other.Shape.Equal(info.Shape) {
			err := fmt.Errorf("%s: tensor %q: %w: its shape is %v, that of %s has %v", path, info.Name, tensor.ErrUnsupported, other.Shape, base.Path, info.Shape)
			if tokens[info.Name] && len(info.Shape) == 2 && len(other.Shape) == 2 && info.Shape[1] == other.Shape[1] {
				return hint.Add(err, "their vocabularies differ: models are merged whose tokens are the same")
			}
			return differs(err, false)
		}
	}
	for info := range m.view.All() {
		if !tensor.Has(base.view, info.Name) {
			return differs(fmt.Errorf("%s: %w: it has a tensor %q, which %s has not", path, tensor.ErrUnsupported, info.Name, base.Path), tokens[info.Name] || strings.HasPrefix(info.Name, "lm_head"))
		}
	}
	return nil
}

func differs(err error, head bool) error {
	if head {
		return hint.Add(err, "is its head tied to its embeddings, and that of the other not?")
	}
	return hint.Add(err, "models are merged that have the same layers, of the same widths")
}
