package model

import "github.com/seed18967229/nibble/arch"

// Adapted gives the adapter of a weight's linear layer, nil if it has none.
type Adapted func(t arch.Tensor) *Adapter

// Adapted is what the linear layers have.
func (t Trainable) Adapted() Adapted {
	return func(x arch.Tensor) *Adapter { return t.Adapters[x.Module()] }
}

// KeptFloats returns how many floats the way back needs of the inside of a block for a
// micro-batch of n tokens, so that it needs no product of the way forward again.
func KeptFloats(a *arch.Model, layer, n int) int {
	s := sizes{a: a, layer: layer, n: n}
	s.cut()
	return s.peak
}

// KeptFloats is that of the model.
func (m *Model) KeptFloats(layer, n int) int { return KeptFloats(m.arch, layer, n) }

// ForwardFloats returns how many floats of scratch memory a block takes forward for a
// micro-batch of n tokens. kept says that what is kept has memory of its own.
func ForwardFloats(a *arch.Model, adapted Adapted, layer, n int, kept bool) int {
	s := sizes{a: a, adapted: adapted, layer: layer, n: n}
	s.forward(kept)
	return s.peak
}

// BackwardFloats is ForwardFloats of the way back.
func BackwardFloats(a *arch.Model, adapted Adapted, layer, n int, kept bool) int {
	s := sizes{a: a, adapted: adapted, layer: layer, n: n}
	s.backward(kept)
	return s.peak
}

// Reserve makes room for a block's passes, once, in the given number of floats.
func (m *Model) Reserve(floats int) { m.scr.reserve(floats) }

// Adapted is what the model's linear layers have.
func (m *Model) Adapted() Adapted { return m.train.Adapted() }

// sizes goes through a pass as the pass goes through its arena, and takes nothing but
// numbers.
type sizes struct {
	a          *arch.Model
	adapted    Adapted
	layer, n   int
	next, peak int
}

// take is arena.take of n rows of the given width.
func (s *sizes) take(width int) {
	s.next += lines(s.n * width)
	s.peak = max(s.peak, s.next)
}

func (s *sizes) has(role arch.Role) bool {
	_, ok := s.a.Find(role, "weight", s.layer)
	return ok
}

// width returns the width of the results of a role's linear layer.
func (s *sizes) width(role arch.Role) int {
	return s.tensor(role).Out()
}

func (s *sizes) hidden() int { return int(s.a.HiddenSize) }
func (s *sizes) q() int      { return int(s.a.NumAttentionHeads * s.a.HeadDim) }
func (s *sizes) kv() int     { return int(s.a.NumKeyValueHeads * s.a.HeadDim) }

// inner returns the width inside the MLP.
func (s *sizes) inner() int {
	return s.tensor(arch.Down).In()
}

func (s *sizes) mixture() bool { return s.has(arch.Router) }

// cut is Block.cut.
func (s *sizes) cut() {
	s.take(s.hidden())
	s.cutAttention()
	s.cutMLP()
	if s.has(arch.PostMLPNorm) {
		s.take(s.hidden())
	}
}

func (s *sizes) cutAttention() {
	for _, w := range []int{s.q(), s.kv(), s.kv(), s.q(), int(s.a.NumAttentionHeads)} {
		s.take(w)
	}
}

func (s *sizes) cutMLP() {
	switch {
	case s.mixture():
	case s.has(arch.Gate) || s.has(arch.GateUp):
		s.take(s.inner())
		fallthrough
	default:
		s.take(s.inner())
	}
}

// linear is linear.forward or linear.backward of those roles that there are, one after
// another.
func (s *sizes) linear(back bool, roles ...arch.Role) {
	for _, role := range roles {
		if s.has(role) {
			s.adapters(back, s.tensor(role))
		}
	}
}

// adapter is what the linear layer with a weight takes for its adapter, and gives back.
func (s *sizes) adapter(t arch.Tensor, back bool) {
	ad := s.adapted(t)
	if ad == nil {
		return
	}
	s.peak = max(s.peak, s.next+ad.scratch(s.n, back))
}

// forward is Block.run.
func (s *sizes) forward(kept bool) {
	s.inside(kept)
	if s.has(arch.PostMLPNorm) && !kept {
		s.take(s.hidden())
	}
	s.output()
}

// inside is Block.inside.
func (s *sizes) inside(kept bool) {
	if !kept {
		s.take(s.hidden())
	}
	mark := s.next
	if !kept {
		s.cutAttention()
	}
	after := s.next
	s.take(s.hidden())
	if s.has(arch.QKV) {
		s.take(s.width(arch.QKV))
		s.linear(false, arch.QKV)
	}
	s.linear(false, arch.Query, arch.Key, arch.Value)
	s.next = after
	s.turned()
	s.linear(false, arch.AttnOut)
	s.next = mark

	s.between()
	if !kept {
		s.cutMLP()
	}
	s.take(s.hidden())
	if s.mixture() {
		return
	}
	if s.has(arch.GateUp) {
		own := s.next
		s.take(s.width(arch.GateUp))
		s.linear(false, arch.GateUp)
		s.next = own
	}
	s.linear(false, arch.Gate, arch.Up)
	if kept {
		s.take(s.inner())
	}
}

