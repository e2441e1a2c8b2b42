package optim

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// lion is Lion (Chen et al., 2023, "Symbolic Discovery of Optimization Algorithms"): a
// step of one size, whose sign is that of momentum and gradient together, with decoupled
// weight decay. It is transformers' lion_32bit, so its betas are those of the
// configuration; the paper has 0.9 and 0.99.
type lion struct{ Options }

// Name implements Optimizer.
func (lion) Name() string { return "lion" }

// State implements Optimizer.
func (lion) State(p *Param) []Field { return []Field{{".exp_avg", tensor.F32, p.Shape}} }

// Step implements Optimizer.
func (l lion) Step(_ int, lr float64, p *Param, state [][]byte) {
	decay := float32(1)
	if p.Decay {
		decay = float32(1 - lr*l.WeightDecay)
	}
	b1, rest1, b2, rest2, size := float32(l.Beta1), float32(1-l.Beta1), float32(l.Beta2), float32(1-l.Beta2), float32(lr)
	all := kernel.Floats(state[0])
	elements(len(p.Data), func(from, to int) {
		w, g, m := p.Data[from:to], p.Grad[from:to], all[from:to]
		for i, x := range g {
			v := w[i] * decay
			switch u := float32(b1*m[i]) + float32(rest1*x); {
			case u > 0:
				v -= size
			case u < 0:
				v += size
			}
			w[i] = v
			m[i] = float32(b2*m[i]) + float32(rest2*x)
		}
	})
}
