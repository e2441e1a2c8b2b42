//go:build amd64 && !purego

package kernel

import (
	"unsafe"

	"github.com/seed18967229/nibble/internal/kernel/simd"
)

var convertAVX2 = convertLoops{
	decodeBF16: decoder(simd.DecodeBF16AVX2, simd.DecodeBF16StreamAVX2, 2, decodeBF16Go),
	encodeBF16: encoder(simd.EncodeBF16AVX2, simd.EncodeBF16StreamAVX2, 2, encodeBF16Go),
	roundBF16:  rounder(simd.RoundBF16AVX2, roundBF16Go),
	decodeF16:  decoder(simd.DecodeF16AVX2, simd.DecodeF16StreamAVX2, 2, decodeF16Go),
	encodeF16:  encoder(simd.EncodeF16AVX2, simd.EncodeF16StreamAVX2, 2, encodeF16Go),
	decodeF64:  decoder(simd.DecodeF64AVX2, simd.DecodeF64StreamAVX2, 8, decodeF64Go),
	encodeF64:  encoder(simd.EncodeF64AVX2, simd.EncodeF64StreamAVX2, 8, encodeF64Go),
}

var convertAVX512 = convertLoops{
	decodeBF16: decoder(simd.DecodeBF16AVX512, simd.DecodeBF16StreamAVX512, 2, decodeBF16Go),
	encodeBF16: encoder(simd.EncodeBF16AVX512, simd.EncodeBF16StreamAVX512, 2, encodeBF16Go),
	roundBF16:  rounder(simd.RoundBF16AVX512, roundBF16Go),
	decodeF16:  decoder(simd.DecodeF16AVX512, simd.DecodeF16StreamAVX512, 2, decodeF16Go),
	encodeF16:  encoder(simd.EncodeF16AVX512, simd.EncodeF16StreamAVX512, 2, encodeF16Go),
	decodeF64:  decoder(simd.DecodeF64AVX512, simd.DecodeF64StreamAVX512, 8, decodeF64Go),
	encodeF64:  encoder(simd.EncodeF64AVX512, simd.EncodeF64StreamAVX512, 8, encodeF64Go),
}

// convertStep is what the loops take at a time. What is left over is done by one
// more step that begins before it; the results are the same.
const convertStep = 32

// streamBytes is the size of a result from which on it is stored past the caches. Below
// it is likely to be read again while they hold it; a panel of weights is. Only tests
// change it.
var streamBytes = 16 << 20

// streamFrom returns how many of n elements, of size bytes at dst, come before those
// that are stored past the caches: n for none.
func streamFrom(dst unsafe.Pointer, n, size int) int {
	before := int(-uintptr(dst) & 63)
	if n*size < streamBytes || before%size != 0 {
		return n
	}
	return before / size
}

type (
	decodeLoop = func(dst *float32, src *byte, n int)
	encodeLoop = func(dst *byte, src *float32, n int)
)

// decoder makes a loop over slices of loops over pointers that read size bytes per
// element.
func decoder(loop, stream decodeLoop, size int, plain func(dst []float32, src []byte)) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		n := len(dst)
		if n < convertStep {
			plain(dst, src)
			return
		}
		src = src[:size*n]
		whole := n &^ (convertStep - 1)
		if from := streamFrom(unsafe.Pointer(&dst[0]), n, 4); from < n {
			loop(&dst[0], &src[0], convertStep)
			stream(&dst[from], &src[size*from], (n-from)&^(convertStep-1))
			whole = n - 1
		} else {
			loop(&dst[0], &src[0], whole)
		}
		if whole < n {
			loop(&dst[n-convertStep], &src[size*(n-convertStep)], convertStep)
		}
	}
}

// encoder is decoder the other way.
func encoder(loop, stream encodeLoop, size int, plain func(dst []byte, src []float32)) func(dst []byte, src []float32) {
	return func(dst []byte, src []float32) {
		n := len(src)
		if n < convertStep {
			plain(dst, src)
			return
		}
		dst = dst[:size*n]
		whole := n &^ (convertStep - 1)
		if from := streamFrom(unsafe.Pointer(&dst[0]), n, size); from < n {
			loop(&dst[0], &src[0], convertStep)
			stream(&dst[size*from], &src[from], (n-from)&^(convertStep-1))
			whole = n - 1
		} else {
			loop(&dst[0], &src[0], whole)
		}
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
