package combine

// elected adds of each element those inputs that have its elected sign (Yadav et al.,
// "TIES-Merging", 2023): that of the weighted sum, or of most. Where the sum is zero that is
// plus, as in mergekit and in PEFT. Normalized, the sum is divided by the weights of those
// that took part.
func elected(p *Params) mixer {
	return func(dst []float32, w [][]float32) {
		for i := range dst {
			var sum float64
			for k, x := range w {
				switch {
				case x == nil:
				case p.Frequency:
					sum += sign(p.Each[k].Weight * float64(x[i]))
				default:
					sum += p.Each[k].Weight * float64(x[i])
				}
			}
			wins := 1.0
			if sum < 0 {
				wins = -1
			}
			var agree, weights float64
			for k, x := range w {
				if x == nil {
					continue
				}
				if v := p.Each[k].Weight * float64(x[i]); sign(v) == wins {
					agree += v
					weights += p.Each[k].Weight
				}
			}
			if p.Normalize && weights != 0 {
				agree /= weights
			}
			dst[i] = float32(p.Lambda * agree)
		}
	}
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}
