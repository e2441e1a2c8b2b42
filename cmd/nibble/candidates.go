package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

func lower(d tensor.DType) string { return strings.ToLower(d.String()) }

// A candidate is a type that is tried: one encoding for all linear layers, or a mix of
// GGUF's.
type candidate struct {
	name string
	of   encoding    // of the linear layers
	mix  *ftype.Type // nil for bitsandbytes' types, which are of
}

// candidateNames lists what can be tried.
func candidateNames() []string {
	names := []string{"nf4[:BLOCK]", "fp4[:BLOCK]", "int8"}
	return append(names, slices.Sorted(maps.Keys(ftype.Types()))...)
}

// parseCandidates reads a list of types.
func parseCandidates(list []string, block int, double bool) ([]candidate, error) {
	var out []candidate
	for _, text := range list {
		c, err := parseCandidate(strings.ToLower(strings.TrimSpace(text)), block, double)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o candidate) bool { return o.name == c.name }) {
			return nil, badUsage(fmt.Errorf("%s is listed twice", c.name))
		}
		out = append(out, c)
	}
	return out, nil
}

func parseCandidate(name string, block int, double bool) (candidate, error) {
	if t, ok := ftype.Types()[name]; ok {
		return candidate{name: name, mix: &t}, nil
	}
	base, size, sized := strings.Cut(name, ":")
	switch base {
	case "nf4", "fp4":
		d, err := tensor.ParseDType(strings.ToUpper(base))
		if err != nil {
			return candidate{}, err
		}
		if sized {
			if block, err = strconv.Atoi(size); err != nil {
				return candidate{}, badUsage(fmt.Errorf("%s: block size %q", name, size))
			}
		}
		if err := nf4.CheckBlockSize(int64(block)); err != nil {
			return candidate{}, badUsage(fmt.Errorf("%s: %w", name, err))
		}
		e := encoding{dtype: d, block: block, double: double}
		return candidate{name: e.String(), of: e}, nil
	case "int8":
		if !sized {
			return candidate{name: name, of: encoding{dtype: tensor.INT8}}, nil
		}
	}
	return candidate{}, badUsage(hint.Add(fmt.Errorf("no type %q to try", name), "there are: %s", strings.Join(candidateNames(), ", ")))
}

// matrix is a tensor of a model that may be quantized.
type matrix struct {
	arch.Tensor
	info tensor.Info // in checkpoint form
}

// subject is a model on which types are tried.
type subject struct {
	m    *model
	list []matrix // every tensor of the table, in the order of computation

	// gguf has the tensors as GGUF has them, before anything is quantized, each once.
	gguf []tensor.Info
	at   map[string]int // their places by name

	// src has their values, linear layers as [out, in].
	src tensor.Source
}

// newSubject finds the tensors that can be quantized.
func newSubject(m *model) (*subject, error) {
	s := &subject{m: m, at: make(map[string]int)}
	for _, t := range m.arch.Tensors() {
		info, err := m.view.Info(t.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		s.list = append(s.list, matrix{t, info})
		if _, ok := s.at[t.GGUFName]; ok {
			continue // the stack of another expert
		}
		var experts int64
		if t.Expert >= 0 {
			experts = m.arch.NumExperts
		}
		g := tensor.Info{Name: t.GGUFName, DType: tensor.F32, Shape: t.GGUFDims(experts)}
		if len(t.Dims) > 1 && !t.Wide && t.Part == "weight" {
			if g.DType = info.DType; !g.DType.Float() {
				g.DType = m.dtype()
			}
		}
		s.at[t.GGUFName] = len(s.gguf)
		s.gguf = append(s.gguf, g)
	}
	turned, err := m.view.OutIn(m.arch, codecs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	s.src = turned
	for i := range s.list {
		if s.list[i].info, err = turned.Info(s.list[i].Name); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
	}
	return s, nil
}

// linear reports whether a tensor is a weight that every type quantizes: of a linear
// layer inside the blocks.
func (t matrix) linear() bool { return t.Linear && len(t.Dims) == 2 }

// ftypeModel returns what the choice of GGUF's types depends on.
func (s *subject) ftypeModel() ftype.Model {
	c := s.m.arch
	return ftype.Model{
		Arch: c.GGUF, Blocks: int(c.NumHiddenLayers), Experts: int(c.NumExperts),
		Heads: int(c.NumAttentionHeads), KVHeads: int(c.NumKeyValueHeads),
	}
}

// mixed returns what a mix stores each of GGUF's tensors as, by its place, and which
// of them cannot have the type that is due to them.
func (s *subject) mixed(o ftype.Options) (types []tensor.DType, fallen []ftype.Choice, err error) {
	choices, err := ftype.Choose(s.gguf, s.ftypeModel(), o)
	if err != nil {
		return nil, nil, err
	}
	types = make([]tensor.DType, len(s.gguf))
	for _, c := range choices {
		types[s.at[c.In.Name]] = c.Out.DType
		if c.Fallback != "" {
			fallen = append(fallen, c)
		}
	}
	return types, fallen, nil
}

// importances returns the importance of the columns of a matrix, nil if it is not known.
type importances func(t matrix) []float32

// tryAll tries the encodings that want names of each matrix, and returns what they
// would lose, in the order of the list.
func (a *app) tryAll(ctx context.Context, s *subject, want func(i int) []encoding, importance importances, bad *pipeline.NonFinite) ([]map[encoding]outcome, error) {
	out := make([]map[encoding]outcome, len(s.list))
	var total int64
	for i, t := range s.list {
		if len(want(i)) > 0 {
			total += t.info.Size()
		}
	}
	bar := a.progress("try", total, bytesUnit)
	defer bar.stop()
	return out, each(ctx, a.scanWorkers(3), len(s.list), func(ctx context.Context, i int) error {
		t := s.list[i]
		list := want(i)
		if len(list) == 0 {
			return nil
		}
		defer bar.add(t.info.Size())
		var columns []float32
		if importance != nil {
			columns = importance(t)
		}
		var err error
		out[i], err = try(ctx, s.src, t.Name, list, columns, bad)
		return err
	})
}
