//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var quantAVX2 = quantLoops{decode4: decode4AVX2}

var quantAVX512 = quantLoops{decode4: decode4AVX512}

func decode4AVX2(dst []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	decode4With(simd.Decode4AVX2, dst, codes, values, absmax, block)
}

func decode4AVX512(dst []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	decode4With(simd.Decode4AVX512, dst, codes, values, absmax, block)
}

// decode4With leaves to plain Go what is not a multiple of 16 elements. That the
// slices are long enough, Decode4 has checked.
func decode4With(f func(dst *float32, codes *byte, values, absmax *float32, blocks, block int),
	dst []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	if block%16 != 0 {
		decode4Go(dst, codes, values, absmax, block)
		return
	}
	whole := len(dst) / block
	if whole > 0 {
		f(&dst[0], &codes[0], &values[0], &absmax[0], whole, block)
		dst, codes, absmax = dst[whole*block:], codes[whole*block/2:], absmax[whole:]
	}
	if n := len(dst) &^ 15; n > 0 {
		f(&dst[0], &codes[0], &values[0], &absmax[0], 1, n)
		dst, codes = dst[n:], codes[n/2:]
	}
	if len(dst) > 0 {
		decode4Go(dst, codes, values, absmax, block)
	}
}
