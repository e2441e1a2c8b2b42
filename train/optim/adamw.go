package optim

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// adamW is AdamW (Loshchilov and Hutter, 2019) with torch's defaults: betas 0.9
// and 0.999, epsilon 1e-8.
type adamW struct {
	decay   float64
	moments map[string]*moments
}

type moments struct{ m, v []float32 }

// The names of the two moments in a state are those of torch's state_dict.
var adamWSuffixes = []string{".exp_avg", ".exp_avg_sq"}

func newAdamW(o Options) *adamW {
	return &adamW{decay: o.WeightDecay, moments: make(map[string]*moments)}
}

// Name implements Optimizer.
func (a *adamW) Name() string { return "adamw" }

// StateBytes implements Optimizer.
func (a *adamW) StateBytes(n int64) int64 { return 8 * n }

func (a *adamW) of(p *Param) *moments {
	s := a.moments[p.Name]
	if s == nil {
		s = &moments{make([]float32, len(p.Data)), make([]float32, len(p.Data))}
		a.moments[p.Name] = s
	}
	return s
}

// Step implements Optimizer.
func (a *adamW) Step(step int, lr float64, params []*Param) {
	for _, p := range params {
		k := kernel.AdamW{LR: lr, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: step}
		if p.Decay {
			k.WeightDecay = a.decay
		}
		s := a.of(p)
		k.Update(p.Data, s.m, s.v, p.Grad)
	}
}

// State implements Optimizer.
func (a *adamW) State(params []*Param) tensor.Source {
	return floatSource(params, adamWSuffixes, func(i int, p *Param) []float32 {
		s := a.of(p)
		return [][]float32{s.m, s.v}[i]
	})
}

// Load implements Optimizer.
func (a *adamW) Load(params []*Param, state tensor.Source) error {
	for _, p := range params {
		s := a.of(p)
		for i, dst := range [][]float32{s.m, s.v} {
			if err := load(dst, p.Shape, state, p.Name+adamWSuffixes[i]); err != nil {
				return err
			}
		}
	}
	return nil
}
