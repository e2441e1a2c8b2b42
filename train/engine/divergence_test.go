package engine

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/train/model"
)

func TestDivergence(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	const n = 400
	d := &Divergence{}
	var kls, losses, bases, squares []float64
	same := 0
	for i := range n {
		c := model.Comparison{Loss: rng.ExpFloat64(), KL: rng.ExpFloat64(), SameTop: i%5 != 0}
		c.Base = c.Loss + 0.1*rng.NormFloat64()
		d.add(c)
		dp := math.Exp(-c.Loss) - math.Exp(-c.Base)
		kls, losses, bases, squares = append(kls, c.KL), append(losses, c.Loss), append(bases, c.Base), append(squares, dp*dp)
		if c.SameTop {
			same++
		}
	}
	// mean returns a mean and its standard error, straight from their definition.
	mean := func(list []float64) (m, e float64) {
		for _, v := range list {
			m += v / n
		}
		for _, v := range list {
			e += (v - m) * (v - m)
		}
		return m, math.Sqrt(e/n) / math.Sqrt(n-1)
	}
	require.Equal(t, n, d.Labels())
	m, e := mean(kls)
	require.InDelta(t, m, d.KL().Value, 1e-9)
	require.InDelta(t, e, d.KL().Uncertainty, 1e-9)
	m, e = mean(losses)
	require.InDelta(t, math.Exp(m), d.Perplexity().Value, 1e-9)
	require.InDelta(t, math.Exp(m)*e, d.Perplexity().Uncertainty, 1e-9)
	require.InDelta(t, m*n, d.Loss(), 1e-9)
	m, _ = mean(bases)
	require.InDelta(t, math.Exp(m), d.BasePerplexity().Value, 1e-9)
	var ratios []float64
	for i := range losses {
		ratios = append(ratios, losses[i]-bases[i])
	}
	m, e = mean(ratios)
	require.InDelta(t, m, d.LogRatio().Value, 1e-9)
	require.InDelta(t, e, d.LogRatio().Uncertainty, 1e-9, "what both find hard cancels out")
	m, e = mean(squares)
	require.InDelta(t, math.Sqrt(m), d.RMSDeltaP().Value, 1e-9)
	require.InDelta(t, e/(2*math.Sqrt(m)), d.RMSDeltaP().Uncertainty, 1e-9)
	require.InDelta(t, 0.8, d.SameTop().Value, 1e-9)
	require.InDelta(t, math.Sqrt(0.8*0.2/(n-1)), d.SameTop().Uncertainty, 1e-9)

	slices.Sort(kls)
	p := d.Percentiles(0, 0.5, 0.99, 1)
	require.InDeltaSlice(t, []float64{kls[0], (kls[199] + kls[200]) / 2, kls[395] + 0.01*(kls[396]-kls[395]), kls[399]}, p, 1e-6)
}

// Where there are few labels, or no difference, there is no uncertainty, and no
// figure that is not a number.
func TestDivergenceOfFew(t *testing.T) {
	d := &Divergence{}
	for range 3 {
		d.add(model.Comparison{Loss: 1, Base: 1, SameTop: true})
	}
	require.Equal(t, Figure{}, d.KL())
	require.Equal(t, Figure{Value: math.Exp(1)}, d.Perplexity())
	require.Equal(t, Figure{}, d.LogRatio())
	require.Equal(t, Figure{}, d.RMSDeltaP())
	require.Equal(t, Figure{Value: 1}, d.SameTop())
	require.Equal(t, []float64{0, 0}, d.Percentiles(0.5, 1))
}

func TestCompareDoesNotDependOnGroupsOrSlots(t *testing.T) {
	a := tensortest.TinyLlama(t, nil)
	base, err := New(tensortest.NewModel(t, a, 9), codecs, a, model.Trainable{}, Options{Choices: Choices{Slots: 2}, Positions: 64})
	require.NoError(t, err)
	defer base.Close()
	rng := rand.New(rand.NewPCG(4, 4))
	var list [][]int32
	for range 7 {
		tokens := make([]int32, 2+rng.IntN(9))
		for i := range tokens {
			tokens[i] = int32(rng.IntN(37))
		}
		list = append(list, tokens)
	}
	run := func(slots, group int) *Divergence {
		d, err := Compare(context.Background(), newEngine(t, slots, 64), base, len(list), group, func(b *model.Batch, i int) error {
			b.Add(list[i], 0)
			return nil
		})
		require.NoError(t, err)
		return d
	}
	want := run(3, 1)
	require.Positive(t, want.KL().Value)
	for _, group := range []int{2, 7} {
		got := run(2, group)
		require.Equal(t, want.Labels(), got.Labels())
		require.InDelta(t, want.KL().Value, got.KL().Value, 1e-6)
		require.InDelta(t, want.Loss(), got.Loss(), 1e-5)
		require.Equal(t, want.SameTop(), got.SameTop())
	}
}
