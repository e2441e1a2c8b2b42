//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var convertAVX2 = convertLoops{decodeBF16: decodeBF16AVX2}

var convertAVX512 = convertAVX2

func decodeBF16AVX2(dst []float32, src []byte) {
	n := len(dst) &^ 15
	if n > 0 {
		simd.DecodeBF16AVX2(&dst[0], &src[0], n)
	}
	decodeBF16Go(dst[n:], src[2*n:])
}
