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
	width       int // of the table
	interleaved bool
}

// NewRotation makes the table for positions 0 to n-1 and heads of dim elements,
// of which the first 2*len(invFreq) are rotated. invFreq holds the frequencies
// in radians per position; cosines and sines are multiplied by scale.
// interleaved says that element 2i is rotated with element 2i+1, and not element
// i with i + len(invFreq).
func NewRotation(n, dim int, invFreq []float64, scale float64, interleaved bool) *Rotation {
	r := &Rotation{half: len(invFreq), dim: dim, interleaved: interleaved}
	// Beside neighbouring elements each number stands twice.
	copies := 1
	if interleaved {
		copies = 2
	}
	r.width = copies * r.half
	r.cos, r.sin = make([]float32, n*r.width), make([]float32, n*r.width)
	for p := range n {
		for i, f := range invFreq {
			sin, cos := math.Sincos(float64(p) * f)
			for j := range copies {
				at := p*r.width + copies*i + j
				r.cos[at], r.sin[at] = float32(cos*scale), float32(sin*scale)
			}
		}
	}
	return r
}

// Positions returns the number of positions the table has.
func (r *Rotation) Positions() int { return len(r.cos) / r.width }

// Apply rotates the heads of each of the rows of x in place; the rows have
// heads*dim elements, and row i is at position pos[i].
func (r *Rotation) Apply(x []float32, heads int, pos []int32) { r.rotate(x, heads, pos, 1) }

// Grad turns the gradient of Apply's result into that of its argument, in place.
func (r *Rotation) Grad(dx []float32, heads int, pos []int32) { r.rotate(dx, heads, pos, -1) }

func (r *Rotation) rotate(x []float32, heads int, pos []int32, sign float32) {
	turn := use.rotateHalves
	if r.interleaved {
		turn = use.rotatePairs
	}
	byRows(len(pos), 4*heads*r.dim, func(from, to int) {
		for i := from; i < to; i++ {
			at := int(pos[i]) * r.width
			turn(x[i*heads*r.dim:(i+1)*heads*r.dim], r.cos[at:at+r.width], r.sin[at:at+r.width], heads, r.dim, sign)
		}
	})
}

func rotateHalvesGo(x, cos, sin []float32, heads, dim int, sign float32) {
	half := len(cos)
	for h := range heads {
		v := x[h*dim:][:dim]
		for j, c := range cos {
			a, b, s := v[j], v[j+half], sign*sin[j]
			v[j] = a*c - b*s
			v[j+half] = b*c + a*s
		}
	}
}

func rotatePairsGo(x, cos, sin []float32, heads, dim int, sign float32) {
	for h := range heads {
		v := x[h*dim:][:dim]
		for j := 0; j < len(cos); j += 2 {
			a, b, c, s := v[j], v[j+1], cos[j], sign*sin[j]
			v[j] = a*c - b*s
			v[j+1] = b*c + a*s
		}
	}
}
