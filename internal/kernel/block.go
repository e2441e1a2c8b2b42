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

// Rotation is a table of the rotary position embedding (Su et al., 2021): the
// cosine and sine of each angle, for positions 0, 1, 2 ...
type Rotation struct {
	cos, sin    []float32
	half, dim   int
	interleaved bool
}

// NewRotation makes the table for positions 0 to n-1 and heads of dim elements,
// of which the first 2*len(invFreq) are rotated. invFreq holds the frequencies
// in radians per position; cosines and sines are multiplied by scale.
// interleaved says that element 2i is rotated with element 2i+1, and not element
// i with i + len(invFreq).
func NewRotation(n, dim int, invFreq []float64, scale float64, interleaved bool) *Rotation {
	r := &Rotation{half: len(invFreq), dim: dim, interleaved: interleaved}
	r.cos, r.sin = make([]float32, n*r.half), make([]float32, n*r.half)
	for p := range n {
		for i, f := range invFreq {
			sin, cos := math.Sincos(float64(p) * f)
			r.cos[p*r.half+i], r.sin[p*r.half+i] = float32(cos*scale), float32(sin*scale)
		}
	}
	return r
}

// Positions returns the number of positions the table has.
func (r *Rotation) Positions() int { return len(r.cos) / r.half }

// Apply rotates the heads of each of the rows of x in place; the rows have
// heads*dim elements, and row i is at position pos[i].
func (r *Rotation) Apply(x []float32, heads int, pos []int32) { r.rotate(x, heads, pos, 1) }

// Grad turns the gradient of Apply's result into that of its argument, in place.
func (r *Rotation) Grad(dx []float32, heads int, pos []int32) { r.rotate(dx, heads, pos, -1) }

func (r *Rotation) rotate(x []float32, heads int, pos []int32, sign float32) {
	step, partner := 1, r.half
	if r.interleaved {
		step, partner = 2, 1
	}
	byRows(len(pos), 4*heads*r.dim, func(from, to int) {
		for i := from; i < to; i++ {
			at := int(pos[i]) * r.half
			cos, sin := r.cos[at:at+r.half], r.sin[at:at+r.half]
			for h := range heads {
				v := x[(i*heads+h)*r.dim:][:r.dim]
				for j, c := range cos {
					a, b, s := v[j*step], v[j*step+partner], sign*sin[j]
					v[j*step] = a*c - b*s
					v[j*step+partner] = b*c + a*s
				}
			}
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
