package chart

import (
	"bytes"
	"image/png"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLines(t *testing.T) {
	raw := []Point{{1, 4}, {2, 3}, {3, math.NaN()}, {4, 2}}
	for _, series := range [][]Series{
		nil,
		{{"none", Strong, nil}},
		{{"raw", Faint, raw}, {"smooth", Strong, Smooth(raw[:2], 0.9)}, {"eval", Dotted, []Point{{0, 5}}}},
	} {
		b, err := Lines("Loss", "step", "nats", series...)
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, 960, img.Bounds().Dx())
		require.Equal(t, 600, img.Bounds().Dy())
	}
}

func TestSmooth(t *testing.T) {
	require.Empty(t, Smooth(nil, 0.9))
	s := Smooth([]Point{{1, 2}, {2, 2}, {3, 2}}, 0.9)
	for _, p := range s {
		require.InDelta(t, 2, p.Y, 1e-12, "the average of a constant is the constant")
	}
	s = Smooth([]Point{{1, 0}, {2, 1}}, 0.5)
	require.InDelta(t, 2.0/3, s[1].Y, 1e-12)
}
