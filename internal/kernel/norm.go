package kernel

import "math"

// Norm brings rows to a common size before a layer: RMSNorm (Zhang and
// Sennrich, 2019), or with a bias LayerNorm (Ba et al., 2016). Sums over a
// row are in float64, sums over rows in float32, row by row.
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
				use.norm(out, row, n.W, s, n.Plus)
			} else {
				use.normBias(out, row, n.W, n.B, mean, s, n.Plus)
			}
		}
	})
}

func normGo(y, x, w []float32, s, plus float32) {
	for j, v := range x {
		y[j] = v * s * (w[j] + plus)
	}
}

func normBiasGo(y, x, w, b []float32, mean, s, plus float32) {
	for j, v := range x {
		y[j] = (v-mean)*s*(w[j]+plus) + b[j]
	}
}

// moments returns what is taken from a row and what it is multiplied by.
func (n Norm) moments(x []float32) (mean, s float32) {
	var centre float64
	if n.B != nil {
		centre = use.sum(x) / float64(len(x))
	}
	squares := use.sumSquares(x, centre)
	return float32(centre), float32(1 / math.Sqrt(squares/float64(len(x))+n.Eps))
}

// Grad adds to dx the gradient of Forward with respect to x, given x and the
// gradient dy of its result; and to dw and db, if they are not nil, those with
// respect to W and B.
func (n Norm) Grad(dx, dw, db, dy, x []float32, m int) {
	h := len(n.W)
	buf := scratch(2 * m)
	defer release(buf)
	moments := *buf
	byRows(m, 8*h, func(from, to int) {
		for i := from; i < to; i++ {
			row, g := x[i*h:(i+1)*h], dy[i*h:(i+1)*h]
			mean, s := n.moments(row)
			moments[2*i], moments[2*i+1] = mean, s
			dot, sum := use.normDots(g, row, n.W, mean, n.Plus)
			c := float32(dot/float64(h)) * s * s * s
			var shift float32
			if n.B != nil {
				shift = float32(sum/float64(h)) * s
			}
			use.normGrad(dx[i*h:(i+1)*h], g, row, n.W, mean, s, n.Plus, c, shift)
		}
	})
	if dw == nil && db == nil {
		return
	}
	byColumns(m, h, 4, func(from, to int) {
		for i := range m {
			row, g := x[i*h+from:i*h+to], dy[i*h+from:i*h+to]
			if dw != nil {
				use.normWeight(dw[from:to], g, row, moments[2*i], moments[2*i+1])
			}
			if db != nil {
				use.add(db[from:to], g)
			}
		}
	})
}

func normDotsGo(dy, x, w []float32, mean, plus float32) (dot, sum float64) {
	for j, v := range x {
		gw := float64(dy[j]) * float64(w[j]+plus)
		dot += float64(v-mean) * gw
		sum += gw
	}
	return dot, sum
}

func normGradGo(dx, dy, x, w []float32, mean, s, plus, c, shift float32) {
	for j, v := range x {
		dx[j] += dy[j]*(w[j]+plus)*s - (v-mean)*c - shift
	}
}

func normWeightGo(dw, dy, x []float32, mean, s float32) {
	for j, v := range x {
		dw[j] += dy[j] * (v - mean) * s
	}
}
