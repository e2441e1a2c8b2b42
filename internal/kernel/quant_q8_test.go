package kernel

import (
	"math/rand/v2"
	"testing"
)

// Any two bytes are a scale: zero, subnormal, infinite, NaN among them.
func TestDecodeQ8Variants(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 0))
	eachVariant(t, func(t *testing.T) {
		for blocks := range 40 {
			guarded(t, []int{4 * BlockQ8 * blocks, BytesQ8 * blocks}, func(b [][]byte) {
				fillBytes(rng, b[1])
				if blocks > 2 {
					copy(b[1], []byte{0x01, 0x7c}) // a signalling NaN
					copy(b[1][BytesQ8:], []byte{0x00, 0xfc})
				}
				want, got := make([]float32, BlockQ8*blocks), floatsOf(b[0])
				decodeQ8Go(want, b[1])
				DecodeQ8(got, b[1])
				requireBits(t, want, got)
			})
		}
	})
}

func BenchmarkDecodeQ8(b *testing.B) {
	x, src := make([]float32, 4096), make([]byte, 4096/BlockQ8*BytesQ8)
	for _, v := range variants() {
		b.Run(v.name, func(b *testing.B) {
			with(b, v)
			b.SetBytes(4 * 4096)
			for b.Loop() {
				DecodeQ8(x, src)
			}
		})
	}
}
