package optim

import (
	"hash/fnv"
	"math"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Rounding is how parameters of BF16 are rounded after a step.
type Rounding struct {
	// Stochastic rounds up or down at random, the likelier the nearer, so that steps
	// too small for the next number add up all the same (torchao's
	// bf16_stochastic_round); otherwise to the nearest.
	Stochastic bool

	// Seed, the step, the parameter's name and the element decide.
	Seed uint64
}

// Round rounds a parameter in memory, if it is one of BF16.
func (r Rounding) Round(step int, p *Param) {
	switch {
	case p.DType != tensor.BF16:
	case !r.Stochastic:
		kernel.RoundBF16(p.Data)
	default:
		h := fnv.New64a()
		h.Write([]byte(p.Name))
		key := mix(mix(r.Seed^h.Sum64()) + uint64(step))
		elements(len(p.Data), func(from, to int) { roundStochastic(p.Data[from:to], key, uint64(from)) })
	}
}

// roundStochastic rounds up if 16 random bits are below the 16 bits that go. first is a
// multiple of 4, since a hash does for 4 elements.
func roundStochastic(x []float32, key, first uint64) {
	var random uint64
	for i, v := range x {
		if i&3 == 0 {
			random = mix(key + first + uint64(i))
		}
		b := math.Float32bits(v)
		if v != v {
			b |= 0x400000 // NaN stays one
		} else if uint32(random&0xffff) < b&0xffff {
			b += 0x10000
		}
		random >>= 16
		x[i] = math.Float32frombits(b &^ 0xffff)
	}
}

// mix is the output function of splitmix64 (Steele et al., 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
