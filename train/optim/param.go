package optim

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Param is a tensor that is being trained.
type Param struct {
	Name  string
	Shape tensor.Shape

	// Layer is the number of the block it belongs to, -1 outside the blocks.
	Layer int

	// Init fills dst, which has Shape.Elems elements, with the values before the first
	// step: the same whenever it is called.
	Init func(dst []float32) error

	// Data and Grad have Shape.Elems elements while the parameter is in memory and are
	// nil otherwise. Grad is added to until the optimizer has used it.
	Data, Grad []float32

	// Decay says that weight decay applies: to matrices, not to norms and
	// biases, as the trainer of transformers has it.
	Decay bool

	// Embedding says that it is a table of embeddings, of which transformers keeps the
	// moments in 32 bits whatever the optimizer.
	Embedding bool

	// DType is BF16 for a parameter that holds only what bfloat16 can. Others are F32,
	// which may be left out.
	DType tensor.DType

	// LRScale is what the learning rate is multiplied by; 0 is 1.
	LRScale float64
}

// Info describes the parameter's values as a tensor.
func (p *Param) Info() tensor.Info {
	return tensor.Info{Name: p.Name, DType: tensor.F32, Shape: p.Shape}
}

// First fills dst with the values before the first step.
func (p *Param) First(dst []float32) error {
	if err := p.Init(dst); err != nil {
		return err
	}
	if p.DType == tensor.BF16 {
		kernel.RoundBF16(dst)
	}
	return nil
}

// Fill brings the parameter into memory with its first values and a zero gradient.
func (p *Param) Fill() error {
	n := p.Shape.Elems()
	p.Data, p.Grad = make([]float32, n), make([]float32, n)
	return p.First(p.Data)
}

// Rate returns the parameter's own learning rate.
func (p *Param) Rate(lr float64) float64 {
	if p.LRScale != 0 {
		return lr * p.LRScale
	}
	return lr
}

// Copy returns an Init of the given values.
func Copy(values []float32) func(dst []float32) error {
	return func(dst []float32) error {
		copy(dst, values)
		return nil
	}
}
