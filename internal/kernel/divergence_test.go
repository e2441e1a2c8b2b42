package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainKL is the definition, with probabilities that exist whole.
func plainKL(base, own []float32) float64 {
	var sumBase, sumOwn float64
	for i := range base {
		sumBase += math.Exp(float64(base[i]))
		sumOwn += math.Exp(float64(own[i]))
	}
	var kl float64
	for i := range base {
		p, q := math.Exp(float64(base[i]))/sumBase, math.Exp(float64(own[i]))/sumOwn
		kl += p * math.Log(p/q)
	}
	return kl
}

func TestDivergence(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, n := range []int{1, 2, 7, 100, 3000} {
		for _, noise := range []float32{0, 1e-4, 1, 5} {
			base, own := normal(rng, n), normal(rng, n)
			for i := range own {
				base[i] *= 4
				own[i] = base[i] + noise*own[i]
			}
			for _, chunk := range []int{1, 13, n} {
				d := NewDivergence()
				for at := 0; at < n; at += chunk {
					end := min(n, at+chunk)
					d.Add(base[at:end], own[at:end])
				}
				want := plainKL(base, own)
				require.InDelta(t, want, d.KL(), 1e-11*(1+want), "n %d, noise %v, chunk %d", n, noise, chunk)
				if noise == 0 {
					require.Zero(t, d.KL())
					require.True(t, d.SameTop())
				}
			}
		}
	}

	// No logit is too large, and of equal ones the first is the top.
	d := NewDivergence()
	d.Add([]float32{0, 3e38}, []float32{3e38, 0})
	require.Equal(t, float64(float32(3e38)), d.KL())
	require.False(t, d.SameTop())
	d = NewDivergence()
	d.Add([]float32{1, 2}, []float32{1, 5})
	d.Add([]float32{2, 2}, []float32{5, 5})
	require.True(t, d.SameTop())

	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, both := range [][2][]float32{{{1, bad}, {1, 2}}, {{1, 2}, {1, bad}}} {
			d := NewDivergence()
			d.Add(both[0], both[1])
			require.True(t, math.IsNaN(d.KL()) || math.IsInf(d.KL(), 0), "%v", both)
		}
	}
}
