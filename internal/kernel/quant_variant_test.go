package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// nf4Values and fp4Values are two tables of 4-bit codes: one in order, one not.
var nf4Values = [16]float32{
	-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
}

var fp4Values = [16]float32{
	0, 0.0625 / 12.0, 8.0 / 12.0, 1, 4.0 / 12.0, 6.0 / 12.0, 2.0 / 12.0, 3.0 / 12.0,
	0, -0.0625 / 12.0, -8.0 / 12.0, -1, -4.0 / 12.0, -6.0 / 12.0, -2.0 / 12.0, -3.0 / 12.0,
}

func fillBytes(rng *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

func requireBits(t testing.TB, want, got []float32, msg ...any) {
	t.Helper()
	for i := range want {
		if bitsOf(want[i]) != bitsOf(got[i]) {
			require.Fail(t, "bits differ", "element %d of %d: %v, want %v; %v", i, len(want), got[i], want[i], msg)
		}
	}
}

func TestDecode4Variants(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	eachVariant(t, func(t *testing.T) {
		for _, block := range []int{2, 18, 32, 48, 64, 128, 256} {
			for _, n := range lengths() {
				blocks := (n + block - 1) / block
				guarded(t, []int{4 * n, (n + 1) / 2, 4 * blocks}, func(b [][]byte) {
					fillBytes(rng, b[1])
					absmax := floatsOf(b[2])
					for i := range absmax {
						absmax[i] = float32(math.Ldexp(rng.Float64(), rng.IntN(300)-160))
					}
					want := make([]float32, n)
					for i := range want {
						want[i] = fp4Values[b[1][i/2]>>(4-4*(i%2))&15] * absmax[i/block]
					}
					got := floatsOf(b[0])
					Decode4(got, b[1], &fp4Values, absmax, block)
					requireBits(t, want, got, block)
				})
			}
		}
		require.Panics(t, func() { Decode4(make([]float32, 65), make([]byte, 32), &nf4Values, make([]float32, 2), 64) })
		require.Panics(t, func() { Decode4(make([]float32, 65), make([]byte, 33), &nf4Values, make([]float32, 1), 64) })
	})
}

// benchVariants runs a benchmark with every variant; bytes are those that a round
// goes through and elements what it makes.
func benchVariants(b *testing.B, bytes, elements int, f func()) {
	for _, v := range variants() {
		b.Run(v.name, func(b *testing.B) {
			with(b, v)
			b.SetBytes(int64(bytes))
			for b.Loop() {
				f()
			}
			b.ReportMetric(float64(elements)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
		})
	}
}

func BenchmarkDecode4(b *testing.B) {
	for _, n := range []int{4 << 10, 128 << 10, 16 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dst, codes, absmax := make([]float32, n), make([]byte, n/2), make([]float32, n/64)
			fillBytes(rand.New(rand.NewPCG(1, 2)), codes)
			benchVariants(b, 4*n, n, func() { Decode4(dst, codes, &nf4Values, absmax, 64) })
		})
	}
}

