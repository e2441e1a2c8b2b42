package lowrank

import (
	"github.com/seed18967229/nibble/internal/kernel"
)

const (
	// gramParts is how many parts of the columns are summed apart from each other, at
	// most.
	gramParts = 16

	// gramCols is how many columns are in float64 at a time.
	gramCols = 128
)

// gram returns the products of the rows with each other, summed in float64: float32
// would lose the lesser half of the digits that orthonormal rows need. The sums are cut
// by the shape alone.
func (b basis) gram() []float64 {
	n := b.rows
	part := max(4*gramCols, (b.cols+gramParts-1)/gramParts)
	parts := (b.cols + part - 1) / part
	sums := make([][]float64, parts)
	kernel.Parallel(parts, int64(n)*int64(n)*int64(b.cols)/2, func(i int) {
		sums[i] = make([]float64, n*n)
		b.addGram(sums[i], i*part, min(b.cols, (i+1)*part))
	})
	g := sums[0]
	for _, s := range sums[1:] {
		for i, v := range s {
			g[i] += v
		}
	}
	for i := range n {
		for j := range i {
			g[j*n+i] = g[i*n+j]
		}
	}
	return g
}

// addGram adds the products of some columns to the lower triangle of g.
func (b basis) addGram(g []float64, from, to int) {
	n := b.rows
	wide := make([]float64, (n+3)*gramCols) // with rows of zeros to a multiple of four
	row := func(i int) []float64 { return wide[i*gramCols:][:gramCols] }
	for ; from < to; from += gramCols {
		w := min(gramCols, to-from)
		for i := range n {
			dst := row(i)
			for j, v := range b.data[i*b.cols+from:][:w] {
				dst[j] = float64(v)
			}
			clear(dst[w:])
		}
		for i := 0; i < n; i += 2 {
			a0, a1 := row(i), row(i+1)
			for j := 0; j <= i+1; j += 2 {
				s := dots(a0, a1, row(j), row(j+1))
				g[i*n+j] += s[0]
				if j+1 < n {
					g[i*n+j+1] += s[1]
				}
				if i+1 < n {
					g[(i+1)*n+j] += s[2]
					if j+1 < n {
						g[(i+1)*n+j+1] += s[3]
					}
				}
			}
		}
	}
}

// dots returns the products of two rows with two others.
func dots(a0, a1, b0, b1 []float64) [4]float64 {
	var s00, s01, s10, s11, t00, t01, t10, t11 float64
	a1, b0, b1 = a1[:len(a0)], b0[:len(a0)], b1[:len(a0)]
	for k := 0; k+1 < len(a0); k += 2 {
		x0, x1, y0, y1 := a0[k], a1[k], b0[k], b1[k]
		s00 += x0 * y0
		s01 += x0 * y1
		s10 += x1 * y0
		s11 += x1 * y1
		x0, x1, y0, y1 = a0[k+1], a1[k+1], b0[k+1], b1[k+1]
		t00 += x0 * y0
		t01 += x0 * y1
		t10 += x1 * y0
		t11 += x1 * y1
	}
	return [4]float64{s00 + t00, s01 + t01, s10 + t10, s11 + t11}
}
