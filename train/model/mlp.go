package model

import (
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// mlp is what follows attention in a block.
type mlp interface {
	// inside fills what both output and backward need from the MLP's input.
	inside(s *arena, in *mlpInner, x []float32, n int, d dropout) error

	// output computes the result for the n rows of x.
	output(s *arena, y []float32, in *mlpInner, x []float32, n int, d dropout) error

	// backward adds to dx the gradient with respect to x, given that of the
	// result. It leaves in spoiled.
	backward(s *arena, dx, dy []float32, in *mlpInner, x []float32, n int, d dropout) error
}

// mlpInner is what the backward pass needs from inside.
type mlpInner struct {
	gate, up []float32 // before the activation; without a gate, up is
	act      []float32 // activation(gate) * up, or activation(up)
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

func (m *dense) inside(s *arena, in *mlpInner, x []float32, n int, d dropout) error {
	w := n * m.down.in
	in.up = s.take(w)
	if m.gateUp != nil {
		all := s.take(2 * w)
		if err := m.gateUp.forward(s, all, x, n, d); err != nil {
			return err
		}
		in.gate = s.take(w)
		split(all, n, in.gate, in.up)
	} else {
		if m.gate != nil {
			in.gate = s.take(w)
			if err := m.gate.forward(s, in.gate, x, n, d); err != nil {
				return err
			}
		}
		if err := m.up.forward(s, in.up, x, n, d); err != nil {
			return err
		}
	}
	in.act = s.take(w)
	if in.gate != nil {
		m.act.Gated(in.act, in.gate, in.up)
	} else {
		m.act.Apply(in.act, in.up)
	}
	return nil
}

func (m *dense) output(s *arena, y []float32, in *mlpInner, _ []float32, n int, d dropout) error {
	return m.down.forward(s, y, in.act, n, d)
}

func (m *dense) backward(s *arena, dx, dy []float32, in *mlpInner, x []float32, n int, d dropout) error {
	dact := s.zeros(len(in.act))
	if err := m.down.backward(s, dact, dy, in.act, n, d); err != nil {
		return err
	}
	if in.gate == nil {
		m.act.Grad(dact, dact, in.up)
		return m.up.backward(s, dx, dact, x, n, d)
	}
	dgate, dup := in.act, dact
	m.act.GatedGrad(dgate, dup, dact, in.gate, in.up)
	if m.gateUp != nil {
		all := s.take(2 * len(dgate))
		join(all, n, dgate, dup)
		return m.gateUp.backward(s, dx, all, x, n, d)
	}
	if err := m.up.backward(s, dx, dup, x, n, d); err != nil {
		return err
	}
	return m.gate.backward(s, dx, dgate, x, n, d)
}
