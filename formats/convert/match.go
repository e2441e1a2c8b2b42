package convert

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

// matched is a tensor of a model and what the source has of it.
type matched struct {
	arch.Tensor
	info tensor.Info
}

// match pairs the tensors that a source has with those of a model, in the
// source's order: each once, none unknown, none missing.
func match(src tensor.Source, m *arch.Model) ([]matched, error) {
	known := make(map[string]arch.Tensor)
	required := m.Tensors()
	for _, t := range append(slices.Clone(required), m.Extras()...) {
		known[t.Name] = t
	}
	var out []matched
	for info := range src.All() {
		t, ok := known[info.Name]
		if !ok {
			return nil, fmt.Errorf("tensor %q: %w: the %s family has none of that name", info.Name, tensor.ErrUnsupported, m.Name)
		}
		if err := checkShape(info, t.Dims); err != nil {
			return nil, err
		}
		out = append(out, matched{t, info})
	}
	for _, t := range required {
		if _, err := src.Info(t.Name); err != nil {
			return nil, missing(err, m)
		}
	}
	return out, nil
}

// missing is the error of a tensor that a source lacks.
func missing(err error, m *arch.Model) error {
	return fmt.Errorf("%w (%w): the %s family needs it", err, tensor.ErrMalformed, m.Name)
}

func checkShape(info tensor.Info, dims []int64) error {
	if !info.Shape.Equal(dims) {
		return fmt.Errorf("tensor %q: %w: shape %v, the configuration makes it %v", info.Name, tensor.ErrMalformed, info.Shape, tensor.Shape(dims))
	}
	return nil
}

// joined is a tensor of a GGUF file: one of a checkpoint, or the stack of those
// that the experts of a layer have.
type joined struct {
	arch.Tensor
	infos []tensor.Info // by expert
}

// join groups the tensors of experts. A stack stands where the last tensor of
// its layer's experts does, the projections by name: the order in which
// llama.cpp's converter writes them.
func join(list []matched, experts int64) []joined {
	var out []joined
	type layer struct {
		seen  int64
		names []string
		stack map[string]*joined // by name in GGUF
	}
	layers := make(map[int]*layer)
	for _, t := range list {
		if t.Expert < 0 {
			out = append(out, joined{t.Tensor, []tensor.Info{t.info}})
			continue
		}
		l := layers[t.Layer]
		if l == nil {
			l = &layer{stack: make(map[string]*joined)}
			layers[t.Layer] = l
		}
		s := l.stack[t.GGUFName]
		if s == nil {
			s = &joined{t.Tensor, make([]tensor.Info, experts)}
			l.stack[t.GGUFName] = s
			l.names = append(l.names, t.GGUFName)
		}
		s.infos[t.Expert] = t.info
		if l.seen++; l.seen == experts*projections {
			slices.SortFunc(l.names, func(a, b string) int {
				return cmp.Compare(l.stack[a].HF, l.stack[b].HF)
			})
			for _, name := range l.names {
				out = append(out, *l.stack[name])
			}
		}
	}
	return out
}

// projections is how many each expert has.
const projections = 3
