package merge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// parameterOrder is that in which modules have their parameters, by which PEFT
// nests the adapters of one module: the first is innermost.
var parameterOrder = []string{"gate_up_proj", "gate_proj", "up_proj", "down_proj"}

// parameters returns the names of the parameters of a module that have pairs of
// their own, in the order of the module; none of a layer.
func (m *matcher) parameters(module string) []string {
	var list []string
	for _, t := range m.cfg.Parameters {
		name := module + "." + t[strings.LastIndexByte(t, '.')+1:]
		if (name == t || strings.HasSuffix(name, "."+t)) && !slices.Contains(list, name) && m.isParameter(name) {
			list = append(list, name)
		}
	}
	rank := func(name string) int {
		i := slices.Index(parameterOrder, name[strings.LastIndexByte(name, '.')+1:])
		if i < 0 {
			return len(parameterOrder)
		}
		return i
	}
	slices.SortStableFunc(list, func(a, b string) int { return rank(a) - rank(b) })
	return list
}

func (m *matcher) isParameter(name string) bool {
	for _, s := range spellings(name) {
		if tensor.Has(m.base, s) {
			return true
		}
	}
	return m.stacked(name) != nil
}

func (m *matcher) stacked(name string) [][]string {
	if m.cfg.Stacked == nil {
		return nil
	}
	for _, s := range spellings(name) {
		if list := m.cfg.Stacked(s); list != nil && tensor.Has(m.base, list[0][0]) {
			return list
		}
	}
	return nil
}

// stack is a stack of experts: W [experts, d1, d2].
type stack struct {
	name            string
	experts, d1, d2 int64

	// parts are where its rows are in the base. Those of a stack that is a tensor
	// of its own are its experts, one after the other.
	parts []stackPart
	whole string
}

// stackPart is rows from to to of an expert.
type stackPart struct {
	target   string
	expert   int64
	from, to int64
}

// findStack returns where a parameter is in the base.
func (m *matcher) findStack(p *pair, name string) (*stack, error) {
	s := &stack{name: name}
	if found, ok := m.names.find(name); ok {
		info, err := m.base.Info(found)
		if err != nil {
			return nil, err
		}
		switch len(info.Shape) {
		case 2:
			s.experts, s.d1, s.d2 = 1, info.Shape[0], info.Shape[1]
		case 3:
			s.experts, s.d1, s.d2 = info.Shape[0], info.Shape[1], info.Shape[2]
		default:
			return nil, fmt.Errorf("adapter tensor %q: %w: the base's %s has shape %v, where a matrix or a stack of them is wanted", p.a, tensor.ErrUnsupported, found, info.Shape)
		}
		s.whole = found
		for e := range s.experts {
			s.parts = append(s.parts, stackPart{found, e, 0, s.d1})
		}
		return s, nil
	}
	projections := m.stacked(name)
	s.experts = int64(len(projections[0]))
	for _, list := range projections {
		var rows int64
		for e, target := range list {
			info, err := m.base.Info(target)
			if err != nil {
				return nil, another(p.a, target)
			}
			if len(info.Shape) != 2 || s.d2 != 0 && info.Shape[1] != s.d2 || rows != 0 && info.Shape[0] != rows {
				return nil, fmt.Errorf("adapter tensor %q: %w: the base's %s has shape %v, not that of other experts", p.a, tensor.ErrMalformed, target, info.Shape)
			}
			rows, s.d2 = info.Shape[0], info.Shape[1]
			s.parts = append(s.parts, stackPart{target, int64(e), s.d1, s.d1 + rows})
		}
		s.d1 += rows
	}
	return s, nil
}

// matchParameter adds what a pair does to the parameter of a module that it is
// for by how deep it is nested.
func (m *matcher) matchParameter(p *pair, names []string) error {
	if p.depth >= len(names) {
		return fmt.Errorf("adapter tensor %q: %w: there are %d parameters of its module in target_parameters", p.a, tensor.ErrMalformed, len(names))
	}
	name := names[len(names)-1-p.depth]
	if err := m.once(name, p.a); err != nil {
		return err
	}
	m.nested[p.module] = append(m.nested[p.module], p.depth)
	if p.magnitude != "" || p.bias != "" || p.embedding || m.cfg.Initial != nil {
		return fmt.Errorf("adapter tensor %q: %w: the adapter of a parameter has nothing but lora_A and lora_B", p.a, tensor.ErrUnsupported)
	}
	s, err := m.findStack(p, name)
	if err != nil {
		return err
	}
	a, b, err := m.pairInfos(p)
	if err != nil {
		return err
	}
	rank, scale := m.cfg.of(name)
	if n := s.experts * int64(rank); a.Shape[0] != n || b.Shape[1] != n {
		return hint.Add(fmt.Errorf("adapter tensors %q and %q: %w: shapes %v and %v, want rank %d of %d experts", p.a, p.b, tensor.ErrMalformed, a.Shape, b.Shape, rank, s.experts),
			"adapter_config.json does not belong to these tensors")
	}
	swapped, err := m.swapped(p, s, a.Shape[1], b.Shape[0])
	if err != nil {
		return err
	}
	deltas := make([]*lowRank, len(s.parts))
	for i, part := range s.parts {
		d := &lowRank{
			target: part.target, rows: int(part.to - part.from), cols: int(s.d2), rank: rank, scale: scale, cache: m.cache,
			zero: m.zero[p.a] || m.zero[p.b],
		}
		d.load = func() ([]float32, []float32, error) { return m.readExpert(p, s, part, rank, swapped) }
		deltas[i] = d
	}
	switch {
	case s.whole == "":
		for _, d := range deltas {
			if err := m.addDelta(p, d, true); err != nil {
				return err
			}
		}
	case s.experts == 1:
		return m.addDelta(p, deltas[0], true)
	default:
		info, err := m.base.Info(s.whole)
		if err != nil {
			return err
		}
		d := &stackDelta{deltas}
		if m.cfg.Arithmetic == Once {
			m.add(s.whole, Sum(d))
		} else {
			m.add(s.whole, &rounded{delta: d, to: m.cfg.held(info), early: true})
		}
	}
	return nil
}

