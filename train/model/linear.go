package model

import (
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
)

// linear is one linear layer of a leased block.
type linear struct {
	weight  arch.Tensor
	w       kernel.Matrix
	out, in int
	bias    []float32
	lora    *Adapter

	// transposed says that w is [in, out] (GPT-2's Conv1D).
	transposed bool

	// Where gradients go; nil for what is frozen. A weight that is trained itself has
	// no adapter with a magnitude.
	dw, dbias []float32

	gains *gains // of DoRA, once they are known

	observer Observer // or nil
}

// observe tells the observer of the n rows of x, which the weight is about to be
// multiplied with.
func (l *linear) observe(x []float32, n int) {
	if l.observer != nil {
		l.observer(l.weight, x, n)
	}
}

// forward computes y = x·Wᵀ + bias + adapter for the n rows of x.
func (l *linear) forward(s *arena, y, x []float32, n int, d dropout) error {
	l.observe(x, n)
	defer s.release(s.mark())
	var err error
	switch {
	case l.lora == nil:
		err = l.times(s, y, x, n, kernel.LowRank{})
	case l.lora.Magnitude != nil:
		err = l.doraForward(s, y, x, n, d)
	default:
		err = l.times(s, y, x, n, l.lora.product(s, x, n, d))
	}
	if err != nil {
		return err
	}
	if l.bias != nil {
		kernel.AddRow(y, l.bias, n)
	}
	return nil
}

// backward puts the gradient with respect to x into dx, or adds it, given x and the
// gradient dy of the result. It adds the gradients of what is trained to theirs.
func (l *linear) backward(s *arena, dx, dy, x []float32, n int, d dropout, add bool) error {
	defer s.release(s.mark())
	if l.dbias != nil {
		kernel.SumRows(l.dbias, dy, n)
	}
	switch {
	case l.dw == nil:
	case l.transposed:
		kernel.AddOuter(l.dw, x, dy, n, l.in, l.out)
	default:
		kernel.AddOuter(l.dw, dy, x, n, l.out, l.in)
	}
	switch {
	case l.lora == nil:
		return l.timesGrad(s, dx, dy, n, add, kernel.LowRank{})
	case l.lora.Magnitude != nil:
		return l.doraBackward(s, dx, dy, x, n, d, add)
	}
	plus := l.lora.grads(s, dy, x, n, d)
	if !d.drops(l.lora) {
		return l.timesGrad(s, dx, dy, n, add, plus)
	}
	if err := l.timesGrad(s, dx, dy, n, add, kernel.LowRank{}); err != nil {
		return err
	}
	dropped := s.take(n * l.in)
	_ = kernel.Mul(dropped, plus.U, n, plus.V, false)
	d.addMasked(dx, dropped, l.lora)
	return nil
}

// times computes y = x·Wᵀ + plus for n rows of x, W being the weight without what its
// adapter began with, if that was taken out of it.
func (l *linear) times(s *arena, y, x []float32, n int, plus kernel.LowRank) error {
	product := kernel.MulTPlus
	if l.transposed {
		product = kernel.MulPlus
	}
	if err := product(y, x, n, l.w, false, plus); err != nil || l.lora == nil || l.lora.Initial == nil {
		return err
	}
	defer s.release(s.mark())
	i := l.lora.Initial
	u := s.take(n * l.lora.rank())
	if err := kernel.MulT(u, x, n, i.A, false); err != nil {
		return err
	}
	kernel.Scale(u, -l.lora.Scale)
	return kernel.MulT(y, u, n, i.B, true)
}

// timesGrad puts dy·W + plus into dx, or adds it, for the same W.
func (l *linear) timesGrad(s *arena, dx, dy []float32, n int, add bool, plus kernel.LowRank) error {
	product := kernel.MulPlus
	if l.transposed {
		product = kernel.MulTPlus
	}
	if err := product(dx, dy, n, l.w, add, plus); err != nil || l.lora == nil || l.lora.Initial == nil {
		return err
	}
	defer s.release(s.mark())
	i := l.lora.Initial
	t := s.take(n * l.lora.rank())
	if err := kernel.Mul(t, dy, n, i.B, false); err != nil {
		return err
	}
	kernel.Scale(t, -l.lora.Scale)
	return kernel.Mul(dx, t, n, i.A, true)
}
