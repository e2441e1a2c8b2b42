package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// elementCases are the loops over vectors: run changes slices of one length in place
// and may return sums.
var elementCases = []struct {
	name   string
	slices int
	exact  bool // in all variants
	run    func(l *elementLoops, s [][]float32) []float64
}{
	{"add", 2, true, func(l *elementLoops, s [][]float32) []float64 { l.add(s[0], s[1]); return nil }},
	{"addScaled", 2, true, func(l *elementLoops, s [][]float32) []float64 { l.addScaled(s[0], 0.3, s[1]); return nil }},
	{"scale", 1, true, func(l *elementLoops, s [][]float32) []float64 { l.scale(s[0], -0.7); return nil }},
	{"adamW", 4, true, func(l *elementLoops, s [][]float32) []float64 {
		for i, v := range s[2] {
			s[2][i] = v * v
		}
		c := AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Step: 3}.constants()
		l.adamW(s[0], s[1], s[2], s[3], &c)
		return nil
	}},
	{"dot", 2, false, func(l *elementLoops, s [][]float32) []float64 { return []float64{float64(l.dot(s[0], s[1]))} }},
	{"max", 1, true, func(l *elementLoops, s [][]float32) []float64 { return []float64{float64(l.max(s[0]))} }},
	{"sum", 1, false, func(l *elementLoops, s [][]float32) []float64 { return []float64{l.sum(s[0])} }},
	{"sumSquares", 1, false, func(l *elementLoops, s [][]float32) []float64 {
		return []float64{l.sumSquares(s[0], 0), l.sumSquares(s[0], 0.7)}
	}},
	{"norm", 3, false, func(l *elementLoops, s [][]float32) []float64 { l.norm(s[0], s[1], s[2], 0.8, 1); return nil }},
	{"normBias", 4, false, func(l *elementLoops, s [][]float32) []float64 {
		l.normBias(s[0], s[1], s[2], s[3], 0.1, 0.8, 1)
		return nil
	}},
	{"normDots", 3, false, func(l *elementLoops, s [][]float32) []float64 {
		dot, sum := l.normDots(s[0], s[1], s[2], 0.1, 1)
		return []float64{dot, sum}
	}},
	{"normGrad", 4, false, func(l *elementLoops, s [][]float32) []float64 {
		l.normGrad(s[0], s[1], s[2], s[3], 0.1, 0.8, 1, 0.3, 0.2)
		return nil
	}},
	{"normWeight", 3, false, func(l *elementLoops, s [][]float32) []float64 {
		l.normWeight(s[0], s[1], s[2], 0.1, 0.8)
		return nil
	}},
	{"expSum", 2, false, func(l *elementLoops, s [][]float32) []float64 { return []float64{l.expSum(s[0], s[1], 0.5)} }},
	{"expSum in place", 1, false, func(l *elementLoops, s [][]float32) []float64 { return []float64{l.expSum(s[0], s[0], 0.5)} }},
	{"sumExp", 1, false, func(l *elementLoops, s [][]float32) []float64 { return []float64{l.sumExp(s[0], 0.5)} }},
	{"expScale", 1, false, func(l *elementLoops, s [][]float32) []float64 { l.expScale(s[0], 0.5, 1e-8, 0.1); return nil }},
	{"softCap", 1, false, func(l *elementLoops, s [][]float32) []float64 { l.softCap(s[0], 1.5); return nil }},
	{"softCapGrad", 2, false, func(l *elementLoops, s [][]float32) []float64 { l.softCapGrad(s[0], s[1], 1.5); return nil }},
	activationCase("SiLU", SiLU), activationCase("GELUTanh", GELUTanh), activationCase("GELU", GELU),
}

type elementCase = struct {
	name   string
	slices int
	exact  bool
	run    func(l *elementLoops, s [][]float32) []float64
}

// activationCase has all loops of an activation, in place where they may be.
func activationCase(name string, a Activation) elementCase {
	return elementCase{name, 9, false, func(l *elementLoops, s [][]float32) []float64 {
		f := l.act[a]
		f.apply(s[0], s[1])
		f.grad(s[2], s[2], s[1])
		f.gated(s[3], s[1], s[4])
		f.gatedGrad(s[5], s[6], s[6], s[1], s[4])
		f.gatedGrad(s[7], s[4], s[8], s[7], s[4])
		return nil
	}}
}

