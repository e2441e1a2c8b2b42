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
//
// The experts run one after another, each over its rows, in the order of their
// numbers, so that every sum is made in one order. They are bound when they are
// used: those that no row of a leased block goes through need not be in memory.
type mixture struct {
	bind    binding
	layer   int
	weights Leased

	router    *linear
	experts   []*dense // nil until they are used
	used      int
	normalize bool // the weights of the chosen add up to 1

	shared     *dense // that every token goes through, or nil
	sharedGate *linear
}

func (b binding) mixture(layer int, w Leased) (*mixture, error) {
	a := b.m.arch
	m := &mixture{
		bind: b, layer: layer, weights: w,
		experts: make([]*dense, a.NumExperts), used: int(a.NumExpertsPerTok), normalize: a.NormTopKProb,
	}
	var err error
	if m.router, err = b.linear(arch.Router, layer); err != nil {
		return nil, err
	}
	if _, ok := a.Find(arch.SharedRouter, "weight", layer); ok {
		if m.shared, err = b.dense(arch.SharedGate, arch.SharedUp, arch.SharedDown, layer); err != nil {
			return nil, err
		}
		m.sharedGate, err = b.linear(arch.SharedRouter, layer)
	}
	return m, err
}

// cut takes nothing: the experts compute their inside again.
func (*mixture) cut(*arena, *mlpInner, int) {}

// expert binds an expert whose weights are there.
func (m *mixture) expert(e int) (*dense, error) {
	if m.experts[e] != nil {
		return m.experts[e], nil
	}
	x := &dense{act: m.bind.m.act}
	for _, l := range []struct {
		to   **linear
		role arch.Role
	}{{&x.gate, arch.Gate}, {&x.up, arch.Up}, {&x.down, arch.Down}} {
		t, ok := m.bind.m.arch.FindExpert(l.role, m.layer, e)
		if !ok {
			return nil, fmt.Errorf("%w: it has no tensor for role %d", tensor.ErrUnsupported, l.role)
		}
		var err error
		if *l.to, err = m.bind.linearOf(t); err != nil {
			return nil, err
		}
	}
	m.experts[e] = x
	return x, nil
}

func (*mixture) inside(*arena, *mlpInner, []float32, int, dropout) error { return nil }

// routing says which rows go through which experts.
type routing struct {
	experts int
	rows    [][]int // of each expert, from the first row to the last

	// soft has for each row the softmax of its scores over all experts, or, where
	// the weights of the chosen add up to 1, over those: 0 for the others.
	soft []float32
}

// weight is what expert e's result for a row is multiplied with.
func (r *routing) weight(e, row int) float32 { return r.soft[row*r.experts+e] }

// route chooses the experts of each row: of equal scores the first.
func (m *mixture) route(s *arena, x []float32, n int, d dropout) (*routing, error) {
	count := len(m.experts)
	r := &routing{experts: count, rows: make([][]int, count), soft: s.take(n * count)}
	if err := m.router.forward(s, r.soft, x, n, d); err != nil {
		return nil, err
	}
	order := make([]int, count)
	for i := range n {
		p := r.soft[i*count : (i+1)*count]
		kernel.Softmax(p)
		for e := range order {
			order[e] = e
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[b], p[a]) })
		chosen, rest := order[:m.used], order[m.used:]
		var sum float32
		for _, e := range chosen {
			r.rows[e] = append(r.rows[e], i)
			sum += p[e]
		}
		if !m.normalize {
			continue
		}
		for _, e := range chosen {
			p[e] /= sum
		}
		for _, e := range rest {
			p[e] = 0
		}
	}
	return r, nil
}

// each calls f with every expert that a row goes through, as soon as it is there,
// and with its rows. They take turns in the same scratch.
func (m *mixture) each(s *arena, r *routing, f func(e int, x *dense, rows []int) error) error {
	var which []int
	for e, rows := range r.rows {
		if len(rows) > 0 {
			which = append(which, e)
		}
	}
	wait := m.weights.Experts(which)
	mark := s.next
	for _, e := range which {
		err := wait(e)
		if err == nil {
			var x *dense
			if x, err = m.expert(e); err == nil {
				err = f(e, x, r.rows[e])
			}
		}
		if err != nil {
			return fmt.Errorf("expert %d: %w", e, err)
		}
		s.next = mark
	}
	return nil
}

