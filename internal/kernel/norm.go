package kernel

import "math"

// Norm brings rows to a common size before a layer: RMSNorm (Zhang and
// Sennrich, 2019), or with a bias LayerNorm (Ba et al., 2016). Sums are in
// float64.
type Norm struct {
	// W scales; B, if it is not nil, is added, and the rows are centred first.
	W, B []float32

	// Plus is added to W: Gemma scales by 1 + weight.
	Plus float32

	Eps float64
}

// Forward computes y for each of the m rows of x, which have len(W) elements.
func (n Norm) Forward(y, x []float32, m int) {
	h := len(n.W)
	byRows(m, 4*h, func(from, to int) {
		for i := from; i < to; i++ {
			row, out := x[i*h:(i+1)*h], y[i*h:(i+1)*h]
			mean, s := n.moments(row)
			if n.B == nil {
				for j, v := range row {
					out[j] = v * s * (n.W[j] + n.Plus)
				}
				continue
			}
			for j, v := range row {
				out[j] = (v-mean)*s*(n.W[j]+n.Plus) + n.B[j]
			}
		}
	})
}

// moments returns what is taken from a row and what it is multiplied by.
func (n Norm) moments(x []float32) (mean, s float32) {
	var sum, squares float64
	if n.B != nil {
		for _, v := range x {
			sum += float64(v)
		}
		sum /= float64(len(x))
	}
	for _, v := range x {
		d := float64(v) - sum
		squares += d * d
	}
	return float32(sum), float32(1 / math.Sqrt(squares/float64(len(x))+n.Eps))
}

// Grad adds to dx the gradient of Forward with respect to x, given x and the
// gradient dy of its result; and to dw and db, if they are not nil, those with
// respect to W and B.
func (n Norm) Grad(dx, dw, db, dy, x []float32, m int) {
	h := len(n.W)
	byRows(m, 8*h, func(from, to int) {
		for i := from; i < to; i++ {
			row, g, out := x[i*h:(i+1)*h], dy[i*h:(i+1)*h], dx[i*h:(i+1)*h]
			mean, s := n.moments(row)
			var dot, sum float64
			for j, v := range row {
				gw := float64(g[j]) * float64(n.W[j]+n.Plus)
				dot += float64(v-mean) * gw
				sum += gw
			}
			c := float32(dot/float64(h)) * s * s * s
			var shift float32
			if n.B != nil {
				shift = float32(sum/float64(h)) * s
			}
			for j, v := range row {
				out[j] += g[j]*(n.W[j]+n.Plus)*s - (v-mean)*c - shift
			}
		}
	})
	if dw == nil && db == nil {
		return
	}
	for i := range m {
		row, g := x[i*h:(i+1)*h], dy[i*h:(i+1)*h]
		if dw != nil {
			mean, s := n.moments(row)
			for j, v := range row {
				dw[j] += g[j] * (v - mean) * s
			}
		}
		if db != nil {
			AddScaled(db, 1, g)
		}
	}
}
