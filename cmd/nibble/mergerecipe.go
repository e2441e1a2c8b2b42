package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
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

// host returns the model that the result is one of: the base, or else the first.
func host(r *recipe.Recipe) string {
	if r.Base != "" {
		return r.Base
	}
	return r.Parts[0].Path
}

// combine returns what a recipe makes of the tensors of the model, to which the adapters, in
// their order, do what is said of each. The models of the recipe stay open.
func (x *adapted) combine(r *recipe.Recipe, adapters [][]merge.Change) ([]merge.Change, error) {
	if err := r.Covers(int(x.model.arch.NumHiddenLayers)); err != nil {
		return nil, badUsage(err)
	}
	c := &combination{Recipe: r, base: x.model, of: make([]*model, len(r.Parts))}
	for i, p := range r.Parts {
		switch {
		case p.Adapter:
		case p.Path == host(r):
			c.of[i] = x.model
		default:
			m, err := openPart(p.Path)
			if err != nil {
				return nil, err
			}
			x.open = append(x.open, m)
			if c.of[i], err = m.withoutTiedHead(); err != nil {
				return nil, err
			}
			if err := c.sameTensors(c.of[i]); err != nil {
				return nil, err
			}
			x.notes = append(x.notes, differences(x.model, m)...)
		}
	}
	var err error
	if c.added, err = byTarget(x.model.view, adapters); err != nil {
		return nil, err
	}
	return c.changes()
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

// differences says in which hyperparameters a model is not what the base is: the result has
// those of the base.
func differences(base, m *model) []string {
	var names []string
	for _, d := range compareConfigs(base, m) {
		names = append(names, d.Key)
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s differs from %s in %s; the result has what the latter has", m.Path, base.Path, strings.Join(names, ", "))}
}

// combination is a recipe whose models are open.
type combination struct {
	*recipe.Recipe
	base  *model
	of    []*model                   // of each part, nil for an adapter
	added []map[string][]merge.Delta // of each adapter, by target
}

// changes returns what is done to the base.
func (c *combination) changes() ([]merge.Change, error) {
	places := placesOf(c.base.arch)
	var out []merge.Change
	for info := range c.base.view.All() {
		inputs := c.inputs(info)
		if !slices.ContainsFunc(inputs, func(r tensor.Rows) bool { return r != nil }) {
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

// inputs returns what the parts have for a tensor, nil where one has nothing.
func (c *combination) inputs(info tensor.Info) []tensor.Rows {
	inputs := make([]tensor.Rows, len(c.Parts))
	adapter := 0
	for i, m := range c.of {
		switch {
		case m == nil:
			if ds := c.added[adapter][info.Name]; ds != nil {
				inputs[i] = combine.Of(ds...)
			}
			adapter++
		case floatOf(c.base.view, info) == tensor.Invalid && !blockType(info.DType):
			// No numbers that are combined: as in the base.
		case c.Absolute:
			inputs[i] = combine.Opened(m.view, codecs, info.Name)
		default:
			inputs[i] = combine.Difference(combine.Opened(m.view, codecs, info.Name), combine.Opened(c.base.view, codecs, info.Name))
		}
	}
	return inputs
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

// sameTensors returns an error unless a model has the tensors of the base.
func (c *combination) sameTensors(m *model) error {
	base, path := c.base, m.Path
	if base.arch.Name != m.arch.Name {
		return fmt.Errorf("%s: %w: a model of the family %s, where %s is of %s", path, tensor.ErrUnsupported, m.arch.Name, base.Path, base.arch.Name)
	}
	tokens := make(map[string]bool)
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
