package bnb

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

// Each weight has its own block size, and says so itself; what keeps its type is on the
// list of modules to skip.
func TestPlanBlockSizes(t *testing.T) {
	weight := func(name string, seed uint64) tensortest.Tensor {
		return tensortest.Normal(name, tensor.Shape{8, 64}, 1, seed)
	}
	src := tensortest.NewSource(t, nil, weight("m.a.weight", 1), weight("m.b.weight", 2), weight("m.c.weight", 3), weight("lm_head.weight", 4))
	o := Options{
		Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Head: "lm_head",
		Linear:     []string{"m.a.weight", "m.b.weight", "m.c.weight", "lm_head.weight"},
		BlockSizes: map[string]int{"m.b.weight": 256, "m.c.weight": 0},
	}
	p, account, err := Plan(src, codecs, o)
	require.NoError(t, err)
	require.NoError(t, p.Check(src, 0))
	require.Equal(t, []string{"lm_head", "m.c"}, account.skip)
	view, err := View(run(t, p, src), tensor.Invalid)
	require.NoError(t, err)
	for name, size := range map[string]int64{"m.a.weight": 64, "m.b.weight": 256} {
		h, err := nf4.Describe(view, name)
		require.NoError(t, err)
		require.Equal(t, size, h.BlockSize)
	}
	// The bytes are those of a plan with that size for all.
	alone := o
	alone.BlockSize, alone.BlockSizes = 256, nil
	q, _, err := Plan(src, codecs, alone)
	require.NoError(t, err)
	same, err := View(run(t, q, src), tensor.Invalid)
	require.NoError(t, err)
	require.Equal(t, tensortest.Bytes(t, same, "m.b.weight"), tensortest.Bytes(t, view, "m.b.weight"))
	require.Equal(t, tensortest.Bytes(t, src, "m.c.weight"), tensortest.Bytes(t, view, "m.c.weight"))

	o.BlockSizes = map[string]int{"m.b.weight": 48}
	_, _, err = Plan(src, codecs, o)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "m.b.weight")
}

// RoundTrip8 is what a file holds, to the bit.
func TestRoundTrip8(t *testing.T) {
	src := tensortest.NewSource(t, nil, tensortest.Normal("l.weight", tensor.Shape{9, 70}, 0.02, 5))
	p, _, err := Plan(src, codecs, Options{Type: tensor.INT8, Linear: []string{"l.weight"}})
	require.NoError(t, err)
	view, err := View(run(t, p, src), tensor.F32)
	require.NoError(t, err)
	_, want, err := codecs.ReadAll(view, "l.weight")
	require.NoError(t, err)
	x := tensortest.Floats(t, src, "l.weight")
	got := make([]float32, len(x))
	for at := 0; at < len(x); at += 70 {
		require.True(t, RoundTrip8(got[at:at+70], x[at:at+70]))
	}
	require.Equal(t, want, got)

	require.True(t, RoundTrip8(got[:4], make([]float32, 4)))
	require.Equal(t, make([]float32, 4), got[:4])
	for _, bad := range []float32{1e6, float32(math.Inf(1)), float32(math.NaN())} {
		require.False(t, RoundTrip8(got[:2], []float32{1, bad}))
	}
}
