package factors

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// What an adapter was added to differs from what it was by the adapter: the pair that is
// extracted spans it, whether the difference is in memory or read again and again, and
// whether the layer's weight is stored as it is or transposed.
func TestExtractSpansWhatWasAdded(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	for _, c := range []struct{ out, in, rank int }{{60, 40, 5}, {33, 200, 8}, {1, 50, 1}, {700, 800, 4}} {
		p := pair(rng, c.out, c.in, c.rank, 0.25)
		want := delta(p)
		w := noise(rng, c.out*c.in)
		tuned := make([]float32, len(w))
		for i, v := range w {
			tuned[i] = v + float32(want[i])
		}
		shape := tensor.Shape{int64(c.out), int64(c.in)}
		base, model := tensortest.NewSource(t, nil, tensortest.Float32("w", shape, w)), tensortest.NewSource(t, nil, tensortest.Float32("w", shape, tuned))
		var results []*Pair
		for _, room := range [][]float32{nil, make([]float32, len(w)+3)} {
			d, err := NewDifference(context.Background(), base, model, codecs, "w")
			require.NoError(t, err)
			energy, err := d.Energy(room)
			require.NoError(t, err)
			require.InEpsilon(t, norm(want), math.Sqrt(energy), 1e-5)
			got, spectrum, left, err := d.Extract(c.rank, 1)
			require.NoError(t, err)
			require.Less(t, apart(want, delta(got)), 1e-5)
			require.InEpsilon(t, norm(want), spectrum.Norm(), 1e-5)
			require.Less(t, math.Sqrt(left), 1e-5*norm(want))
			results = append(results, got)

			// Less rank leaves what it says.
			if c.rank > 1 {
				got, spectrum, left, err = d.Extract(c.rank-1, 1)
				require.NoError(t, err)
				require.InDelta(t, apart(want, delta(got)), spectrum.Left(c.rank-1, left+spectrum.squares(0)), 1e-5)
			}

			turned := results[0].Transposed()
			require.Equal(t, []int{c.in, c.out}, []int{turned.Out, turned.In})
			x, y := delta(results[0]), delta(turned)
			for i := range c.out {
				for j := range c.in {
					require.InDelta(t, x[i*c.in+j], y[j*c.out+i], 1e-6)
				}
			}
		}
		require.Equal(t, results[0], results[1], "memory changes nothing")
	}
}

func TestDifferenceRefuses(t *testing.T) {
	ctx := context.Background()
	of := func(shape tensor.Shape, values []float32) tensor.Source {
		return tensortest.NewSource(t, nil, tensortest.Float32("w", shape, values))
	}
	base := of(tensor.Shape{2, 2}, []float32{1, 2, 3, 4})
	_, err := NewDifference(ctx, base, of(tensor.Shape{4, 1}, []float32{1, 2, 3, 4}), codecs, "w")
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.Contains(t, hint.Of(err), "fine-tuned from this base")
	_, err = NewDifference(ctx, base, base, codecs, "v")
	require.ErrorIs(t, err, tensor.ErrNotFound)

	d, err := NewDifference(ctx, base, of(tensor.Shape{2, 2}, []float32{1, 2, 3, float32(math.NaN())}), codecs, "w")
	require.NoError(t, err)
	_, err = d.Energy(nil)
	require.ErrorContains(t, err, "element 3 of the difference is NaN")

	d, err = NewDifference(ctx, base, base, codecs, "w")
	require.NoError(t, err)
	energy, err := d.Energy(nil)
	require.NoError(t, err)
	require.Zero(t, energy)

	stopped, cancel := context.WithCancel(ctx)
	cancel()
	d, err = NewDifference(stopped, base, base, codecs, "w")
	require.NoError(t, err)
	_, _, _, err = d.Extract(1, 1)
	require.True(t, errors.Is(err, context.Canceled))
}
