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
