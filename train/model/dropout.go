package model

import "github.com/seed18967229/nibble/internal/kernel"

// dropout says which inputs of adapters are zeroed: by a hash of the key, the
// adapter and the element, so that the backward pass, or another run, finds the
// same ones whatever happened before.
type dropout struct {
	on  bool
	key uint64
}

// drops reports whether any input of the adapter is zeroed.
func (d dropout) drops(a *Adapter) bool { return d.on && a.Dropout > 0 }

// drop returns x with some inputs zeroed and the others scaled to make up.
func (d dropout) drop(s *arena, x []float32, a *Adapter) []float32 {
	if !d.drops(a) {
		return x
	}
	y := s.take(len(x))
	d.mask(y, x, a)
	return y
}

// maskedAtOnce is how many elements of a mask are made by one call.
const maskedAtOnce = 1 << 14

// mask fills y with x, some of it zeroed.
func (d dropout) mask(y, x []float32, a *Adapter) { d.masked(y, x, a, false) }

// addMasked adds to y what mask would make of x.
func (d dropout) addMasked(y, x []float32, a *Adapter) { d.masked(y, x, a, true) }

func (d dropout) masked(y, x []float32, a *Adapter, add bool) {
	seed := mix(d.key ^ nameHash(a.A.Name))
	threshold := uint64(float64(a.Dropout) * (1 << 53))
	keep := 1 / (1 - a.Dropout)
	kernel.Parallel((len(x)+maskedAtOnce-1)/maskedAtOnce, 4*int64(len(x)), func(c int) {
		from := c * maskedAtOnce
		to := min(len(x), from+maskedAtOnce)
		y, x := y[from:to], x[from:to]
		for i, v := range x {
			kept := float32(v * keep)
			if mix(seed+uint64(from+i))>>11 < threshold {
				kept = 0
			}
			if add {
				kept += y[i]
			}
			y[i] = kept
		}
	})
}

// mix is the output function of splitmix64 (Steele et al., 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