// sameElements fails where the variant in use and plain Go differ by more than tol of
// the largest magnitude; got are slices to work in, of which the contents are what is
// worked on.
func sameElements(t *testing.T, c elementCase, got [][]float32, tol float64) {
	var want [][]float32
	for _, s := range got {
		want = append(want, append([]float32{}, s...))
	}
	ws, gs := c.run(&elementGo, want), c.run(&use.elementLoops, got)
	check := func(w, g, size float64, what string) {
		same := w == g || math.IsNaN(w) && math.IsNaN(g)
		if !same && !c.exact {
			same = math.Abs(w-g) <= tol*max(math.Abs(w), size)
		}
		if !same {
			t.Fatalf("%s %s of %d: %s is %v, not %v", use.name, c.name, len(want[0]), what, g, w)
		}
	}
	for i, s := range want {
		for j, w := range s {
			check(float64(w), float64(got[i][j]), 1, fmt.Sprintf("slice %d at %d", i, j))
		}
	}
	for i, w := range ws {
		check(w, gs[i], float64(len(want[0])), fmt.Sprintf("sum %d", i))
	}
}

func TestElementLengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	eachVariant(t, func(t *testing.T) {
		for _, c := range elementCases {
			for _, n := range lengths() {
				sizes := make([]int, c.slices)
				for i := range sizes {
					sizes[i] = 4 * n
				}
				guarded(t, sizes, func(b [][]byte) {
					var s [][]float32
					for i := range b {
						s = append(s, floatsOf(b[i]))
						copy(s[i], normal(rng, n))
					}
					if n > 0 || c.name != "adamW" {
						sameElements(t, c, s, 3e-6)
					}
				})
			}
		}
	})
}

// TestElementsUnaligned begins at each place within a vector, with other numbers
// around that must stay.
func TestElementsUnaligned(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	eachVariant(t, func(t *testing.T) {
		for _, c := range elementCases {
			for off := range 17 {
				n := 100 + off
				var all, s [][]float32
				for i := range c.slices {
					all = append(all, normal(rng, n+40))
					at := (off + 5*i) % 17
					all[i][at], all[i][at+n+1] = 12345, 54321
					s = append(s, all[i][at+1:at+1+n])
				}
				sameElements(t, c, s, 3e-6)
				for i := range all {
					at := (off + 5*i) % 17
					require.Equal(t, float32(12345), all[i][at])
					require.Equal(t, float32(54321), all[i][at+n+1])
				}
			}
		}
	})
}

func TestRotationVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	eachVariant(t, func(t *testing.T) {
		for half := range 40 {
			for _, rest := range []int{0, 3} {
				for _, heads := range []int{1, 3} {
					dim := 2*half + rest
					guarded(t, []int{4 * heads * dim, 8 * half, 8 * half}, func(b [][]byte) {
						x, cos, sin := floatsOf(b[0]), floatsOf(b[1]), floatsOf(b[2])
						copy(cos, normal(rng, 2*half))
						copy(sin, normal(rng, 2*half))
						for i := 0; i < 2*half; i += 2 {
							cos[i+1], sin[i+1] = cos[i], sin[i]
						}
						for _, f := range []func(l *elementLoops, x []float32){
							func(l *elementLoops, x []float32) { l.rotateHalves(x, cos[:half], sin[:half], heads, dim, -1) },
							func(l *elementLoops, x []float32) { l.rotatePairs(x, cos, sin, heads, dim, -1) },
						} {
							copy(x, normal(rng, heads*dim))
							want := append([]float32(nil), x...)
							f(&elementGo, want)
							f(&use.elementLoops, x)
							for i := range want {
								require.InDelta(t, want[i], x[i], 1e-5, "half %d", half)
							}
						}
					})
				}
			}
		}
	})
}

// ulps is the distance of a float32 from what it should be, in units of its last place.
func ulps(want float64, got float32) float64 {
	unit := math.Abs(float64(math.Nextafter32(float32(want), float32(math.Inf(1)))) - float64(float32(want)))
	return math.Abs(want-float64(got)) / unit
}

func TestExpVariants(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		var x []float32
		for v := float32(-87.33); v < 88.72; v += 0.00037 {
			x = append(x, v)
		}
		for e := float32(1e-30); e < 1; e *= 1.5 {
			x = append(x, e, -e)
		}
		y := make([]float32, len(x))
		use.expSum(y, x, 0)
		var worst float64
		for i, v := range x {
			worst = max(worst, ulps(math.Exp(float64(v)), y[i]))
		}
		t.Logf("%.3f units in the last place", worst)
		require.Less(t, worst, 1.1)
		inf := float32(math.Inf(1))
		x = []float32{0, float32(math.Copysign(0, -1)), -1000, -inf, -3e38, 89, 1000, inf, 3e38, -87.34, -100, -104, float32(math.NaN())}
		for range 3 { // in whole vectors and in the tail
			x = append(x, x...)
		}
		x = x[:len(x)-1]
		y = make([]float32, len(x))
		use.expSum(y, x, 0)
		for i, v := range x {
			if v != v {
				require.True(t, y[i] != y[i])
				continue
			}
			require.Equal(t, Exp(v), y[i], "%v", v)
		}
	})
}

