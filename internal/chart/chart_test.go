package chart

import (
	"bytes"
	"encoding/xml"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLines(t *testing.T) {
	raw := []Point{{1, 4}, {2, 3}, {3, math.NaN()}, {4, 2}}
	for _, series := range [][]Series{
		nil,
		{{"none", Strong, nil}},
		{{"raw", Faint, raw}, {"smooth", Strong, Smooth(raw[:2])}, {"eval", Dotted, []Point{{0, 5}}}, {"best", Ring, []Point{{0, 5}}}},
	} {
		b, err := Lines("Loss", "step", "nats", false, series...)
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, 960, img.Bounds().Dx())
		require.Equal(t, 600, img.Bounds().Dy())

		b, err = Lines("Loss", "step", "nats", true, series...)
		require.NoError(t, err)
		d := xml.NewDecoder(bytes.NewReader(b))
		for err == nil {
			_, err = d.Token()
		}
		require.Equal(t, io.EOF, err)
		for _, s := range series {
			require.Equal(t, len(s.Points) > 0, strings.Contains(string(b), ">"+s.Name+"<"), s.Name)
		}
	}
}

// Of a long series what stands out is drawn, and little else.
func TestThin(t *testing.T) {
	var long []Point
	for i := range 100_000 {
		long = append(long, Point{float64(i), float64(i % 7)})
	}
	long[0].Y, long[54_321].Y, long[77_777].Y, long[99_999].Y = 50, 100, -100, 60
	long[5].Y = math.Inf(1)
	got := thin(long, 800)
	require.LessOrEqual(t, len(got), 2*800+4)
	for _, p := range []Point{long[0], long[54_321], long[77_777], long[99_999]} {
		require.Contains(t, got, p)
	}
	for i := range got[1:] {
		require.LessOrEqual(t, got[i].X, got[i+1].X)
		require.False(t, math.IsInf(got[i].Y, 0))
	}
	require.Len(t, thin(long[:1000], 800), 999, "a short one is whole")
	require.Len(t, thin(make([]Point, 5000), 800), 5000, "as is one without an extent")
	require.Empty(t, thin(nil, 800))

	svg, err := Lines("Loss", "step", "nats", true, Series{"raw", Faint, long})
	require.NoError(t, err)
	require.Less(t, len(svg), 100_000)
}

// The ticks of a short axis far from zero end, and are apart from each other.
func TestTicks(t *testing.T) {
	for _, axis := range [][2]float64{
		{180.064, math.Nextafter(180.064, 200)}, {1, 1}, {0, 0}, {-3, -3}, {1e300, math.Nextafter(1e300, math.Inf(1))},
		{0, 10}, {1, 2}, {-0.5, 0.5}, {0, 1e-300}, {math.NaN(), 1}, {0, math.Inf(1)},
	} {
		got := ticks(axis[0], axis[1])
		require.LessOrEqual(t, len(got), 11, "%v", axis)
		for i := range got {
			require.True(t, axis[0] <= got[i].Value && got[i].Value <= axis[1], "%v", axis)
			require.True(t, i == 0 || got[i-1].Value < got[i].Value, "%v", axis)
		}
	}
	require.Len(t, ticks(0, 10), 11)
}

func TestSmooth(t *testing.T) {
	require.Empty(t, Smooth(nil))
	var flat, steps []Point
	for i := range 1000 {
		flat = append(flat, Point{float64(i), 2})
		steps = append(steps, Point{float64(i), float64(i / 500)})
	}
	for _, p := range Smooth(flat) {
		require.InDelta(t, 2, p.Y, 1e-12, "the average of a constant is the constant")
	}
	s := Smooth(steps)
	require.Equal(t, 0.0, s[499].Y)
	require.InDelta(t, 1.0/50, s[500].Y, 1e-3, "one of 500 counts for a fiftieth")
	require.InDelta(t, 1-math.Exp(-1), s[550].Y, 0.02)
	s = Smooth([]Point{{1, 0}, {2, 1}, {3, 5}})
	require.Equal(t, []Point{{1, 0}, {2, 0.5}, {3, 2}}, s, "at first it is the mean of all")
}
