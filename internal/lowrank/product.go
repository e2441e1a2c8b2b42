package lowrank

import (
	"cmp"
	"math"
	"slices"

	"github.com/seed18967229/nibble/internal/kernel"
)

// Product returns the singular value decomposition of B·A, B rows x rank and A rank x
// cols, without forming the product: both are made orthonormal, and what is between them
// is decomposed, rank x rank. Nothing is left out, so the Rank of the result is that of
// the factors; where the product's is lower, or more than its sides allow, the rest is
// zero.
func Product(b, a []float32, rows, rank, cols int) *Factors {
	x, lower := orthonormal(basis{rank, cols, a})
	y, upper := orthonormal(basis{rank, rows, kernel.Transposed(b, rows, rank)})
	// With A = lower·x and Bᵀ = upper·y the product is yᵀ · (upperᵀ·lower) · x.
	middle := make([]float64, rank*rank)
	for k := range rank {
		for i, u := range upper[k*rank:][:rank] {
			if u != 0 {
				for j, l := range lower[k*rank:][:rank] {
					middle[i*rank+j] += u * l
				}
			}
		}
	}
	values, left, right := square(middle, rank)

	f := &Factors{Rank: rank, B: make([]float32, rows*rank), A: make([]float32, rank*cols), Values: values}
	toLeft, toRight := make([]float32, rank*rank), make([]float32, rank*rank)
	for i, s := range values {
		if s == 0 {
			continue
		}
		for j := range rank {
			toLeft[i*rank+j], toRight[i*rank+j] = float32(left[i*rank+j]/math.Sqrt(s)), float32(right[i*rank+j]*math.Sqrt(s))
		}
	}
	// In memory, so they cannot fail.
	_ = kernel.Mul(f.A, toRight, rank, x.matrix(), false)
	turned := make([]float32, rank*rows)
	_ = kernel.Mul(turned, toLeft, rank, y.matrix(), false)
	f.B = kernel.Transposed(turned, rank, rows)
	return f
}

// Cut returns the first singular values alone: the nearest matrix of that rank.
func (f *Factors) Cut(rank int) *Factors {
	rows, cols := len(f.B)/f.Rank, len(f.A)/f.Rank
	out := &Factors{Rank: rank, B: make([]float32, rows*rank), A: f.A[:rank*cols], Values: f.Values[:rank]}
	for i := range rows {
		copy(out.B[i*rank:][:rank], f.B[i*f.Rank:])
	}
	return out
}

// orthonormal returns orthonormal rows that span those of b, and by what they are to be
// multiplied to give b again.
func orthonormal(b basis) (basis, []float64) {
	q := basis{b.rows, b.cols, slices.Clone(b.data)}
	q.orthonormalize(make([]float32, len(b.data)))
	by := make([]float64, b.rows*b.rows)
	kernel.Parallel(b.rows, int64(b.rows)*int64(b.rows)*int64(b.cols), func(i int) {
		row := b.data[i*b.cols:][:b.cols]
		for j := range b.rows {
			var sum float64
			for k, v := range q.data[j*b.cols:][:b.cols] {
				sum += float64(v) * float64(row[k])
			}
			by[i*b.rows+j] = sum
		}
	})
	return q, by
}

// square decomposes an n x n matrix m: the singular values, descending, and as rows the
// left vectors times their values and the right vectors. Their products add up to m
// whatever the rounding of the smallest values, which float32 cannot tell from zero and
// are left out.
func square(m []float64, n int) (values, left, right []float64) {
	g := make([]float64, n*n)
	for k := range n {
		row := m[k*n:][:n]
		for i, x := range row {
			for j, y := range row {
				g[i*n+j] += x * y
			}
		}
	}
	_, v := eigen(g, n)
	u, norms, order := make([]float64, n*n), make([]float64, n), make([]int, n)
	for i := range n {
		order[i] = i
		for k := range n {
			var sum float64
			for j, x := range m[k*n:][:n] {
				sum += x * v[i*n+j]
			}
			u[i*n+k] = sum
			norms[i] += sum * sum
		}
		norms[i] = math.Sqrt(norms[i])
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(norms[b], norms[a]) })
	values = make([]float64, n)
	for i, o := range order {
		if s := norms[o]; s > norms[order[0]]*smallest {
			values[i] = s
		}
		left, right = append(left, u[o*n:][:n]...), append(right, v[o*n:][:n]...)
	}
	return values, left, right
}
