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
	if err := l.times(s, y, x, n); err != nil {
		return err
	}
	switch {
	case l.lora == nil:
	case l.lora.Magnitude != nil:
		if err := l.doraForward(s, y, x, n, d); err != nil {
			return err
		}
	default:
		l.lora.add(s, y, d.drop(s, x, l.lora), n)
	}
	if l.bias != nil {
		kernel.AddRow(y, l.bias, n)
	}
	return nil
}

// backward adds to dx the gradient with respect to x, given x and the gradient
// dy of the result, and the gradients of what is trained to theirs.
func (l *linear) backward(s *arena, dx, dy, x []float32, n int, d dropout) error {
	defer s.release(s.mark())
	if l.dbias != nil {
		kernel.SumRows(l.dbias, dy, n)
	}
	if l.lora != nil && l.lora.Magnitude != nil {
		return l.doraBackward(s, dx, dy, x, n, d)
	}
	if err := l.timesGrad(s, dx, dy, n); err != nil {
		return err
	}
	switch {
	case l.dw == nil:
	case l.transposed:
		kernel.AddOuter(l.dw, x, dy, n, l.in, l.out)
	default:
		kernel.AddOuter(l.dw, dy, x, n, l.out, l.in)
	}
	if l.lora == nil {
		return nil
	}
	if !d.drops(l.lora) {
		l.lora.addGrad(s, dx, dy, x, n)
		return nil
	}
	dropped := s.zeros(n * l.in)
	l.lora.addGrad(s, dropped, dy, d.drop(s, x, l.lora), n)
	d.mask(dropped, dropped, l.lora)
	kernel.Add(dx, dropped)
	return nil
}

// times computes y = x·Wᵀ for n rows of x, W being the weight without what its
// adapter began with, if that was taken out of it.
func (l *linear) times(s *arena, y, x []float32, n int) error {
	product := kernel.MulT
	if l.transposed {
		product = kernel.Mul
	}
	if err := product(y, x, n, l.w, false); err != nil || l.lora == nil || l.lora.Initial == nil {
		return err
	}
	i := l.lora.Initial
	u := s.take(n * l.lora.rank())
	if err := kernel.MulT(u, x, n, i.A, false); err != nil {
		return err
	}
	kernel.Scale(u, -l.lora.Scale)
	return kernel.MulT(y, u, n, i.B, true)
}

// timesGrad adds dy·W to dx, for the same W.
func (l *linear) timesGrad(s *arena, dx, dy []float32, n int) error {
	product := kernel.Mul
	if l.transposed {
		product = kernel.MulT
	}
	if err := product(dx, dy, n, l.w, true); err != nil || l.lora == nil || l.lora.Initial == nil {
		return err
	}
	i := l.lora.Initial
	t := s.take(n * l.lora.rank())
	if err := kernel.Mul(t, dy, n, i.B, false); err != nil {
		return err
	}
	kernel.Scale(t, -l.lora.Scale)
	return kernel.Mul(dx, t, n, i.A, true)
}
