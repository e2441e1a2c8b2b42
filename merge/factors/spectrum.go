package factors

import (
	"math"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/lowrank"
)

// A Spectrum is the singular values of a module's delta, the scale included, descending.
type Spectrum []float64

// Decompose returns the singular value decomposition of the pair's delta: B·A is the delta,
// the scale included.
func (p *Pair) Decompose() *lowrank.Factors {
	f := lowrank.Product(p.B, p.A, p.Out, p.Rank, p.In)
	if p.Scale < 0 {
		for i, v := range f.B {
			f.B[i] = -v
		}
	}
	s := math.Abs(p.Scale)
	root := float32(math.Sqrt(s))
	for i, v := range f.B {
		f.B[i] = v * root
	}
	for i, v := range f.A {
		f.A[i] = v * root
	}
	for i, v := range f.Values {
		f.Values[i] = v * s
	}
	return f
}

// Norm returns the Frobenius norm of the delta, which its factors tell without a
// decomposition: the trace of (BᵀB)(AAᵀ).
func (p *Pair) Norm() float64 {
	b, a := make([]float64, p.Rank*p.Rank), make([]float64, p.Rank*p.Rank)
	kernel.Parallel(p.Rank, int64(p.Rank)*int64(p.Rank)*int64(p.Out+p.In), func(i int) {
		for row := range p.Out {
			x := p.B[row*p.Rank:][:p.Rank]
			v := float64(x[i])
			for j, y := range x {
				b[i*p.Rank+j] += v * float64(y)
			}
		}
		x := p.A[i*p.In:][:p.In]
		for j := range p.Rank {
			var sum float64
			for k, y := range p.A[j*p.In:][:p.In] {
				sum += float64(x[k]) * float64(y)
			}
			a[i*p.Rank+j] = sum
		}
	})
	var trace float64
	for i, v := range b {
		trace += v * a[i]
	}
	return math.Abs(p.Scale) * math.Sqrt(max(0, trace))
}

// Norm returns the Frobenius norm of the delta.
func (s Spectrum) Norm() float64 { return math.Sqrt(s.squares(0)) }

// squares returns the sum of the squares from the k-th on.
func (s Spectrum) squares(k int) float64 {
	var sum float64
	for _, v := range s[min(k, len(s)):] {
		sum += v * v
	}
	return sum
}

// Lost returns the share of the norm that is lost at rank k: the norm of the difference
// to the nearest matrix of that rank, over the norm.
func (s Spectrum) Lost(k int) float64 {
	if all := s.squares(0); all > 0 {
		return math.Sqrt(s.squares(k) / all)
	}
	return 0
}

// EnergyRank returns the least rank that keeps that share of the energy, the sum of the
// squares of the singular values; 0 of a delta that is zero.
func (s Spectrum) EnergyRank(share float64) int {
	all, sum := s.squares(0), 0.0
	for i, v := range s {
		if sum >= share*all || v == 0 {
			return i
		}
		sum += v * v
	}
	return len(s)
}

// EntropyRank returns the effective rank by entropy (Roy and Vetterli, 2007): e to the
// entropy of the singular values taken as shares of their sum. It is the rank where all
// are the same, and less the more they differ.
func (s Spectrum) EntropyRank() float64 {
	var sum, entropy float64
	for _, v := range s {
		sum += v
	}
	if sum == 0 {
		return 0
	}
	for _, v := range s {
		if p := v / sum; p > 0 {
			entropy -= p * math.Log(p)
		}
	}
	return math.Exp(entropy)
}

// StableRank returns the squared norm over the square of the largest singular value.
func (s Spectrum) StableRank() float64 {
	if len(s) == 0 || s[0] == 0 {
		return 0
	}
	return s.squares(0) / (s[0] * s[0])
}

// ReadRows implements tensor.Rows: the rows of the delta.
func (p *Pair) ReadRows(dst []float32, row int64) error {
	n := len(dst) / p.In
	if err := kernel.Mul(dst, p.B[int(row)*p.Rank:][:n*p.Rank], n, kernel.Dense{Data: p.A, Rows: p.Rank, Cols: p.In}, false); err != nil {
		return err
	}
	kernel.Scale(dst, float32(p.Scale))
	return nil
}
