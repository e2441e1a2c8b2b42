package model

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// mixture is a mixture of experts (Shazeer et al., 2017): each token goes
// through the few MLPs that its router scores highest, and their results are
// added with the scores as weights.
type mixture struct {
	router    *linear
	experts   []*dense
	used      int
	normalize bool // the weights of the chosen add up to 1

	shared     *dense // that every token goes through, or nil
	sharedGate *linear
}

func (b binding) mixture(layer int) (*mixture, error) {
	a := b.m.arch
	m := &mixture{used: int(a.NumExpertsPerTok), normalize: a.NormTopKProb}
	var err error
	if m.router, err = b.linear(arch.Router, layer); err != nil {
		return nil, err
	}
	for e := range int(a.NumExperts) {
		x := &dense{act: b.m.act}
		for _, l := range []struct {
			to   **linear
			role arch.Role
		}{{&x.gate, arch.Gate}, {&x.up, arch.Up}, {&x.down, arch.Down}} {
			t, ok := a.FindExpert(l.role, layer, e)
			if !ok {
				return nil, fmt.Errorf("%w: expert %d of block %d has no tensor for role %d", tensor.ErrUnsupported, e, layer, l.role)
			}
			if *l.to, err = b.linearOf(t); err != nil {
				return nil, err
			}
		}
		m.experts = append(m.experts, x)
	}
	if _, ok := a.Find(arch.SharedRouter, "weight", layer); ok {
		if m.shared, err = b.dense(arch.SharedGate, arch.SharedUp, arch.SharedDown, layer); err != nil {
			return nil, err
		}
		m.sharedGate, err = b.linear(arch.SharedRouter, layer)
	}
	return m, err
}

// cut takes nothing: an expert computes its inside again.
func (*mixture) cut(*arena, *mlpInner, int) {}

func (*mixture) inside(*arena, *mlpInner, []float32, int, dropout) error { return nil }

// chosen is a token that goes through an expert, and the weight of the result.
type chosen struct {
	row    int
	weight float32
}

// route chooses the experts of each row and returns the rows of each expert.
func (m *mixture) route(s *arena, x []float32, n int, d dropout) ([][]chosen, error) {
	count := len(m.experts)
	scores := s.take(n * count)
	if err := m.router.forward(s, scores, x, n, d); err != nil {
		return nil, err
	}
	out := make([][]chosen, count)
	order := make([]int, count)
	for i := range n {
		p := scores[i*count : (i+1)*count]
		kernel.Softmax(p)
		for e := range order {
			order[e] = e
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[b], p[a]) })
		var sum float32
		for _, e := range order[:m.used] {
			sum += p[e]
		}
		for _, e := range order[:m.used] {
			w := p[e]
			if m.normalize {
				w /= sum
			}
			out[e] = append(out[e], chosen{i, w})
		}
	}
	return out, nil
}

func (m *mixture) output(s *arena, y []float32, _ *mlpInner, x []float32, n int, d dropout) error {
	byExpert, err := m.route(s, x, n, d)
	if err != nil {
		return err
	}
	clear(y)
	h := len(x) / n
	for e, list := range byExpert {
		if len(list) == 0 {
			continue
		}
		mark := s.next // experts take turns in the same memory
		in := s.take(len(list) * h)
		for i, c := range list {
			copy(in[i*h:(i+1)*h], x[c.row*h:])
		}
		out, err := m.experts[e].run(s, in, len(list), d)
		if err != nil {
			return fmt.Errorf("expert %d: %w", e, err)
		}
		for i, c := range list {
			kernel.AddScaled(y[c.row*h:(c.row+1)*h], c.weight, out[i*h:(i+1)*h])
		}
		s.next = mark
	}
	if m.shared == nil {
		return nil
	}
	gate := s.take(n)
	if err := m.sharedGate.forward(s, gate, x, n, d); err != nil {
		return err
	}
	out, err := m.shared.run(s, x, n, d)
	if err != nil {
		return fmt.Errorf("shared expert: %w", err)
	}
	for i, g := range gate {
		kernel.AddScaled(y[i*h:(i+1)*h], kernel.Sigmoid(g), out[i*h:(i+1)*h])
	}
	return nil
}

// run computes the MLP for n rows of its own.
func (m *dense) run(s *arena, x []float32, n int, d dropout) ([]float32, error) {
	var in mlpInner
	if err := m.inside(s, &in, x, n, d); err != nil {
		return nil, err
	}
	y := s.take(len(x))
	return y, m.output(s, y, &in, x, n, d)
}

func (*mixture) backward(*arena, []float32, []float32, *mlpInner, []float32, int, dropout) error {
	return fmt.Errorf("%w: training of a mixture of experts", tensor.ErrUnsupported)
}
