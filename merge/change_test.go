package merge

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
)

// double is a Change that is no sum.
type double struct{ target string }

func (d double) Target() string { return d.target }

func (d double) Apply(w []float32, _ int64) error {
	for i := range w {
		w[i] *= 2
	}
	return nil
}

// TestDeltasOfAChange checks that a change is the same as the delta it amounts
// to, and a weight a part of the way.
func TestDeltasOfAChange(t *testing.T) {
	b := base(t)
	ds, err := Deltas(b, codecs, double{"a.q.weight"})
	require.NoError(t, err)
	require.Len(t, ds, 1)
	require.Equal(t, "a.q.weight", ds[0].Target())
	require.False(t, ds[0].Zero())
	whole, err := View(b, codecs, []Change{double{"a.q.weight"}}, keep)
	require.NoError(t, err)
	sum, err := View(b, codecs, []Change{Sum(ds...)}, keep)
	require.NoError(t, err)
	require.Equal(t, tensortest.Bytes(t, whole, "a.q.weight"), tensortest.Bytes(t, sum, "a.q.weight"))
	half, err := View(b, codecs, []Change{Sum(Scaled(ds[0], 0.5))}, keep)
	require.NoError(t, err)
	w := tensortest.Floats(t, b, "a.q.weight")
	for i, v := range tensortest.Floats(t, half, "a.q.weight") {
		require.Equal(t, 1.5*w[i], v)
	}
	_, err = Deltas(b, codecs, double{"none"})
	require.Error(t, err)
}

// TestChangesOfOneTensorAreDoneInOrder adds before doubling.
func TestChangesOfOneTensorAreDoneInOrder(t *testing.T) {
	b := base(t)
	e, err := LoRA{}.Match(b, tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 10)...), codecs, Config{Rank: 2, Alpha: 2})
	require.NoError(t, err)
	once, err := View(b, codecs, e.Changes, keep)
	require.NoError(t, err)
	twice, err := View(b, codecs, append(e.Changes, double{"a.q.weight"}), keep)
	require.NoError(t, err)
	w := tensortest.Floats(t, once, "a.q.weight")
	for i, v := range tensortest.Floats(t, twice, "a.q.weight") {
		require.Equal(t, 2*w[i], v)
	}
}

// TestFactors multiplies the factors of a delta, stored either way and scaled.
func TestFactors(t *testing.T) {
	b := base(t)
	e, err := LoRA{}.Match(b, tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 10)...), codecs, Config{Rank: 2, Alpha: 3})
	require.NoError(t, err)
	d := Scaled(deltas(t, b, e)[0], 0.5).(LowRank)
	want := make([]float32, 63)
	require.NoError(t, d.AddRows(want, 0, 1))
	fb, fa, rank, scale, err := d.Factors()
	require.NoError(t, err)
	require.Equal(t, float32(0.75), scale)
	for i := range want {
		var dot float32
		for r := range rank {
			dot += fb[i/7*rank+r] * fa[r*7+i%7]
		}
		require.InDelta(t, want[i], scale*dot, 1e-6)
	}
	require.True(t, Scaled(d, 0).Zero())
}
