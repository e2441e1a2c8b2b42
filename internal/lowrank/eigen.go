package lowrank

import (
	"cmp"
	"math"
	"slices"
)

// sweeps bounds the sweeps of Jacobi's method, which converges quadratically: ten are
// enough for any matrix seen.
const sweeps = 40

// eigen returns the eigenvalues of the symmetric n x n matrix g, descending, and its
// eigenvectors as rows in the same order, by Jacobi's rotations. g is overwritten.
func eigen(g []float64, n int) (values, vectors []float64) {
	v := make([]float64, n*n) // rows become eigenvectors
	for i := range n {
		v[i*n+i] = 1
	}
	var norm float64
	for _, x := range g {
		norm += x * x
	}
	for range sweeps {
		var off float64
		for i := range n {
			for _, x := range g[i*n:][:i] {
				off += x * x
			}
		}
		if off <= norm*1e-30 {
			break
		}
		for p := range n {
			for q := p + 1; q < n; q++ {
				rotate(g, v, n, p, q)
			}
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(g[b*n+b], g[a*n+a]) })
	values, vectors = make([]float64, n), make([]float64, 0, n*n)
	for i, o := range order {
		values[i] = g[o*n+o]
		vectors = append(vectors, v[o*n:][:n]...)
	}
	return values, vectors
}

// rotate turns rows and columns p and q so that their product is zero.
func rotate(g, v []float64, n, p, q int) {
	apq := g[p*n+q]
	if apq == 0 {
		return
	}
	// The smaller of the two angles (Golub and Van Loan, section 8.5.2).
	theta := (g[q*n+q] - g[p*n+p]) / (2 * apq)
	t := 1 / (math.Abs(theta) + math.Hypot(theta, 1))
	if theta < 0 {
		t = -t
	}
	c := 1 / math.Hypot(t, 1)
	s := t * c
	app, aqq := g[p*n+p]-t*apq, g[q*n+q]+t*apq
	turn(g[p*n:][:n], g[q*n:][:n], c, s)
	g[p*n+p], g[q*n+q], g[p*n+q], g[q*n+p] = app, aqq, 0, 0
	for i := range n {
		if i != p && i != q {
			g[i*n+p], g[i*n+q] = g[p*n+i], g[q*n+i]
		}
	}
	turn(v[p*n:][:n], v[q*n:][:n], c, s)
}

// turn rotates two rows.
func turn(a, b []float64, c, s float64) {
	b = b[:len(a)]
	for i, x := range a {
		y := b[i]
		a[i], b[i] = c*x-s*y, s*x+c*y
	}
}
