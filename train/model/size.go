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
	t, _ := s.a.Find(role, "weight", s.layer)
	return t.Out()
}

func (s *sizes) hidden() int { return int(s.a.HiddenSize) }
func (s *sizes) q() int      { return int(s.a.NumAttentionHeads * s.a.HeadDim) }
func (s *sizes) kv() int     { return int(s.a.NumKeyValueHeads * s.a.HeadDim) }

// inner returns the width inside the MLP.
func (s *sizes) inner() int {
	t, _ := s.a.Find(arch.Down, "weight", s.layer)
	return t.In()
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
	mark := s.next
	for _, role := range roles {
		t, ok := s.a.Find(role, "weight", s.layer)
		if !ok {
			continue
		}
		s.adapter(t, back)
		s.next = mark
	}
}

// adapter is what a linear layer takes for its adapter.
func (s *sizes) adapter(t arch.Tensor, back bool) {
	ad := s.adapted(t)
	if ad == nil {
		return
	}
	mark := s.next
	s.next += ad.scratch(s.n, back)
	s.peak = max(s.peak, s.next)
	s.next = mark
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
	mark := s.next
	s.take(int(s.a.NumExperts))
	s.linear(false, arch.Router)
	own := s.next
	s.take(s.hidden()) // what goes in
	s.dense(s.expert, arch.Gate, arch.Up, arch.Down)
	s.next = own
	if s.has(arch.SharedRouter) {
		s.take(1)
		s.linear(false, arch.SharedRouter)
		s.dense(s.outside, arch.SharedGate, arch.SharedUp, arch.SharedDown)
	}
	s.next = mark
}

// mixtureBackward is mixture.backward in the same case.
func (s *sizes) mixtureBackward() {
	mark := s.next
	s.take(int(s.a.NumExperts))
	s.linear(false, arch.Router)
	s.take(int(s.a.NumExperts))
	own := s.next
	for range 3 {
		s.take(s.hidden()) // what goes in, and both gradients
	}
	s.denseGrad(s.expert, arch.Gate, arch.Up, arch.Down)
	s.next = own
	s.linear(true, arch.Router)
	if s.has(arch.SharedRouter) {
		s.take(1)
		s.linear(false, arch.SharedRouter)
		s.take(1)
		s.take(s.hidden())
		s.denseGrad(s.outside, arch.SharedGate, arch.SharedUp, arch.SharedDown)
		s.linear(true, arch.SharedRouter)
	}
	s.next = mark
}

func (s *sizes) expert(role arch.Role) arch.Tensor {
	t, _ := s.a.FindExpert(role, s.layer, 0)
	return t
}

func (s *sizes) outside(role arch.Role) arch.Tensor {
	t, _ := s.a.Find(role, "weight", s.layer)
	return t
}

// dense is dense.run.
func (s *sizes) dense(find func(role arch.Role) arch.Tensor, roles ...arch.Role) {
	down := find(roles[len(roles)-1])
	s.denseInside(find, roles)
	s.take(down.Out())
	s.adapter(down, false)
}

// denseGrad is dense.grad, which takes as much as its parts leave taken.
func (s *sizes) denseGrad(find func(role arch.Role) arch.Tensor, roles ...arch.Role) {
	s.denseInside(find, roles)
	s.take(find(roles[len(roles)-1]).In())
	mark := s.next
	for _, role := range roles {
		s.adapter(find(role), true)
		s.next = mark
	}
}

func (s *sizes) denseInside(find func(role arch.Role) arch.Tensor, roles []arch.Role) {
	in := find(roles[len(roles)-1]).In()
	for range roles[1:] {
		s.take(in)
	}
	mark := s.next
	for _, role := range roles[:len(roles)-1] {
		s.adapter(find(role), false)
		s.next = mark
	}
	s.take(in) // activated
}