func (m *mixture) output(s *arena, y []float32, _ *mlpInner, x []float32, n int, d dropout) error {
	r, err := m.route(s, x, n, d)
	if err != nil {
		return err
	}
	clear(y)
	h := len(x) / n
	err = m.each(s, r, func(e int, expert *dense, rows []int) error {
		out, err := expert.run(s, gather(s, x, rows, h), len(rows), d)
		if err != nil {
			return err
		}
		for i, row := range rows {
			kernel.AddScaled(y[row*h:(row+1)*h], r.weight(e, row), out[i*h:(i+1)*h])
		}
		return nil
	})
	if err != nil || m.shared == nil {
		return err
	}
	gate, err := m.openings(s, x, n, d)
	if err != nil {
		return err
	}
	out, err := m.shared.run(s, x, n, d)
	if err != nil {
		return fmt.Errorf("shared expert: %w", err)
	}
	for i, g := range gate {
		kernel.AddScaled(y[i*h:(i+1)*h], g, out[i*h:(i+1)*h])
	}
	return nil
}

// openings returns what the shared expert's result for each row is multiplied
// with.
func (m *mixture) openings(s *arena, x []float32, n int, d dropout) ([]float32, error) {
	gate := s.take(n)
	if err := m.sharedGate.forward(s, gate, x, n, d); err != nil {
		return nil, err
	}
	for i, g := range gate {
		gate[i] = kernel.Sigmoid(g)
	}
	return gate, nil
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

// backward computes the inside of the experts again, and the choice of them, which
// is the same, since it is made from the same bits.
func (m *mixture) backward(s *arena, dx, dy []float32, _ *mlpInner, x []float32, n int, d dropout) error {
	r, err := m.route(s, x, n, d)
	if err != nil {
		return err
	}
	clear(dx)
	h := len(x) / n
	// The gradient of each weight times the weight; 0 where an expert is not chosen.
	shares := s.zeros(len(r.soft))
	err = m.each(s, r, func(e int, expert *dense, rows []int) error {
		in, dout := gather(s, x, rows, h), gather(s, dy, rows, h)
		for i, row := range rows {
			kernel.Scale(dout[i*h:(i+1)*h], r.weight(e, row))
		}
		din := s.take(len(in))
		if err := expert.grad(s, din, dout, in, len(rows), d, false, func(i int, share float32) { shares[rows[i]*r.experts+e] = share }); err != nil {
			return err
		}
		for i, row := range rows {
			kernel.Add(dx[row*h:(row+1)*h], din[i*h:(i+1)*h])
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Of a softmax q and gradients g of its results, the gradient of score j is
	// q[j]·(g[j] - sum of q·g): nothing but shares, whichever experts q is over.
	for i := range n {
		q, ds := r.soft[i*r.experts:(i+1)*r.experts], shares[i*r.experts:(i+1)*r.experts]
		var sum float32
		for _, v := range ds {
			sum += v
		}
		kernel.AddScaled(ds, -sum, q)
	}
	if err := m.router.backward(s, dx, shares, x, n, d, true); err != nil {
		return err
	}
	return m.sharedBackward(s, dx, dy, x, n, d)
}

func (m *mixture) sharedBackward(s *arena, dx, dy, x []float32, n int, d dropout) error {
	if m.shared == nil {
		return nil
	}
	h := len(x) / n
	gate, err := m.openings(s, x, n, d)
	if err != nil {
		return err
	}
	dgate, dout := s.take(n), s.take(len(dy))
	copy(dout, dy)
	for i, g := range gate {
		kernel.Scale(dout[i*h:(i+1)*h], g)
	}
	if err := m.shared.grad(s, dx, dout, x, n, d, true, func(i int, share float32) { dgate[i] = share * (1 - gate[i]) }); err != nil {
		return fmt.Errorf("shared expert: %w", err)
	}
	return m.sharedGate.backward(s, dx, dgate, x, n, d, true)
}

// grad is backward of an MLP with a gate, the inside of which is computed again. It
// calls share with the product of each row of dy and of the result: as dy is the
// gradient of the weighted result, that is the gradient of the row's weight times the
// weight.
func (m *dense) grad(s *arena, dx, dy, x []float32, n int, d dropout, add bool, share func(i int, v float32)) error {
	var in mlpInner
	if err := m.inside(s, &in, x, n, d); err != nil {
		return err
	}
	dact := s.take(len(in.act))
	if err := m.down.backward(s, dact, dy, in.act, n, d, false); err != nil {
		return err
	}
	// The result is linear in act, so the product is that of act and its gradient.
	w := m.down.in
	for i := range n {
		share(i, kernel.Dot(in.act[i*w:(i+1)*w], dact[i*w:(i+1)*w]))
	}
	m.act.GatedGrad(in.gate, in.up, dact, in.gate, in.up)
	if err := m.up.backward(s, dx, in.up, x, n, d, add); err != nil {
		return err
	}
	return m.gate.backward(s, dx, in.gate, x, n, d, true)
}

// gather returns those rows of x, which are h long.
func gather(s *arena, x []float32, rows []int, h int) []float32 {
	out := s.take(len(rows) * h)
	for i, row := range rows {
		copy(out[i*h:(i+1)*h], x[row*h:])
	}
	return out
}
