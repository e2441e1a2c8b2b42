package optim

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// adamW is AdamW (Loshchilov and Hutter, 2019) in torch's arithmetic, with the names of
// torch's state_dict.
type adamW struct{ Options }

// Name implements Optimizer.
func (adamW) Name() string { return "adamw" }

// State implements Optimizer.
func (adamW) State(p *Param) []Field {
	return []Field{{".exp_avg", tensor.F32, p.Shape}, {".exp_avg_sq", tensor.F32, p.Shape}}
}

func (a adamW) at(step int, lr float64, p *Param) kernel.AdamW {
	k := kernel.AdamW{LR: lr, Beta1: a.Beta1, Beta2: a.Beta2, Eps: a.Eps, Step: step}
	if p.Decay {
		k.WeightDecay = a.WeightDecay
	}
	return k
}

// Step implements Optimizer.
func (a adamW) Step(step int, lr float64, p *Param, state [][]byte) {
	a.at(step, lr, p).Update(p.Data, kernel.Floats(state[0]), kernel.Floats(state[1]), p.Grad)
}
