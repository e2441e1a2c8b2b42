package optim

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// sgd is torch.optim.SGD: weight decay is added to the gradient, and momentum is that
// of Polyak, without dampening.
type sgd struct{ Options }

// Name implements Optimizer.
func (sgd) Name() string { return "sgd" }

// State implements Optimizer.
func (s sgd) State(p *Param) []Field {
	if s.Momentum == 0 {
		return nil
	}
	return []Field{{".momentum_buffer", tensor.F32, p.Shape}}
}

// Step implements Optimizer.
func (s sgd) Step(_ int, lr float64, p *Param, state [][]byte) {
	decay, mu, size := float32(0), float32(s.Momentum), float32(lr)
	if p.Decay {
		decay = float32(s.WeightDecay)
	}
	buf := p.Grad
	if s.Momentum != 0 {
		buf = kernel.Floats(state[0])
	}
	elements(len(p.Data), func(from, to int) {
		w, g, m := p.Data[from:to], p.Grad[from:to], buf[from:to]
		for i, x := range g {
			x += float32(decay * w[i])
			if s.Momentum != 0 {
				x += float32(mu * m[i])
			}
			m[i] = x
			w[i] -= float32(size * x)
		}
	})
}