// swapped says which side of a stack A is for: with PEFT 0.19 the columns, as
// with a layer, before that the rows. A matrix is always like a layer.
func (m *matcher) swapped(p *pair, s *stack, in, out int64) (bool, error) {
	now, before := in == s.d2 && out == s.d1, in == s.d1 && out == s.d2 && len(s.parts) > 1
	switch {
	case now && before && m.cfg.SwappedExperts == nil:
		return false, hint.Add(fmt.Errorf("adapter tensor %q: %w: the experts are square, so only peft_version could say which side it is for, and adapter_config.json has none", p.a, tensor.ErrUnsupported),
			"add the peft_version of the training to adapter_config.json")
	case now && before:
		return *m.cfg.SwappedExperts, nil
	case now || before:
		return now, nil
	}
	return false, hint.Add(fmt.Errorf("adapter tensors %q and %q: %w: they are for sides of %d and %d, the base's %s is a stack of [%d, %d]",
		p.a, p.b, tensor.ErrMalformed, in, out, s.name, s.d1, s.d2), "was the adapter trained on another model?")
}

// readExpert returns the factors of some rows of one expert. In A [experts*rank,
// in] an expert's rows follow each other; in B [out, rank*experts] its columns lie
// apart. That is PEFT's order; unsloth's own kernels take B otherwise.
func (m *matcher) readExpert(p *pair, s *stack, part stackPart, rank int, swapped bool) (left, right []float32, err error) {
	a, err := m.readShared(p.a)
	if err != nil {
		return nil, nil, err
	}
	b, err := m.readShared(p.b)
	if err != nil {
		return nil, nil, err
	}
	n, e := int(s.experts), int(part.expert)
	rows, cols := int(part.to-part.from), int(s.d2)
	left, right = make([]float32, rows*rank), make([]float32, rank*cols)
	if swapped {
		for i := range rows {
			for k := range rank {
				left[i*rank+k] = b[(int(part.from)+i)*n*rank+k*n+e]
			}
		}
		copy(right, a[e*rank*cols:])
		return left, right, nil
	}
	for k := range rank {
		for i := range rows {
			left[i*rank+k] = a[(e*rank+k)*int(s.d1)+int(part.from)+i]
		}
		for j := range cols {
			right[k*cols+j] = b[j*n*rank+k*n+e]
		}
	}
	return left, right, nil
}

// readShared reads a tensor that several deltas are made of.
func (m *matcher) readShared(name string) ([]float32, error) {
	info, err := m.adapter.Info(name)
	if err != nil {
		return nil, err
	}
	return fetch(m.cache, name, 4*info.Shape.Elems(), func() ([]float32, error) {
		_, values, err := m.codecs.ReadAll(m.adapter, name)
		return values, err
	})
}

// checkNested returns an error if a module has not a pair for each of its
// parameters.
func (m *matcher) checkNested() error {
	for _, p := range m.parts.pairs {
		if want := len(m.parameters(p.module)); want != len(m.nested[p.module]) {
			return hint.Add(fmt.Errorf("adapter tensor %q: %w: %d parameters of its module are in target_parameters, and %d have tensors",
				p.a, tensor.ErrMalformed, want, len(m.nested[p.module])), "adapter_config.json does not belong to these tensors")
		}
	}
	return nil
}

// stackDelta is the deltas of experts that lie one after the other in one tensor.
type stackDelta struct{ experts []*lowRank }

// Target implements Delta.
func (d *stackDelta) Target() string { return d.experts[0].target }

// Zero implements Delta.
func (d *stackDelta) Zero() bool { return d.experts[0].Zero() }

// AddRows implements Delta.
func (d *stackDelta) AddRows(w []float32, row int64, scale float32) error {
	for len(w) > 0 {
		one := d.experts[row/int64(d.experts[0].rows)]
		at := row % int64(one.rows)
		n := min(len(w)/one.cols, one.rows-int(at))
		if err := one.AddRows(w[:n*one.cols], at, scale); err != nil {
			return err
		}
		w, row = w[n*one.cols:], row+int64(n)
	}
	return nil
}
