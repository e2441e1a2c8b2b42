//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var block32AVX2 = block32Loops{
	encode32: [...]func(dst []byte, src []float32){
		Q4_0:  encode32(Q4_0, simd.EncodeQ4_0AVX2),
		Q4_1:  encode32(Q4_1, simd.EncodeQ4_1AVX2),
		Q5_0:  encode32(Q5_0, simd.EncodeQ5_0AVX2),
		Q5_1:  encode32(Q5_1, simd.EncodeQ5_1AVX2),
		Q8_0:  encode32(Q8_0, simd.EncodeQ8_0AVX2),
		MXFP4: encode32(MXFP4, simd.EncodeMXFP4AVX2),
	},
	round8: round8(simd.Round8AVX2),
}

var block32AVX512 = block32Loops{
	encode32: [...]func(dst []byte, src []float32){
		Q4_0:  encode32(Q4_0, simd.EncodeQ4_0AVX512),
		Q4_1:  encode32(Q4_1, simd.EncodeQ4_1AVX512),
		Q5_0:  encode32(Q5_0, simd.EncodeQ5_0AVX512),
		Q5_1:  encode32(Q5_1, simd.EncodeQ5_1AVX512),
		Q8_0:  encode32(Q8_0, simd.EncodeQ8_0AVX512),
		MXFP4: encode32(MXFP4, simd.EncodeMXFP4AVX512),
	},
	round8: round8(simd.Round8AVX512),
}

// encode32 makes a loop over slices of one that stops before a block that it leaves to
// Go.
func encode32(f Block32, loop func(dst *byte, src *float32, blocks int) int) func(dst []byte, src []float32) {
	size, plain := f.Bytes(), block32Go.encode32[f]
	return func(dst []byte, src []float32) {
		for len(src) > 0 {
			n := loop(&dst[0], &src[0], len(src)/32)
			dst, src = dst[n*size:], src[n*32:]
			if len(src) > 0 {
				plain(dst[:size], src[:32])
				dst, src = dst[size:], src[32:]
			}
		}
	}
}

func round8(loop func(dst *byte, src *float32, blocks int, mul float32)) func(dst []byte, src []float32, mul float32) {
	return func(dst []byte, src []float32, mul float32) { loop(&dst[0], &src[0], len(src)/32, mul) }
}

var table16AVX2 = table16Loops{fit16: fit16(simd.Fit16AVX2), nibbles16: nibbles16(simd.Nibbles16AVX2)}

var table16AVX512 = table16Loops{fit16: fit16(simd.Fit16AVX512), nibbles16: nibbles16(simd.Nibbles16AVX512)}

func fit16(loop func(sums, table, inverse, x, weights *float32)) func(s *Sums16, t *Table16, inverse *[16]float32, x, weights *[32]float32) {
	return func(s *Sums16, t *Table16, inverse *[16]float32, x, weights *[32]float32) {
		loop(&s.Mixed[0], &t.heap[0], &inverse[0], &x[0], &weights[0])
	}
}

func nibbles16(loop func(dst *byte, table, x *float32, inverse float32)) func(dst *[16]byte, t *Table16, inverse float32, x *[32]float32) {
	return func(dst *[16]byte, t *Table16, inverse float32, x *[32]float32) {
		loop(&dst[0], &t.heap[0], &x[0], inverse)
	}
}
