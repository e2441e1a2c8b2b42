package chart

import (
	"bytes"
	"image/png"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMagnitudes(t *testing.T) {
	wide := []Bin{{1e-30, 1e-20, 1}, {1e-20, 1e20, 3}}
	for _, list := range [][]Distribution{
		nil,
		{{Name: "none"}},
		{{Name: "all", Bins: []Bin{{0.5, 1, 20}, {1, 2, 0}, {2, 4, 80}}}, {Name: "few", Minor: true, Bins: []Bin{{1, 2, 1e6}}}},
		{{Name: "wide", Bins: wide}, {Name: "a", Bins: wide}, {Name: "b", Bins: wide}, {Name: "c", Bins: wide}, {Name: "d", Bins: wide}, {Name: "e", Bins: wide}, {Name: "f", Bins: wide}},
	} {
		b, err := Magnitudes("Magnitudes", "magnitude", "%", list...)
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, 960, img.Bounds().Dx())
	}
}

func TestPowers(t *testing.T) {
	labels := func(low, high float64) (out []string) {
		for _, tick := range powers(low, high) {
			require.True(t, tick.Value >= low && tick.Value <= high)
			if tick.Label != "" {
				out = append(out, tick.Label)
			}
		}
		return out
	}
	require.Equal(t, []string{"1e-4", "0.001", "0.01", "0.1", "1", "10"}, labels(-4.5, 1.2))
	require.Equal(t, []string{"1000", "1e4"}, labels(3, 4))
	require.LessOrEqual(t, len(labels(-38, 38)), 13)
	require.Empty(t, labels(0.1, 0.2))
}
