package combine

import "math"

// elected adds of each element those inputs that have its elected sign (Yadav et al.,
// "TIES-Merging", 2023): that of the weighted sum, or of most. Where the sum is zero that is
// plus, as in mergekit and in PEFT. Normalized, the sum is divided by the weights of those
// that took part.
func elected(p *Params) mixer {
	return func(dst []float32, w [][]float32) {
		w, weights := present(p, w)
		for i := range dst {
			// Of what is zero, for plus, and for minus: the sum, its weights, and how many.
			var sums, divisors, counts [4]float64
			for k, x := range w {
				v := weights[k] * float64(x[i])
				some := 0
				if v != 0 {
					some = 1
				}
				side := some << (math.Float64bits(v) >> 63) & 3
				sums[side] += v
				divisors[side] += weights[k]
				counts[side]++
			}
			plus := sums[1]+sums[2] >= 0
			if p.Frequency {
				plus = counts[1] >= counts[2]
			}
			side := 1
			if !plus {
				side = 2
			}
			agree := p.Lambda * sums[side]
			if p.Normalize && divisors[side] != 0 {
				agree /= divisors[side]
			}
			dst[i] = float32(agree)
		}
	}
}
