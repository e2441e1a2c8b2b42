package distortion

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// normal returns values of a normal distribution and what a coarse grid of 2*levels+1
// values for each block of 64 makes of them.
func normal(seed uint64, n, levels int) (x, y []float32) {
	r := rand.New(rand.NewPCG(seed, 1))
	x, y = make([]float32, n), make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * 0.02)
	}
	for at := 0; at < n; at += 64 {
		b := x[at:min(n, at+64)]
		var top float64
		for _, v := range b {
			top = max(top, math.Abs(float64(v)))
		}
		for i, v := range b {
			y[at+i] = float32(math.Round(float64(v)/top*float64(levels)) / float64(levels) * top)
		}
	}
	return x, y
}

// Against definitions written down plainly.
func TestFigures(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 1000, 4096} {
		x, y := normal(uint64(n), n, 7)
		m := NewMeter(0)
		m.Add(x, y)
		f := m.Figures()
		var square, err, top, worst float64
		worstAt, blocks := int64(-1), int64(0)
		for at := 0; at < n; at += 64 {
			var s, e float64
			for i := at; i < min(n, at+64); i++ {
				d := float64(x[i]) - float64(y[i])
				s += float64(x[i]) * float64(x[i])
				e += d * d
				top = max(top, math.Abs(d))
			}
			square, err = square+s, err+e
			if rel := math.Sqrt(e / s); rel > worst*(1+1e-12) {
				worst, worstAt = rel, blocks
			}
			blocks++
		}
		require.Equal(t, int64(n), f.Values)
		require.Equal(t, blocks, f.Blocks)
		require.InEpsilon(t, square, f.Square, 1e-12)
		require.InDelta(t, err, f.Error, 1e-12*square)
		require.Equal(t, top, f.MaxAbs)
		require.Equal(t, worstAt, f.WorstBlock)
		require.InDelta(t, worst, f.WorstRelRMS, 1e-12)
		require.InDelta(t, math.Sqrt(err/square), f.RelRMS(), 1e-12)
		if err > 0 {
			require.InDelta(t, -20*math.Log10(f.RelRMS()), f.SNR(), 1e-9)
		}
		require.Zero(t, f.Clipped, "the grid reaches the largest of each block")
		require.Zero(t, f.ZeroBlocks+f.EmptyBlocks+f.NonFinite+f.MadeNonFinite)
	}
}

// The cuts between panels do not show in a single bit.
func TestPanelsDoNotMatter(t *testing.T) {
	x, y := normal(9, 5000, 3)
	x[100], y[200], x[3000], y[3000] = float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0
	for _, block := range []int{1, 32, 64, 256, 8192} {
		whole := NewMeter(block)
		whole.Add(x, y)
		want := whole.Figures()
		r := rand.New(rand.NewPCG(uint64(block), 3))
		for range 20 {
			m := NewMeter(block)
			for at := 0; at < len(x); {
				n := min(r.IntN(400), len(x)-at)
				m.Add(x[at:at+n], y[at:at+n])
				at += n
			}
			require.Equal(t, want, m.Figures())
		}
		require.Equal(t, int64(2), want.NonFinite)
		require.Equal(t, int64(1), want.MadeNonFinite)
		require.Equal(t, int64(len(x)-3), want.Values)
		require.False(t, math.IsNaN(want.Error+want.Square+want.MaxAbs+want.WorstRelRMS))
	}
}

func TestBlocksOfZeros(t *testing.T) {
	x, y := make([]float32, 4*64), make([]float32, 4*64)
	x[10] = 1e-6             // block 0 is lost
	x[130], y[130] = 1, 0.75 // block 2; 1 and 3 are empty
	y[200] = 0.5             // and in 3 something came of nothing
	m := NewMeter(64)
	m.Add(x, y)
	f := m.Figures()
	require.Equal(t, int64(1), f.ZeroBlocks)
	require.Equal(t, int64(2), f.EmptyBlocks)
	require.Equal(t, int64(0), f.WorstBlock)
	require.Equal(t, 1.0, f.WorstRelRMS)
	require.Equal(t, 0.5, f.MaxAbs)
	require.Equal(t, int64(1), f.Clipped)
}