func TestSoftCapVariants(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		var x []float32
		for v := float32(-30); v < 30; v += 0.00031 {
			x = append(x, v)
		}
		for e := float32(1e-37); e < 1e6; e *= 1.5 {
			x = append(x, e, -e)
		}
		x = append(x, 0, float32(math.Inf(1)), float32(math.Inf(-1)))
		y := append([]float32(nil), x...)
		use.softCap(y, 1)
		var worst float64
		for i, v := range x {
			worst = max(worst, ulps(math.Tanh(float64(v)), y[i]))
		}
		t.Logf("%.3f units in the last place", worst)
		require.Less(t, worst, 3.0)
		z := []float32{float32(math.NaN())}
		use.softCap(z, 30)
		require.True(t, z[0] != z[0])
	})
}

func TestGELUVariants(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		var x []float32
		for v := float32(-13); v < 13; v += 0.00023 {
			x = append(x, v)
		}
		for e := float32(1e-30); e < 1; e *= 1.5 {
			x = append(x, e, -e)
		}
		y, d, one := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
		for i := range one {
			one[i] = 1
		}
		use.act[GELU].apply(y, x)
		use.act[GELU].grad(d, one, x)
		var worst, slope float64
		for i, v := range x {
			v := float64(v)
			phi := math.Erfc(-v/math.Sqrt2) / 2
			worst = max(worst, ulps(v*phi, y[i]))
			slope = max(slope, math.Abs(phi+v*math.Exp(-v*v/2)/math.Sqrt(2*math.Pi)-float64(d[i])))
		}
		t.Logf("%.3f units in the last place, slope to %g", worst, slope)
		require.Less(t, worst, 6.0)
		require.Less(t, slope, 3e-7)
		for _, v := range []float32{14, 30, 1e10, 3e38, float32(math.Inf(1))} {
			x := []float32{v, -v}
			use.act[GELU].apply(x, x)
			require.Equal(t, v, x[0])
			require.True(t, v > 3e38 || math.Abs(float64(x[1])) < 1e-37, "%v: %v", v, x)
		}
	})
}

// TestActivationErrors compares with float64 over the range where results are not 0.
func TestActivationErrors(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, a := range []Activation{SiLU, GELUTanh} {
			var x []float32
			for v := float32(-85); v < 85; v += 0.0017 {
				x = append(x, v)
			}
			for e := float32(1e-30); e < 1; e *= 1.5 {
				x = append(x, e, -e)
			}
			y, d, one := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
			for i := range one {
				one[i] = 1
			}
			use.act[a].apply(y, x)
			use.act[a].grad(d, one, x)
			var worst, relative, slope float64
			for i, v := range x {
				v := float64(v)
				u, du := v, 1.0
				if a == GELUTanh {
					u, du = geluScale*(v+geluCube*v*v*v), geluScale*(1+3*geluCube*v*v)
				}
				s := 1 / (1 + math.Exp(-u))
				worst = max(worst, math.Abs(v*s-float64(y[i]))/math.Abs(v))
				if s > 1e-30 {
					relative = max(relative, math.Abs(v*s-float64(y[i]))/math.Abs(v*s))
				}
				slope = max(slope, math.Abs(s+v*s*(1-s)*du-float64(d[i])))
			}
			t.Logf("%d: %.3g of x, %.3g of the value, slope to %.3g", a, worst, relative, slope)
			require.Less(t, worst, 2e-7)
			require.Less(t, slope, 3e-6)
			if a == SiLU {
				require.Less(t, relative, 4e-7)
			}
		}
	})
}

func TestMaxVariants(t *testing.T) {
	nan, low := float32(math.NaN()), float32(math.Inf(-1))
	eachVariant(t, func(t *testing.T) {
		require.Equal(t, low, use.max(nil))
		for _, n := range []int{1, 7, 16, 33, 64, 100, 129} {
			x := make([]float32, n)
			for i := range x {
				x[i] = low
			}
			require.Equal(t, low, use.max(x))
			for i := range x {
				x[i] = -5
				require.Equal(t, float32(-5), use.max(x))
				x[i] = nan
				require.True(t, use.max(x) != use.max(x), "%d of %d", i, n)
				x[i] = low
			}
		}
	})
}