var (
	nf4Codebook = NewCodebook(nf4Values, [16]uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	fp4Codebook = NewCodebook(fp4Values, [16]uint8{11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3})
)

// blocksOf returns n elements in blocks of every kind: normal values, ties and what
// is next to them, zeros, tiny, subnormal and huge ones, and any bits that are a
// finite number.
func blocksOf(rng *rand.Rand, n, block int, c *Codebook) []float32 {
	x := make([]float32, n)
	for at := 0; at < n; at += block {
		part := x[at:min(n, at+block)]
		kind := rng.IntN(7)
		scale := float32(math.Ldexp(rng.Float64(), rng.IntN(200)-100))
		for i := range part {
			switch kind {
			case 0:
				part[i] = float32(rng.NormFloat64())
			case 1: // thresholds, once the block is divided by 1
				v := c.table.heap[1+rng.IntN(15)]
				part[i] = [3]float32{v, math.Nextafter32(v, -2), math.Nextafter32(v, 2)}[rng.IntN(3)]
				if i == 0 {
					part[i] = 1
				}
			case 2:
				part[i] = float32(math.Copysign(0, rng.Float64()-0.5))
			case 3:
				part[i] = math.Float32frombits(rng.Uint32() & 0x80ffffff) // below 1e-37
			case 4:
				part[i] = math.Float32frombits(rng.Uint32()&0x80ffffff | 0x7e000000)
			case 5:
				part[i] = scale * (2*rng.Float32() - 1)
			case 6:
				if part[i] = math.Float32frombits(rng.Uint32()); !(part[i] <= math.MaxFloat32 && part[i] >= -math.MaxFloat32) {
					part[i] = 1
				}
			}
		}
	}
	return x
}

// encodePlain is the rule as it is written down: the code of a value is the number
// of thresholds below it.
func encodePlain(x []float32, c *Codebook) (codes []byte, absmax float32) {
	for _, v := range x {
		absmax = max(absmax, float32(math.Abs(float64(v))))
	}
	inv := 1 / max(absmax, 1e-38)
	for i, v := range x {
		s := min(max(v*inv, -1), 1)
		rank := 0
		for rank < 15 && float32(c.table.ranked[rank]+c.table.ranked[rank+1])/2 < s {
			rank++
		}
		code := byte(c.table.codes[rank])
		if i%2 == 0 {
			codes = append(codes, code<<4)
		} else {
			codes[i/2] |= code
		}
	}
	return codes, absmax
}

func TestEncode4Variants(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, c := range []*Codebook{nf4Codebook, fp4Codebook} {
		for _, block := range []int{2, 16, 32, 64, 96, 128, 1024} {
			for _, blocks := range []int{0, 1, 2, 3, 9} {
				x := blocksOf(rng, blocks*block, block, c)
				codes, absmax, moments := make([]byte, blocks*block/2), make([]float32, blocks), make([]Moments4, blocks)
				require.Equal(t, blocks, encode4Go(codes, absmax, moments, x, block, c))
				for i := range blocks {
					want, top := encodePlain(x[i*block:(i+1)*block], c)
					require.Equal(t, want, codes[i*block/2:(i+1)*block/2])
					require.Equal(t, top, absmax[i])
				}
				eachVariant(t, func(t *testing.T) {
					guarded(t, []int{len(codes), 4 * blocks, 12 * blocks, 4 * len(x)}, func(b [][]byte) {
						in, sums := floatsOf(b[3]), make([]Moments4, blocks)
						copy(in, x)
						require.Equal(t, blocks, Encode4(b[0], floatsOf(b[1]), sums, in, block, c))
						require.Equal(t, codes, b[0][:len(codes):len(codes)])
						requireBits(t, absmax, floatsOf(b[1]))
						require.Equal(t, moments, sums)
					})
				})
			}
		}
	}
}

func TestGrid(t *testing.T) {
	require.True(t, nf4Codebook.table.grid)
	require.False(t, fp4Codebook.table.grid)
}

func TestEncode4NotFinite(t *testing.T) {
	const block, blocks = 64, 5
	eachVariant(t, func(t *testing.T) {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.Float32frombits(0xffffffff)} {
			for at := 0; at < blocks*block; at += 7 {
				x := make([]float32, blocks*block)
				x[at] = bad
				require.Equal(t, at/block, Encode4(make([]byte, len(x)/2), make([]float32, blocks), make([]Moments4, blocks), x, block, nf4Codebook))
				require.GreaterOrEqual(t, bitsOf(Absmax(x)), uint32(0x7f800000))
			}
		}
	})
}

func TestMoments4(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	x := make([]float32, 256)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	codes, absmax, m := make([]byte, len(x)/2), make([]float32, 1), make([]Moments4, 1)
	eachVariant(t, func(t *testing.T) {
		require.Equal(t, 1, Encode4(codes, absmax, m, x, len(x), nf4Codebook))
		var err, mixed, square float64
		for i, v := range x {
			s := float64(v / absmax[0])
			q := float64(nf4Values[codes[i/2]>>(4-4*(i%2))&15])
			err, mixed, square = err+(s-q)*(s-q), mixed+(s-q)*q, square+q*q
		}
		require.InEpsilon(t, err, m[0].Err, 1e-5)
		require.InDelta(t, mixed, m[0].Mixed, 1e-4)
		require.InEpsilon(t, square, m[0].Square, 1e-5)
	})
}

func TestEncode4Last(t *testing.T) {
	_, _, ok := Encode4Last(make([]byte, 2), []float32{1, 2, float32(math.NaN())}, nf4Codebook)
	require.False(t, ok)
	codes := make([]byte, 2)
	absmax, m, ok := Encode4Last(codes, []float32{1, -2, 0}, nf4Codebook)
	require.True(t, ok)
	require.EqualValues(t, 2, absmax)
	require.Equal(t, []byte{0xc0, 0x77}, codes)
	require.InDelta(t, 1+0.4407098*0.4407098, m.Square, 1e-6)
}

func TestAbsmaxVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{4 * n}, func(b [][]byte) {
				x := floatsOf(b[0])
				fillBytes(rng, b[0])
				require.Equal(t, bitsOf(magnitudeGo(x)), bitsOf(Absmax(x)))
				for i := range x {
					x[i] = float32(rng.NormFloat64())
				}
				require.Equal(t, bitsOf(magnitudeGo(x)), bitsOf(Absmax(x)))
			})
		}
	})
}

func BenchmarkEncode4(b *testing.B) {
	for _, n := range []int{4 << 10, 128 << 10, 16 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x, codes, absmax, moments := make([]float32, n), make([]byte, n/2), make([]float32, n/64), make([]Moments4, n/64)
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range x {
				x[i] = float32(rng.NormFloat64())
			}
			benchVariants(b, 4*n, n, func() { Encode4(codes, absmax, moments, x, 64, nf4Codebook) })
		})
	}
}
