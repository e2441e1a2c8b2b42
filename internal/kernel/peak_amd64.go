//go:build amd64 && !purego

package kernel

import (
	"unsafe"

	"github.com/seed18967229/nibble/internal/kernel/simd"
)

var peakAVX2 = peakLoops{fma: fmaAVX2, flops: 2 * 2 * 12 * 8, sumWords: sumWordsAVX2, stream: streamAVX2}

var peakAVX512 = peakLoops{fma: fmaAVX512, flops: 2 * 2 * 24 * 16, sumWords: sumWordsAVX512, stream: streamAVX512}

func fmaAVX2(sum, a, b *[16]float32, n int) { simd.FMAAVX2(&sum[0], &a[0], &b[0], n) }

func fmaAVX512(sum, a, b *[16]float32, n int) { simd.FMAAVX512(&sum[0], &a[0], &b[0], n) }

func sumWordsAVX2(b []byte) uint64 {
	n := len(b) &^ 255
	var s [4]uint64
	if n > 0 {
		simd.ReadAVX2(&s[0], &b[0], n)
	}
	return s[0] + s[1] + s[2] + s[3] + sumWordsGo(b[n:])
}

func sumWordsAVX512(b []byte) uint64 {
	n := len(b) &^ 511
	var s [8]uint64
	if n > 0 {
		simd.ReadAVX512(&s[0], &b[0], n)
	}
	return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7] + sumWordsGo(b[n:])
}

func streamAVX2(dst, src []byte) {
	dst, src = toAligned(dst, src, 32)
	n := len(src) &^ 127
	if n > 0 {
		simd.StreamAVX2(&dst[0], &src[0], n)
	}
	copy(dst[n:], src[n:])
}

func streamAVX512(dst, src []byte) {
	dst, src = toAligned(dst, src, 64)
	n := len(src) &^ 255
	if n > 0 {
		simd.StreamAVX512(&dst[0], &src[0], n)
	}
	copy(dst[n:], src[n:])
}

// toAligned copies until dst is at a multiple of width, as stores past the caches
// want it, and returns the rest.
func toAligned(dst, src []byte, width int) (restDst, restSrc []byte) {
	if len(src) == 0 {
		return dst, src
	}
	n := min(len(src), int(-uintptr(unsafe.Pointer(&dst[0]))%uintptr(width)))
	copy(dst, src[:n])
	return dst[n:], src[n:]
}
