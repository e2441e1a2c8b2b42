package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var names32 = [blocks32]string{Q4_0: "Q4_0", Q4_1: "Q4_1", Q5_0: "Q5_0", Q5_1: "Q5_1", Q8_0: "Q8_0", MXFP4: "MXFP4"}

// valuesOf32 returns blocks of every kind: of any size, ties, zeros of both signs,
// equal magnitudes, subnormal and huge values, any bits with infinities and NaN among
// them, and largest values just below a power of two.
func valuesOf32(rng *rand.Rand, x []float32) {
	for len(x) > 0 {
		part := x[:32]
		scale := float32(math.Ldexp(1, rng.IntN(276)-149))
		kind := rng.IntN(9)
		for i := range part {
			switch kind {
			case 0:
				part[i] = float32(rng.NormFloat64())
			case 1:
				part[i] = scale * float32(rng.IntN(33)-16) / 2
			case 2:
				part[i] = float32(math.Copysign(0, rng.Float64()-0.5))
			case 3:
				part[i] = float32(math.Copysign(float64(scale), rng.Float64()-0.5))
			case 4:
				part[i] = math.Float32frombits(rng.Uint32() & 0x80ffffff)
			case 5:
				part[i] = math.Float32frombits(rng.Uint32())
			case 6:
				part[i] = scale * (rng.Float32() - 0.5)
			case 7:
				part[i] = scale * rng.Float32() / 4
				if i == 0 {
					part[i] = math.Float32frombits(bitsOf(scale) - uint32(rng.IntN(80)))
				}
			case 8: // a little of anything
				part[i] = []float32{0, float32(math.Copysign(0, -1)), 1, -1, float32(rng.NormFloat64())}[rng.IntN(5)]
			}
		}
		x = x[32:]
	}
}

func TestEncode32Variants(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(32, 1))
		for f := range blocks32 {
			for round := range 150 {
				blocks := round % 50
				guarded(t, []int{4 * 32 * blocks, f.Bytes() * blocks}, func(b [][]byte) {
					x := floatsOf(b[0])
					valuesOf32(rng, x)
					want := make([]byte, len(b[1]))
					block32Go.encode32[f](want, x)
					Encode32(f, b[1], x)
					for i := range blocks {
						w, g := want[i*f.Bytes():][:f.Bytes()], b[1][i*f.Bytes():][:f.Bytes()]
						require.True(t, string(w) == string(g), "%s: block of %x is %x, want %x", names32[f], x[32*i:32*i+32], g, w)
					}
				})
			}
			require.Panics(t, func() { Encode32(f, make([]byte, 2*f.Bytes()-1), make([]float32, 64)) })
		}
	})
}

func TestRound8Variants(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(32, 2))
		for _, n := range lengths() {
			guarded(t, []int{4 * n, n}, func(b [][]byte) {
				x := floatsOf(b[0])
				for i := range x {
					x[i] = float32(rng.IntN(1019)-509) / 4
					x[i] = []float32{x[i], math.Nextafter32(x[i], -200), math.Nextafter32(x[i], 200)}[rng.IntN(3)]
				}
				for _, mul := range []float32{1, 0.99, -0.5, 0, float32(math.Inf(1)), float32(math.NaN())} {
					want := make([]byte, n)
					for i, v := range x {
						if r := math.Round(float64(v * mul)); math.Abs(r) < 129 {
							want[i] = byte(int8(r))
						}
					}
					Round8(b[1], x, mul)
					require.Equal(t, want, append([]byte{}, b[1]...), "%v", mul)
				}
			})
		}
	})
}

func TestRoundInt8(t *testing.T) {
	for x, want := range map[float32]int8{
		0: 0, 0.49999997: 0, 0.5: 1, -0.5: -1, 1.5: 2, 2.5: 3, -2.5: -3, 126.49999: 126, 127: 127, -127: -127,
		127.00001: 127, 1e-45: 0, -1e-45: 0, float32(math.Inf(1)): 0, float32(math.Inf(-1)): 0, float32(math.NaN()): 0,
	} {
		require.Equal(t, want, roundInt8(x), "%v", x)
	}
	for i := range 1 << 16 { // every tie and its neighbours
		x := float32(i-1<<15) / 256
		for _, v := range []float32{math.Nextafter32(x, -200), x, math.Nextafter32(x, 200)} {
			if math.Abs(float64(v)) <= 127 {
				require.Equal(t, int8(math.Round(float64(v))), roundInt8(v), "%v", v)
			}
		}
	}
}

// The rules as they are written down in ggml: the nearest value, of equally near ones the
// first, of those that do not overflow, and a logarithm rounded to float32.
func TestMXFP4(t *testing.T) {
	values := []float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
	nearest := func(x, unit float32) byte {
		best := byte(0)
		for c, v := range values {
			if math.Abs(float64(float32(v*unit)-x)) < math.Abs(float64(float32(values[best]*unit)-x)) {
				best = byte(c)
			}
		}
		return best
	}
	rng := rand.New(rand.NewPCG(32, 3))
	for range 20000 {
		e := rng.IntN(254) - 128
		x := float32(math.Ldexp(float64(rng.IntN(65)-32)/2, e))
		for _, v := range []float32{x, math.Nextafter32(x, 0), math.Nextafter32(x, x*2)} {
			if math.Abs(float64(v)) <= math.MaxFloat32 {
				unit := math.Ldexp(1, e)
				require.Equal(t, nearest(v, float32(unit)), codeE2M1(v, unit), "%v in units of %v", v, unit)
			}
		}
	}
	for exponent := range uint32(255) {
		for low := range uint32(100) {
			for _, bits := range []uint32{exponent<<23 | low, exponent<<23 | 0x7fffff - low} {
				x := math.Float32frombits(bits)
				if x > 0 {
					log := float32(math.Log2(float64(x)))
					require.Equal(t, byte(int(math.Floor(float64(log)))+125), scaleMXFP4(x), "%x", bits)
				}
			}
		}
	}
}

// FuzzEncode32 checks that all variants store the same bytes, whatever the values.
func FuzzEncode32(f *testing.F) {
	f.Add(make([]byte, 256))
	f.Add(slices.Repeat([]byte{0, 0, 0xc0, 0x7f, 1, 0, 0, 0x80}, 16))
	f.Add(slices.Repeat([]byte{0xff, 0xff, 0x7f, 0x3f, 0, 0, 0, 0x3e, 0, 0, 0x80, 0xbf}, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := make([]float32, len(b)/128*32)
		decodeF32Plain(x, b)
		for _, v := range variants() {
			with(t, v)
			for k := range blocks32 {
				want, got := make([]byte, len(x)/32*k.Bytes()), make([]byte, len(x)/32*k.Bytes())
				block32Go.encode32[k](want, x)
				Encode32(k, got, x)
				if string(want) != string(got) {
					t.Fatalf("%s, %s: %x, want %x", v.name, names32[k], got, want)
				}
			}
		}
	})
}

func BenchmarkEncode32(b *testing.B) {
	x := make([]float32, 1<<16)
	rng := rand.New(rand.NewPCG(32, 4))
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for f := range blocks32 {
		b.Run(fmt.Sprint(names32[f]), func(b *testing.B) {
			dst := make([]byte, len(x)/32*f.Bytes())
			benchVariants(b, 4*len(x), len(x), func() { Encode32(f, dst, x) })
		})
	}
}