func TestClipped(t *testing.T) {
	levels := func(scale float32, low, high float64, x []float32) []float32 {
		y := make([]float32, len(x))
		for i, v := range x {
			y[i] = scale * float32(min(max(math.Round(float64(v/scale)), low), high))
		}
		return y
	}
	ramp := make([]float32, 64)
	for i := range ramp {
		ramp[i] = float32(i-32) / 32 // from -1 to 31/32
	}
	for _, c := range []struct {
		name  string
		scale float32
		low   float64
		high  float64
		want  int64
	}{
		{"all within", 1.0 / 8, -8, 8, 0},
		{"a quarter of a step beyond the last level is rounding", 0.97 / 8, -8, 8, 0},
		{"a grid for three quarters", 3.0 / 4 / 8, -8, 8, 7 + 6},
		{"half of it", 1.0 / 8, -4, 4, 13 + 14},
		{"a scale that was rounded", (1 - 1.0/600) / 8, -8, 8, 0},
	} {
		m := NewMeter(64)
		m.Add(ramp, levels(c.scale, c.low, c.high, ramp))
		f := m.Figures()
		require.Equal(t, c.want, f.Clipped, c.name)
	}
}

// Rounding to bfloat16 clips nothing, whatever the values.
func TestFloatsAreNotClipped(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	m := NewMeter(1)
	for range 1000 {
		x, y := make([]float32, 64), make([]float32, 64)
		for i := range x {
			x[i] = float32(math.Exp(5*r.NormFloat64()) * r.NormFloat64())
			b := math.Float32bits(x[i])
			y[i] = math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
		}
		m.Add(x, y)
	}
	f := m.Figures()
	require.Zero(t, f.Clipped)
	require.Less(t, f.RelRMS(), 1.0/256)
	require.Greater(t, f.RelRMS(), 1.0/4096)
}

func TestAdd(t *testing.T) {
	x, y := normal(1, 640, 7)
	var total Figures
	for _, part := range [][2]int{{0, 128}, {128, 640}} {
		m := NewMeter(64)
		m.Add(x[part[0]:part[1]], y[part[0]:part[1]])
		f := m.Figures()
		total.Add(&f)
	}
	m := NewMeter(64)
	m.Add(x, y)
	all := m.Figures()
	require.InEpsilon(t, all.RelRMS(), total.RelRMS(), 1e-12)
	require.Equal(t, all.Blocks, total.Blocks)
	require.Equal(t, all.WorstRelRMS, total.WorstRelRMS)
	require.Equal(t, all.MaxAbs, total.MaxAbs)
	require.Zero(t, (&Figures{}).RelRMS())
	require.True(t, math.IsInf((&Figures{}).SNR(), 1))
	require.True(t, math.IsInf((&Figures{Error: 1}).RelRMS(), 1))
}

func BenchmarkMeter(b *testing.B) {
	for _, block := range []int{32, 64, 256} {
		b.Run(fmt.Sprint(block), func(b *testing.B) {
			x, y := normal(1, 1<<18, 7)
			b.SetBytes(int64(len(x)))
			for b.Loop() {
				m := NewMeter(block)
				m.Add(x, y)
			}
		})
	}
}

func TestWeighted(t *testing.T) {
	x, y := normal(3, 256, 7)
	ones := make([]float32, 64)
	for i := range ones {
		ones[i] = 1
	}
	m := NewMeter(64)
	m.Add(x, y)
	f := m.Figures()
	square, err := Weighted(x, y, ones)
	require.InEpsilon(t, f.Square, square, 1e-12)
	require.InEpsilon(t, f.Error, err, 1e-12)
	one := make([]float32, 64)
	one[5] = 3
	var s, e float64
	for r := range 4 {
		d := float64(x[64*r+5]) - float64(y[64*r+5])
		s, e = s+3*float64(x[64*r+5])*float64(x[64*r+5]), e+3*d*d
	}
	square, err = Weighted(x, y, one)
	require.InEpsilon(t, s, square, 1e-12)
	require.InEpsilon(t, e, err, 1e-12)
}
