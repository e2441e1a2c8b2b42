package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// map8 is like bitsandbytes' dynamic map: finer towards zero.
func map8() *Map8 {
	var values [256]float32
	for i := range 127 {
		v := float32(math.Exp(-float64(126-i) / 12))
		values[128+i], values[126-i] = 0.99*v, -0.99*v
	}
	values[255] = 1
	return NewMap8(values)
}

func TestEncodeMap8Variants(t *testing.T) {
	m := map8()
	require.True(t, slices.IsSorted(m.Values[:]))
	var bounds []float32
	for i, v := range m.Values[:255] {
		bounds = append(bounds, float32(v+m.Values[i+1])/2)
	}
	rng := rand.New(rand.NewPCG(41, 42))
	value := func() float32 {
		switch b := bounds[rng.IntN(255)]; rng.IntN(6) {
		case 0:
			return b
		case 1:
			return math.Nextafter32(b, -2)
		case 2:
			return math.Nextafter32(b, 2)
		case 3:
			return math.Float32frombits(rng.Uint32()) // anything
		case 4:
			return m.Values[rng.IntN(256)]
		default:
			return 2*rng.Float32() - 1
		}
	}
	eachVariant(t, func(t *testing.T) {
		for _, mul := range []float32{1, -0.7, 1e30, 1e-40} {
			for _, n := range lengths() {
				guarded(t, []int{n, 4 * n}, func(b [][]byte) {
					x := floatsOf(b[1])
					for i := range x {
						x[i] = value()
					}
					Encode8(b[0], x, m, mul)
					for i, v := range x {
						want := 0
						for want < 255 && bounds[want] < v*mul {
							want++
						}
						if want != int(b[0][i]) {
							require.Equal(t, want, int(b[0][i]), "%v * %v", v, mul)
						}
					}
				})
			}
		}
		require.Panics(t, func() { Encode8(make([]byte, 15), make([]float32, 16), m, 1) })
	})
}

func TestDecodeMap8Variants(t *testing.T) {
	m := map8()
	rng := rand.New(rand.NewPCG(43, 44))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{4 * n, n}, func(b [][]byte) {
				fillBytes(rng, b[1])
				scale := float32(rng.NormFloat64())
				Decode8(floatsOf(b[0]), b[1], &m.Values, scale)
				want := make([]float32, n)
				for i, c := range b[1] {
					want[i] = m.Values[c] * scale
				}
				requireBits(t, want, floatsOf(b[0]))
			})
		}
		require.Panics(t, func() { Decode8(make([]float32, 16), make([]byte, 15), &m.Values, 1) })
	})
}

func BenchmarkEncode8(b *testing.B) {
	const n = 4096
	m, x, codes := map8(), normals(rand.New(rand.NewPCG(1, 2)), make([]float32, n)), make([]byte, n)
	benchVariants(b, 4*n, n, func() { Encode8(codes, x, m, 0.3) })
}

func BenchmarkDecode8(b *testing.B) {
	const n = 4096
	m, x, codes := map8(), make([]float32, n), make([]byte, n)
	fillBytes(rand.New(rand.NewPCG(1, 2)), codes)
	benchVariants(b, 4*n, n, func() { Decode8(x, codes, &m.Values, 0.3) })
}
