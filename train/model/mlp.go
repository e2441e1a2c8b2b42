package model

import (
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// mlp is what follows attention in a block.
type mlp interface {
	// cut takes the memory of what the way back needs of the inside from r for n tokens.
	cut(r *arena, in *mlpInner, n int)

	// inside fills what both output and backward need from the MLP's input.
	inside(s *arena, in *mlpInner, x []float32, n int, d dropout) error

	// output computes the result for the n rows of x.
	output(s *arena, y []float32, in *mlpInner, x []float32, n int, d dropout) error

	// backward puts the gradient with respect to x into dx, given that of the result. It
	// leaves in spoiled.
	backward(s *arena, dx, dy []float32, in *mlpInner, x []float32, n int, d dropout) error
}

// mlpInner is the inside. Memory that is nil is taken when it is needed.
type mlpInner struct {
	gate, up []float32 // before the activation; without a gate, up is
	act      []float32 // activation(gate) * up, or activation(up); may be where one of them is
}

// mlp returns the MLP of a block.
func (b binding) mlp(layer int, w Leased) (mlp, error) {
	if _, ok := b.m.arch.Find(arch.Router, "weight", layer); ok {
		return b.mixture(layer, w)
	}
	return b.dense(arch.Gate, arch.Up, arch.Down, layer)
}

// dense is an MLP of two layers, the first with a gate in most families.
type dense struct {
	gateUp   *linear // or:
	gate, up *linear // gate may be nil
	down     *linear
	act      kernel.Activation
}

func (b binding) dense(gate, up, down arch.Role, layer int) (*dense, error) {
	m := &dense{act: b.m.act}
	var err error
	if _, fused := b.m.arch.Find(arch.GateUp, "weight", layer); fused {
		if m.gateUp, err = b.linear(arch.GateUp, layer); err != nil {
			return nil, err
		}
	} else {
		if _, gated := b.m.arch.Find(gate, "weight", layer); gated {
			if m.gate, err = b.linear(gate, layer); err != nil {
				return nil, err
			}
		}
		if m.up, err = b.linear(up, layer); err != nil {
			return nil, err
		}
	}
	m.down, err = b.linear(down, layer)
	return m, err
}

func (m *dense) gated() bool { return m.gate != nil || m.gateUp != nil }

func (m *dense) cut(r *arena, in *mlpInner, n int) {
	if m.gated() {
		in.gate = r.take(n * m.down.in)
	}
	in.up = r.take(n * m.down.in)
}

func (m *dense) inside(s *arena, in *mlpInner, x []float32, n int, d dropout) error {
	if in.up == nil {
		m.cut(s, in, n)
	}
	if m.gateUp != nil {
		mark := s.mark()
		all := s.take(2 * n * m.down.in)
		if err := m.gateUp.forward(s, all, x, n, d); err != nil {
			return err
		}
		split(all, n, in.gate, in.up)
		s.release(mark)
	} else {
		if m.gate != nil {
			if err := m.gate.forward(s, in.gate, x, n, d); err != nil {
				return err
			}
		}
		if err := m.up.forward(s, in.up, x, n, d); err != nil {
			return err
		}
	}
	if in.act == nil {
		in.act = s.take(n * m.down.in)
	}
	m.activate(in.act, in)
	return nil
}

func (m *dense) activate(y []float32, in *mlpInner) {
	if m.gated() {
		m.act.Gated(y, in.gate, in.up)
	} else {
		m.act.Apply(y, in.up)
	}
}

func (m *dense) output(s *arena, y []float32, in *mlpInner, _ []float32, n int, d dropout) error {
	return m.down.forward(s, y, in.act, n, d)
}

func (m *dense) backward(s *arena, dx, dy []float32, in *mlpInner, x []float32, n int, d dropout) error {
	w := n * m.down.in
	both := s.take(2 * w)
	act, dact := in.act, both[w:]
	if act == nil {
		act = both[:w]
		m.activate(act, in)
	}
	if err := m.down.backward(s, dact, dy, act, n, d, false); err != nil {
		return err
	}
	if !m.gated() {
		m.act.Grad(dact, dact, in.up)
		return m.up.backward(s, dx, dact, x, n, d, false)
	}
	m.act.GatedGrad(in.gate, in.up, dact, in.gate, in.up)
	if m.gateUp != nil {
		join(both, n, in.gate, in.up)
		return m.gateUp.backward(s, dx, both, x, n, d, false)
	}
	if err := m.up.backward(s, dx, in.up, x, n, d, false); err != nil {
		return err
	}
	return m.gate.backward(s, dx, in.gate, x, n, d, true)
}
