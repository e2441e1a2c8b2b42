package kernel

import "math"

// MulFused computes dx = dy·w as Mul does, dy being m x w.Rows, with the same bits on
// every machine: of each kStep rows of w the products are added up, in their order,
// by fused multiply-adds that begin at 0, and those sums are added up in theirs. Mul
// of the assembly does just that. Plain Go takes its time, as a processor's fused
// multiply-add is not what its compiler gives it; it is for what must come back to the
// last bit on another machine, such as the merge of an adapter.
func MulFused(dx, dy []float32, m int, w Dense) {
	if use.micro != nil {
		_ = Mul(dx, dy, m, w, false) // a matrix in memory cannot fail to decode
		return
	}
	rows, cols := w.Rows, w.Cols
	dx, dy = dx[:m*cols], dy[:m*rows]
	clear(dx)
	const batch = 8
	Parallel((m+batch-1)/batch, int64(m)*int64(rows)*int64(cols), func(t int) {
		sums := scratch(cols)
		defer release(sums)
		for i := t * batch; i < min(m, (t+1)*batch); i++ {
			for k0 := 0; k0 < rows; k0 += kStep {
				clear(*sums)
				for k := k0; k < min(rows, k0+kStep); k++ {
					a, b := dy[i*rows+k], w.Data[k*cols:][:cols]
					for j, s := range *sums {
						(*sums)[j] = fused(a, b[j], s)
					}
				}
				for j, s := range *sums {
					dx[i*cols+j] += s
				}
			}
		}
	})
}

// fusedGo returns a*b + c, rounded once.
func fusedGo(a, b, c float32) float32 {
	// The product is exact, and the sum is rounded to odd: then its rounding to float32
	// is that of the exact sum (Boldo and Melquiond, 2008).
	p, z := float64(a)*float64(b), float64(c)
	s := p + z
	if s-s != 0 {
		return float32(s)
	}
	t := s - p
	e := (p - (s - t)) + (z - t)
	if bits := math.Float64bits(s); e != 0 && bits&1 == 0 {
		if (e > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
		s = math.Float64frombits(bits)
	}
	return float32(s)
}