// TestSums compares with float64 within the bounds that the comments state.
func TestSums(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	eachVariant(t, func(t *testing.T) {
		for _, n := range []int{3, 1000, 100000} {
			x, y := normal(rng, n), normal(rng, n)
			var dot, size, sum, squares, exps float64
			for i, v := range x {
				dot += float64(v) * float64(y[i])
				size += math.Abs(float64(v) * float64(y[i]))
				sum += float64(v)
				squares += float64(v) * float64(v)
				exps += math.Exp(float64(v))
			}
			require.InDelta(t, dot, float64(Dot(x, y)), size*float64(n/4+4)*0x1p-24)
			require.InDelta(t, dot, float64(Dot(x, y)), size*1e-5, "in practice")
			require.InDelta(t, sum, use.sum(x), size*1e-12)
			require.InEpsilon(t, squares, SumSquares(x), 1e-12)
			require.InEpsilon(t, exps, use.sumExp(x, 0), sumGroup*0x1p-24)
			require.InEpsilon(t, exps, use.sumExp(x, 0), 1e-6, "in practice")
		}
	})
}

// TestElementWorkers has the parallel ones give the same bits with any number of
// workers.
func TestElementWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	const m, h = 300, 700
	x, dy, w, b := normal(rng, m*h), normal(rng, m*h), normal(rng, h), normal(rng, h)
	eachVariant(t, func(t *testing.T) {
		withWorkers(t, func() []float32 {
			out := make([]float32, 3*m*h+3*h+1)
			y, dx, z := out[:m*h], out[m*h:2*m*h], out[2*m*h:3*m*h]
			dw, db, sums := out[3*m*h:][:h], out[3*m*h+h:][:h], out[3*m*h+2*h:][:h]
			n := Norm{W: w, B: b, Eps: 1e-5}
			n.Forward(y, x, m)
			n.Grad(dx, dw, db, dy, x, m)
			SumRows(sums, dy, m)
			AddRow(y, b, m)
			SiLU.Gated(z, x, dy)
			SoftCap(z, 3)
			out[len(out)-1] = float32(SumSquares(dx))
			return out
		})
	})
}

// FuzzElementVariants compares every variant with plain Go on arbitrary bits:
// conversions bit for bit, the loops over vectors as far as their sums allow.
func FuzzElementVariants(f *testing.F) {
	f.Add([]byte{}, uint16(1))
	f.Add(make([]byte, 400), uint16(3))
	f.Add([]byte{0, 0, 0x80, 0x7f, 1, 0, 0x80, 0x7f, 0xff, 0xff, 0x7f, 0x33, 0, 0x38, 0, 0x38}, uint16(77))
	rng := rand.New(rand.NewPCG(17, 18))
	var b []byte
	for _, v := range normal(rng, 300) {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	f.Add(b, uint16(5))
	f.Fuzz(func(t *testing.T, data []byte, seed uint16) {
		for _, v := range variants() {
			old := use
			use = v
			for c := range conversions {
				sameConversion(t, c, data)
			}
			// Numbers of moderate size: of others, sums overflow or cancel in an order of
			// their own.
			x := make([]float32, len(data)/4)
			for i := range x {
				w := binary.LittleEndian.Uint32(data[4*i:])
				x[i] = float32(int32(w)) * 0x1p-29
				if w%5 == 0 {
					x[i] = 0
				}
			}
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			for _, c := range elementCases {
				if len(x) == 0 {
					break
				}
				s := [][]float32{append([]float32{}, x...)}
				for range c.slices - 1 {
					s = append(s, normal(rng, len(x)))
				}
				sameElements(t, c, s, 1e-4)
			}
			use = old
		}
	})
}

// BenchmarkElement has the elements per second of each loop, in the first-level cache.
func BenchmarkElement(b *testing.B) {
	const n = 1024
	rng := rand.New(rand.NewPCG(19, 20))
	x := normal(rng, n)
	for _, c := range elementCases {
		if c.slices == 9 {
			continue
		}
		s := make([][]float32, c.slices)
		for i := range s {
			s[i] = append([]float32(nil), x...)
		}
		benchElement(b, c.name, n, func(l *elementLoops) { c.run(l, s); copy(s[0], x) })
	}
	y, z := make([]float32, n), make([]float32, n)
	for a, name := range []string{"SiLU", "GELUTanh", "GELU"} {
		benchElement(b, name+"/gated", n, func(l *elementLoops) { l.act[a].gated(y, x, x) })
		benchElement(b, name+"/gatedGrad", n, func(l *elementLoops) { l.act[a].gatedGrad(y, z, x, x, x) })
	}
	cos, sin := make([]float32, 64), make([]float32, 64)
	for i := range cos {
		cos[i], sin[i] = 0.6, 0.8
	}
	benchElement(b, "rotateHalves", n, func(l *elementLoops) { l.rotateHalves(y, cos, sin, n/128, 128, 1) })
	benchElement(b, "rotatePairs", n, func(l *elementLoops) { l.rotatePairs(y, cos, sin, n/64, 64, 1) })
}

func benchElement(b *testing.B, name string, n int, f func(l *elementLoops)) {
	for _, v := range variants() {
		b.Run(name+"/"+v.name, func(b *testing.B) {
			for b.Loop() {
				f(&v.elementLoops)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
