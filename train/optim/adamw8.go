package optim

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// adamW8 is AdamW with moments of 8 bits, with the names and shapes of bitsandbytes'
// state_dict (AdamW8bit): a code for each element and the scales of blocks of 256.
type adamW8 struct{ adamW }

// least8 is the number of elements from which on moments have 8 bits, as min_8bit_size
// in bitsandbytes.
const least8 = 4096

// Name implements Optimizer.
func (adamW8) Name() string { return "adamw_8bit" }

// eight reports whether the moments of p have 8 bits.
func eight(p *Param) bool { return !p.Embedding && p.Shape.Elems() >= least8 }

// State implements Optimizer.
func (adamW8) State(p *Param) []Field {
	n := p.Shape.Elems()
	if !eight(p) {
		return []Field{{".state1", tensor.F32, p.Shape}, {".state2", tensor.F32, p.Shape}}
	}
	scales := tensor.Shape{kernel.Moments8Blocks(n)}
	return []Field{
		{".state1", tensor.U8, p.Shape}, {".state2", tensor.U8, p.Shape},
		{".absmax1", tensor.F32, scales}, {".absmax2", tensor.F32, scales},
	}
}

// Step implements Optimizer.
func (a adamW8) Step(step int, lr float64, p *Param, state [][]byte) {
	if !eight(p) {
		a.adamW.Step(step, lr, p, state)
		return
	}
	moments := &kernel.Moments8{M: state[0], V: state[1], MScale: kernel.Floats(state[2]), VScale: kernel.Floats(state[3])}
	kernel.AdamW8{AdamW: a.at(step, lr, p)}.Update(p.Data, moments, p.Grad)
}
