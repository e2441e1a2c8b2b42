package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// groupsOf returns groups of every kind: normal values, ties, zeros, all the same,
// tiny, subnormal and huge ones, and any bits that are a finite number.
func groupsOf(rng *rand.Rand, groups, size int) []float32 {
	x := make([]float32, groups*size)
	for g := range groups {
		kind := rng.IntN(9)
		scale := float32(math.Ldexp(rng.Float64()+0.5, rng.IntN(250)-130))
		for i := range size {
			v := float32(rng.NormFloat64())
			switch kind {
			case 1:
				v = float32(rng.IntN(17)-8) / 2
			case 2:
				v = float32(math.Copysign(0, rng.Float64()-0.5))
			case 3:
				v = scale
			case 4:
				v = -scale
			case 5:
				v *= scale
			case 6:
				v = float32(rng.IntN(99)-49) * math.SmallestNonzeroFloat32
			case 7:
				v *= 1e-15
			case 8:
				if v = math.Float32frombits(rng.Uint32()); abs32(v) > math.MaxFloat32 || v != v {
					v = 1
				}
			}
			x[g*size+i] = v
		}
	}
	return x
}

// weightsOf returns weights, or none, or many zeros.
func weightsOf(rng *rand.Rand, n int) []float32 {
	kind := rng.IntN(3)
	if kind == 0 {
		return nil
	}
	w := make([]float32, n)
	for i := range w {
		w[i] = rng.Float32()
		if kind == 2 && rng.IntN(2) == 0 {
			w[i] = 0
		}
	}
	return w
}

// requireSame compares what a search found with what plain Go finds. One NaN is as
// good as another.
func requireSame(t testing.TB, want, got []float32, msg ...any) {
	t.Helper()
	for i := range want {
		if want[i] != want[i] && got[i] != got[i] {
			continue
		}
		requireBits(t, want[i:i+1], got[i:i+1], append(msg, "group", i)...)
	}
}

// inGuarded calls f with x and weights at the ends of memory.
func inGuarded(t testing.TB, x, weights []float32, f func(x, weights []float32)) {
	guarded(t, []int{4 * len(x), 4 * len(weights)}, func(b [][]byte) {
		copy(floatsOf(b[0]), x)
		copy(floatsOf(b[1]), weights)
		if weights == nil {
			f(floatsOf(b[0]), nil)
		} else {
			f(floatsOf(b[0]), floatsOf(b[1]))
		}
	})
}

var fitSizes = []int{1, 8, 12, 16, 24, 32}

func TestFitSignedVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 62))
	eachVariant(t, func(t *testing.T) {
		for round := range 600 {
			groups, size, levels := rng.IntN(FitGroups+1), fitSizes[round%len(fitSizes)], []int{4, 8, 16, 32}[rng.IntN(4)]
			x, weights := groupsOf(rng, groups, size), weightsOf(rng, groups*size)
			var want, got Fit
			fitSignedGo(&want, x, weights, size, levels)
			inGuarded(t, x, weights, func(x, weights []float32) {
				FitSigned(&got, x, weights, size, levels)
				requireSame(t, want.Scale[:groups], got.Scale[:groups], "scale")
				requireSame(t, want.Inverse[:groups], got.Inverse[:groups], "inverse")
			})
		}
	})
}

func TestFitDescentVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(63, 64))
	eachVariant(t, func(t *testing.T) {
		for round := range 600 {
			groups, size, levels := rng.IntN(FitGroups+1), fitSizes[round%len(fitSizes)], []int{2, 4, 8}[rng.IntN(3)]
			x := groupsOf(rng, groups, size)
			var want, got Fit
			fitDescentGo(&want, x, size, levels)
			inGuarded(t, x, nil, func(x, _ []float32) {
				FitDescent(&got, x, size, levels)
				requireSame(t, want.Scale[:groups], got.Scale[:groups], "scale")
			})
		}
	})
}

func TestFitRangeVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(65, 66))
	eachVariant(t, func(t *testing.T) {
		for round := range 600 {
			groups, size := rng.IntN(FitGroups+1), fitSizes[round%len(fitSizes)]
			r := Range{
				Levels: []int{3, 15, 31}[rng.IntN(3)], First: -rng.Float32(), Step: 0.1, Steps: rng.IntN(37),
				Absolute: rng.IntN(2) == 0,
			}
			x, weights := groupsOf(rng, groups, size), weightsOf(rng, groups*size)
			var want, got Fit
			fitRangeGo(&want, x, weights, size, &r)
			inGuarded(t, x, weights, func(x, weights []float32) {
				FitRange(&got, x, weights, size, &r)
				requireSame(t, want.Scale[:groups], got.Scale[:groups], "scale", r)
				requireSame(t, want.Low[:groups], got.Low[:groups], "low", r)
				requireSame(t, want.Weight[:groups], got.Weight[:groups], "weight", r)
				requireSame(t, want.Inverse[:groups], got.Inverse[:groups], "inverse", r)
				requireSame(t, want.Origin[:groups], got.Origin[:groups], "origin", r)
			})
		}
	})
	require.Panics(t, func() { FitRange(new(Fit), make([]float32, 32), nil, 32, &Range{Levels: 3, Steps: fitTries}) })
	require.Panics(t, func() { FitRange(new(Fit), make([]float32, 33*32), nil, 33, &Range{Levels: 3}) })
	require.Panics(t, func() { FitSigned(new(Fit), make([]float32, 17*16), nil, 16, 4) })
	require.Panics(t, func() { FitSigned(new(Fit), make([]float32, 32), make([]float32, 31), 16, 4) })
}

// scalesOf returns scales of which some are zeros, of either sign, and some no
// number.
func scalesOf(rng *rand.Rand, n int) []float32 {
	list := make([]float32, n)
	for i := range list {
		list[i] = float32(math.Ldexp(rng.NormFloat64(), rng.IntN(40)-20))
		switch rng.IntN(12) {
		case 0:
			list[i] = 0
		case 1:
			list[i] = float32(math.Copysign(0, -1))
		case 2:
			list[i] = float32(math.Inf(1))
		case 3:
			list[i] = float32(math.NaN())
		}
	}
	return list
}

func TestRoundVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(67, 68))
	eachVariant(t, func(t *testing.T) {
		for round := range 600 {
			groups, size, levels := rng.IntN(FitGroups+1), fitSizes[round%len(fitSizes)], []int{3, 15, 31}[rng.IntN(3)]
			x, scales, lows := groupsOf(rng, groups, size), scalesOf(rng, groups), scalesOf(rng, groups)
			want, wantRange := make([]byte, len(x)), make([]byte, len(x))
			roundSignedGo(want, x, scales, size, levels+1)
			roundRangeGo(wantRange, x, scales, lows, size, levels)
			guarded(t, []int{len(x), 4 * len(x), 4 * groups, 4 * groups}, func(b [][]byte) {
				copy(floatsOf(b[1]), x)
				copy(floatsOf(b[2]), scales)
				copy(floatsOf(b[3]), lows)
				clear(b[0])
				RoundSigned(b[0], floatsOf(b[1]), floatsOf(b[2]), size, levels+1)
				require.Equal(t, want, append([]byte{}, b[0]...))
				clear(b[0])
				RoundRange(b[0], floatsOf(b[1]), floatsOf(b[2]), floatsOf(b[3]), size, levels)
				require.Equal(t, wantRange, append([]byte{}, b[0]...))
			})
		}
	})
}

func TestWeighVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(71, 72))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			x, importance, spread := groupsOf(rng, 1, n), groupsOf(rng, 1, n), rng.Float32()
			want := make([]float32, n)
			for i, v := range x {
				want[i] = importance[i] * float32(math.Sqrt(float64(spread+float32(v*v))))
			}
			guarded(t, []int{4 * n, 4 * n, 4 * n}, func(b [][]byte) {
				copy(floatsOf(b[1]), x)
				copy(floatsOf(b[2]), importance)
				Weigh(floatsOf(b[0]), floatsOf(b[1]), floatsOf(b[2]), spread)
				requireSame(t, want, floatsOf(b[0]))
			})
		}
	})
}

