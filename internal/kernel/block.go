package kernel

import "math"

// rowsPer is how many rows of activations one call of a parallel loop takes.
const rowsPer = 16

// byRows runs f on groups of the m rows, each row costing cost multiply-adds.
func byRows(m, cost int, f func(from, to int)) {
	Parallel((m+rowsPer-1)/rowsPer, int64(m)*int64(cost), func(i int) {
		f(i*rowsPer, min(m, (i+1)*rowsPer))
	})
}

// RMSNorm computes y = x/rms(x) * w for each of the m rows of x, which have
// len(w) elements (Zhang and Sennrich, 2019). The mean square is summed in
// float64.
func RMSNorm(y, x, w []float32, m int, eps float64) {
	h := len(w)
	byRows(m, 4*h, func(from, to int) {
		for i := from; i < to; i++ {
			row, out := x[i*h:(i+1)*h], y[i*h:(i+1)*h]
			s := rms(row, eps)
			for j, v := range row {
				out[j] = v * s * w[j]
			}
		}
	})
}

// rms returns 1/sqrt(mean(x^2) + eps).
func rms(x []float32, eps float64) float32 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return float32(1 / math.Sqrt(sum/float64(len(x))+eps))
}

// RMSNormGrad adds to dx the gradient of RMSNorm with respect to x, given x and
// the gradient dy of its result; and to dw, if it is not nil, that with respect
// to w.
func RMSNormGrad(dx, dw, dy, x, w []float32, m int, eps float64) {
	h := len(w)
	byRows(m, 8*h, func(from, to int) {
		for i := from; i < to; i++ {
			row, g, out := x[i*h:(i+1)*h], dy[i*h:(i+1)*h], dx[i*h:(i+1)*h]
			s := rms(row, eps)
			var dot float64
			for j, v := range row {
				dot += float64(v) * float64(g[j]) * float64(w[j])
			}
			c := float32(dot/float64(h)) * s * s * s
			for j, v := range row {
				out[j] += g[j]*w[j]*s - v*c
			}
		}
	})
	if dw == nil {
		return
	}
	for i := range m {
		row, g := x[i*h:(i+1)*h], dy[i*h:(i+1)*h]
		s := rms(row, eps)
		for j, v := range row {
			dw[j] += g[j] * v * s
		}
	}
}

// Rotation is a table of the rotary position embedding (Su et al., 2021): the
// cosine and sine of each of headDim/2 angles, for positions 0, 1, 2 ...
type Rotation struct {
	cos, sin    []float32
	half        int
	interleaved bool
}

// NewRotation makes the table for positions 0 to n-1. invFreq holds the
// headDim/2 frequencies in radians per position. interleaved says that element
// 2i is rotated with element 2i+1, and not element i with i + headDim/2.
func NewRotation(n int, invFreq []float64, interleaved bool) *Rotation {
	r := &Rotation{half: len(invFreq), interleaved: interleaved}
	r.cos, r.sin = make([]float32, n*r.half), make([]float32, n*r.half)
	for p := range n {
		for i, f := range invFreq {
			sin, cos := math.Sincos(float64(p) * f)
			r.cos[p*r.half+i], r.sin[p*r.half+i] = float32(cos), float32(sin)
		}
	}
	return r
}

// Positions returns the number of positions the table has.
func (r *Rotation) Positions() int { return len(r.cos) / r.half }

// Apply rotates the heads of each of the rows of x in place; the rows have
// heads*headDim elements, and row i is at position pos[i].
func (r *Rotation) Apply(x []float32, heads int, pos []int32) { r.rotate(x, heads, pos, 1) }

// Grad undoes Apply, which turns the gradient of its result into that of its
// argument, in place.
func (r *Rotation) Grad(dx []float32, heads int, pos []int32) { r.rotate(dx, heads, pos, -1) }

func (r *Rotation) rotate(x []float32, heads int, pos []int32, sign float32) {
	dim := 2 * r.half
	step, partner := 1, r.half
	if r.interleaved {
		step, partner = 2, 1
	}
	byRows(len(pos), 4*heads*dim, func(from, to int) {
		for i := from; i < to; i++ {
			at := int(pos[i]) * r.half
			cos, sin := r.cos[at:at+r.half], r.sin[at:at+r.half]
			for h := range heads {
				v := x[(i*heads+h)*dim:][:dim]
				for j, c := range cos {
					a, b, s := v[j*step], v[j*step+partner], sign*sin[j]
					v[j*step] = a*c - b*s
					v[j*step+partner] = b*c + a*s
				}
			}
		}
	})
}

// SwiGLU computes y = silu(gate) * up, element by element (Shazeer, 2020).
func SwiGLU(y, gate, up []float32) {
	byElements(len(y), func(from, to int) {
		for i := from; i < to; i++ {
			y[i] = gate[i] / (1 + Exp(-gate[i])) * up[i]
		}
	})
}

// SwiGLUGrad computes the gradients of SwiGLU with respect to gate and up from
// the gradient dy of its result. dgate may be gate, and dup may be up or dy.
func SwiGLUGrad(dgate, dup, dy, gate, up []float32) {
	byElements(len(dy), func(from, to int) {
		for i := from; i < to; i++ {
			g, u, d := gate[i], up[i], dy[i]
			s := 1 / (1 + Exp(-g))
			dup[i] = d * g * s
			dgate[i] = d * u * s * (1 + g*(1-s))
		}
	})
}

// Add adds x to y.
func Add(y, x []float32) {
	byElements(len(x), func(from, to int) {
		for i := from; i < to; i++ {
			y[i] += x[i]
		}
	})
}

// AddRow adds the vector b to each of the m rows of y.
func AddRow(y, b []float32, m int) {
	for i := range m {
		AddScaled(y[i*len(b):(i+1)*len(b)], 1, b)
	}
}

// SumRows adds the sum of the m rows of dy to db: the gradient of AddRow.
func SumRows(db, dy []float32, m int) {
	for i := range m {
		AddScaled(db, 1, dy[i*len(db):(i+1)*len(db)])
	}
}

func byElements(n int, f func(from, to int)) {
	const group = 4096
	Parallel((n+group-1)/group, int64(n)*8, func(i int) { f(i*group, min(n, (i+1)*group)) })
}
