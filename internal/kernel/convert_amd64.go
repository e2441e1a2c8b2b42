//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var convertAVX2 = convertLoops{
	decodeBF16: decoder(simd.DecodeBF16AVX2, 2, decodeBF16Go),
	encodeBF16: encoder(simd.EncodeBF16AVX2, 2, encodeBF16Go),
	roundBF16:  rounder(simd.RoundBF16AVX2, roundBF16Go),
	decodeF16:  decoder(simd.DecodeF16AVX2, 2, decodeF16Go),
	encodeF16:  encoder(simd.EncodeF16AVX2, 2, encodeF16Go),
	decodeF64:  decoder(simd.DecodeF64AVX2, 8, decodeF64Go),
	encodeF64:  encoder(simd.EncodeF64AVX2, 8, encodeF64Go),
}

var convertAVX512 = convertLoops{
	decodeBF16: decoder(simd.DecodeBF16AVX512, 2, decodeBF16Go),
	encodeBF16: encoder(simd.EncodeBF16AVX512, 2, encodeBF16Go),
	roundBF16:  rounder(simd.RoundBF16AVX512, roundBF16Go),
	decodeF16:  decoder(simd.DecodeF16AVX512, 2, decodeF16Go),
	encodeF16:  encoder(simd.EncodeF16AVX512, 2, encodeF16Go),
	decodeF64:  decoder(simd.DecodeF64AVX512, 8, decodeF64Go),
	encodeF64:  encoder(simd.EncodeF64AVX512, 8, encodeF64Go),
}

// convertStep is what the loops take at a time. What is left over is done by one
// more step that begins before it; the results are the same.
const convertStep = 32

// decoder makes a loop over slices of one over pointers that reads size bytes per
// element.
func decoder(loop func(dst *float32, src *byte, n int), size int, plain func(dst []float32, src []byte)) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		n := len(dst)
		if n < convertStep {
			plain(dst, src)
			return
		}
		src = src[:size*n]
		whole := n &^ (convertStep - 1)
		loop(&dst[0], &src[0], whole)
		if whole < n {
			loop(&dst[n-convertStep], &src[size*(n-convertStep)], convertStep)
		}
	}
}

// encoder is decoder the other way.
func encoder(loop func(dst *byte, src *float32, n int), size int, plain func(dst []byte, src []float32)) func(dst []byte, src []float32) {
	return func(dst []byte, src []float32) {
		n := len(src)
		if n < convertStep {
			plain(dst, src)
			return
		}
		dst = dst[:size*n]
		whole := n &^ (convertStep - 1)
		loop(&dst[0], &src[0], whole)
		if whole < n {
			loop(&dst[size*(n-convertStep)], &src[n-convertStep], convertStep)
		}
	}
}

// rounder is decoder in place; rounding twice is rounding once.
func rounder(loop func(x *float32, n int), plain func(x []float32)) func(x []float32) {
	return func(x []float32) {
		n := len(x)
		if n < convertStep {
			plain(x)
			return
		}
		whole := n &^ (convertStep - 1)
		loop(&x[0], whole)
		if whole < n {
			loop(&x[n-convertStep], convertStep)
		}
	}
}