// The codes that a search chose are those its error was that of: no other scale that
// it tried, and no neighbour of the scale it found, does better for them.
func TestFitSignedIsBest(t *testing.T) {
	rng := rand.New(rand.NewPCG(69, 70))
	for range 200 {
		const size, levels = 32, 8
		x, codes := make([]float32, size), make([]byte, size)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		var f Fit
		FitSigned(&f, x, nil, size, levels)
		SignedCodes(codes, x, f.Inverse[0], levels)
		err := func(scale float64) (sum float64) {
			for i, v := range x {
				d := scale*float64(int(codes[i])-levels) - float64(v)
				sum += float64(v) * float64(v) * d * d
			}
			return sum
		}
		best := err(float64(f.Scale[0]))
		require.GreaterOrEqual(t, err(float64(f.Scale[0])*1.001), best)
		require.GreaterOrEqual(t, err(float64(f.Scale[0])*0.999), best)
	}
}

func TestNearest(t *testing.T) {
	for v, want := range map[float32]int32{
		0: 0, 0.5: 0, 1.5: 2, -0.5: 0, -1.5: -2, -2.5: -2, 3.4999998: 3, 4194303: 4194303, -4194303: -4194303,
		float32(math.NaN()): 0, float32(math.Inf(1)): -0x400000, 1e30: 0x49f2ca - 0x400000,
	} {
		require.Equal(t, want, nearest(v), "%v", v)
	}
}

// FuzzKquantVariants compares the searches of every variant with those of plain Go,
// bit by bit, on the float32 values that the input is.
func FuzzKquantVariants(f *testing.F) {
	seed := make([]byte, 4*512)
	fillBytes(rand.New(rand.NewPCG(1, 2)), seed)
	f.Add(seed, uint8(0))
	f.Add(make([]byte, 4*64), uint8(7))
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		size := 16 << (kind & 1)
		n := min(len(b)/4/size, FitGroups)
		x := make([]float32, n*size)
		decodeF32Plain(x, b)
		for i, v := range x {
			if !(abs32(v) <= math.MaxFloat32) {
				x[i] = 1
			}
		}
		r := Range{Levels: []int{3, 15, 31}[kind>>1%3], First: -0.9, Step: 0.05, Steps: 36, Absolute: kind&16 != 0}
		levels := 4 << (kind >> 5 & 3)
		run := func() (list []float32) {
			var f Fit
			FitSigned(&f, x, nil, size, levels)
			list = append(append(list, f.Scale[:n]...), f.Inverse[:n]...)
			FitDescent(&f, x, size, levels)
			list = append(list, f.Scale[:n]...)
			FitRange(&f, x, nil, size, &r)
			for _, part := range [][FitGroups]float32{f.Scale, f.Low, f.Weight, f.Inverse, f.Origin} {
				list = append(list, part[:n]...)
			}
			return list
		}
		with(t, &plain)
		want := run()
		for _, v := range variants() {
			with(t, v)
			requireSame(t, want, run(), v.name)
		}
	})
}

func BenchmarkFit(b *testing.B) {
	x := make([]float32, FitGroups*FitSize)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	var f Fit
	for _, c := range []struct {
		name string
		n    int
		run  func(x []float32)
	}{
		{"Signed", 256, func(x []float32) { FitSigned(&f, x, nil, 16, 32) }},
		{"Descent", 256, func(x []float32) { FitDescent(&f, x, 16, 4) }},
		{"Range", 512, func(x []float32) { FitRange(&f, x, nil, 32, &Range{Levels: 15, First: -1, Step: 0.1, Steps: 20}) }},
	} {
		b.Run(fmt.Sprint(c.name), func(b *testing.B) { benchVariants(b, 4*c.n, c.n, func() { c.run(x[:c.n]) }) })
	}
}
