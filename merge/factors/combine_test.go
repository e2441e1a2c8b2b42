package factors

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// Whatever the ranks, scales and weights, cat and linear are the sum of the deltas; svd is as
// near as its rank allows.
func TestExactMethodsAreTheSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 12 {
		out, in := 3+rng.IntN(40), 3+rng.IntN(40)
		var parts []Part
		want := make([]float64, out*in)
		ranks := 0
		for range 1 + rng.IntN(4) {
			p := Part{pair(rng, out, in, 1+rng.IntN(9), math.Exp(rng.NormFloat64())), rng.NormFloat64()}
			parts = append(parts, p)
			ranks += p.Rank
			for i, v := range delta(p.Pair) {
				want[i] += p.Weight * v
			}
		}
		for _, m := range Methods() {
			if !m.Exact {
				continue
			}
			got, err := m.Combine(parts, Options{})
			require.NoError(t, err)
			require.Less(t, apart(want, delta(got)), 5e-6, "%d: %s", n, m.Name)
			if m.Name == "cat" {
				require.Equal(t, ranks, got.Rank)
			} else {
				require.LessOrEqual(t, got.Rank, min(ranks, out, in))
			}
		}
		svd, err := ByName("svd")
		require.NoError(t, err)
		whole := (&Pair{Out: out, In: in}).of(t, parts)
		for _, k := range []int{1, 3, 100} {
			got, err := svd.Combine(parts, Options{Rank: k})
			require.NoError(t, err)
			require.LessOrEqual(t, got.Rank, k)
			require.InDelta(t, Spectrum(whole.Decompose().Values).Lost(k), apart(want, delta(got)), 1e-5)
		}
	}
}

func (p *Pair) of(t *testing.T, parts []Part) *Pair {
	sum, err := cat(parts, Options{})
	require.NoError(t, err)
	return sum
}

func TestSVDHasTheLargestRankByItself(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	got, err := svd([]Part{{pair(rng, 20, 30, 3, 1), 1}, {pair(rng, 20, 30, 5, 1), 1}}, Options{})
	require.NoError(t, err)
	require.Equal(t, 5, got.Rank)
}

// An adapter less itself is nothing, at any rank.
func TestDifferenceOfEquals(t *testing.T) {
	p := pair(rand.New(rand.NewPCG(7, 8)), 9, 11, 3, 2)
	for _, m := range Methods() {
		if m.Name == "cat" || m.Name == "linear" || m.Name == "svd" {
			got, err := m.Combine([]Part{{p, 1}, {p, -1}}, Options{})
			require.NoError(t, err)
			require.Less(t, norm(delta(got)), 1e-5*norm(delta(p)), m.Name)
		}
	}
}

// One adapter alone, unpruned, is itself times its weight, whatever the method.
func TestOneAdapterIsItself(t *testing.T) {
	p := pair(rand.New(rand.NewPCG(9, 10)), 9, 11, 3, 2)
	for _, m := range Methods() {
		for _, w := range []float64{1, 0.25, -1.5} {
			got, err := m.Combine([]Part{{p, w}}, Options{Density: 1})
			require.NoError(t, err, m.Name)
			want := delta(p)
			for i := range want {
				want[i] *= w
			}
			require.Less(t, apart(want, delta(got)), 5e-6, "%s %v", m.Name, w)
		}
	}
}

func TestCombineRefuses(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, m := range Methods() {
		_, err := m.Combine([]Part{{pair(rng, 4, 5, 2, 1), 1}, {pair(rng, 4, 6, 2, 1), 1}}, Options{Density: 1})
		require.ErrorIs(t, err, tensor.ErrMalformed, m.Name)
		_, err = m.Combine([]Part{{pair(rng, 4, 5, 2, 1), 1}, {pair(rng, 4, 5, 3, 1), 1}}, Options{Density: 1})
		if m.SameRank {
			require.ErrorIs(t, err, tensor.ErrUnsupported, m.Name)
		} else {
			require.NoError(t, err, m.Name)
		}
	}
	_, err := ByName("average")
	require.ErrorContains(t, err, `no method "average"`)
}

// The share that is kept is the density, what is kept is made larger by it, and the seed
// and the place decide which.
func TestDropRandom(t *testing.T) {
	x := noise(rand.New(rand.NewPCG(13, 14)), 20000)
	o := Options{Density: 0.3, Seed: 5, Module: 6}
	y := dropRandom(x, o, 1)
	kept := 0
	for i, v := range y {
		if v != 0 {
			kept++
			require.InEpsilon(t, float64(x[i])/0.3, float64(v), 1e-6)
		}
	}
	require.InDelta(t, 0.3, float64(kept)/float64(len(x)), 0.01)
	require.Equal(t, y, dropRandom(x, o, 1))
	for i, other := range []Options{{0, 0.3, 5, 7, false}, {0, 0.3, 6, 6, false}} {
		require.NotEqual(t, y, dropRandom(x, other, 1), fmt.Sprint(i))
	}
	require.NotEqual(t, y, dropRandom(x, o, 2))
}