// turned is attention.turned.
func (s *sizes) turned() {
	if s.has(arch.QueryNorm) {
		s.take(s.q())
	}
	if s.has(arch.KeyNorm) {
		s.take(s.kv())
	}
}

func (s *sizes) between() {
	if s.has(arch.PostAttnNorm) {
		s.take(s.hidden())
	}
}

// output is mlp.output.
func (s *sizes) output() {
	if s.mixture() {
		s.mixtureOutput()
		return
	}
	s.linear(false, arch.Down)
}

// backward is Block.Backward.
func (s *sizes) backward(kept bool) {
	if !kept {
		s.cut()
		mark := s.next
		s.inside(true)
		if s.has(arch.PostMLPNorm) {
			s.output()
		}
		s.next = mark
	}
	s.take(s.hidden())
	mark := s.next
	s.between()
	s.take(s.hidden())
	if s.has(arch.PostMLPNorm) {
		s.take(s.hidden())
	}
	if s.mixture() {
		s.mixtureBackward()
	} else {
		s.next += lines(2 * s.n * s.inner())
		s.peak = max(s.peak, s.next)
		s.linear(true, arch.Down, arch.Gate, arch.Up, arch.GateUp)
	}
	s.next = mark

	s.take(s.hidden())
	if s.has(arch.PostAttnNorm) {
		s.take(s.hidden())
	}
	s.turned()
	s.take(s.q())
	s.linear(true, arch.AttnOut)
	for _, w := range []int{s.q(), s.kv(), s.kv()} {
		s.take(w)
	}
	if s.has(arch.QKV) {
		s.take(s.width(arch.QKV))
	}
	s.linear(true, arch.QKV, arch.Query, arch.Key, arch.Value)
}

// mixtureOutput is mixture.output if every token goes through one and the same expert,
// which is the most that it takes.
func (s *sizes) mixtureOutput() {
	s.take(int(s.a.NumExperts))
	s.linear(false, arch.Router)
	s.experts(func(find finder) {
		s.take(s.hidden()) // what goes in
		s.run(find, arch.Gate, arch.Up, arch.Down)
	})
	if s.has(arch.SharedRouter) {
		s.take(1)
		s.linear(false, arch.SharedRouter)
		s.run(s.tensor, arch.SharedGate, arch.SharedUp, arch.SharedDown)
	}
}

// mixtureBackward is mixture.backward, likewise.
func (s *sizes) mixtureBackward() {
	s.take(int(s.a.NumExperts))
	s.linear(false, arch.Router)
	s.take(int(s.a.NumExperts))
	s.experts(func(find finder) {
		for range 3 { // what goes in, and both gradients
			s.take(s.hidden())
		}
		s.grad(find, arch.Gate, arch.Up, arch.Down)
	})
	s.linear(true, arch.Router)
	if s.has(arch.SharedRouter) {
		s.take(1)
		s.linear(false, arch.SharedRouter)
		s.take(1)
		s.take(s.hidden())
		s.grad(s.tensor, arch.SharedGate, arch.SharedUp, arch.SharedDown)
		s.linear(true, arch.SharedRouter)
	}
}

// finder returns the weight of a role.
type finder func(role arch.Role) arch.Tensor

func (s *sizes) tensor(role arch.Role) arch.Tensor {
	t, _ := s.a.Find(role, "weight", s.layer)
	return t
}

// experts is mixture.each.
func (s *sizes) experts(f func(find finder)) {
	mark := s.next
	for e := range int(s.a.NumExperts) {
		f(func(role arch.Role) arch.Tensor {
			t, _ := s.a.FindExpert(role, s.layer, e)
			return t
		})
		s.next = mark
	}
}

// gated is dense.inside of an expert.
func (s *sizes) gated(find finder, gate, up, down arch.Role) {
	w := find(down).In()
	s.take(w)
	s.take(w)
	s.adapters(false, find(gate), find(up))
	s.take(w) // activated
}

// run is dense.run of an expert.
func (s *sizes) run(find finder, gate, up, down arch.Role) {
	s.gated(find, gate, up, down)
	s.take(find(down).Out())
	s.adapters(false, find(down))
}

// grad is dense.grad.
func (s *sizes) grad(find finder, gate, up, down arch.Role) {
	s.gated(find, gate, up, down)
	s.take(find(down).In())
	s.adapters(true, find(down), find(up), find(gate))
}

// adapters is what linear layers take for their adapters, one after another.
func (s *sizes) adapters(back bool, list ...arch.Tensor) {
	for _, t := range list {
		s.adapter(t, back)
	}
}
