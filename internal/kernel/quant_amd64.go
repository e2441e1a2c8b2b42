//go:build amd64 && !purego

package kernel

import (
	"math"

	"github.com/seed18967229/nibble/internal/kernel/simd"
)

var quantAVX2 = quantLoops{
	decode4: decode4AVX2, encode4: encode4AVX2, absmax: absmaxAVX2, dots: dotsAVX2, dot4: dot4AVX2,
}

var quantAVX512 = quantLoops{
	decode4: decode4AVX512, encode4: encode4AVX512, absmax: absmaxAVX2, dots: dotsAVX512, dot4: dot4AVX512,
}

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

func encode4AVX2(codes []byte, absmax []float32, moments []Moments4, x []float32, block int, c *Codebook) int {
	if block%32 != 0 {
		return encode4Go(codes, absmax, moments, x, block, c)
	}
	return simd.Encode4AVX2(&codes[0], &absmax[0], &moments[0].Err, &x[0], len(absmax), block, &c.table.heap[0])
}

func encode4AVX512(codes []byte, absmax []float32, moments []Moments4, x []float32, block int, c *Codebook) int {
	if block%32 != 0 {
		return encode4Go(codes, absmax, moments, x, block, c)
	}
	f := simd.Encode4AVX512
	if c.table.grid {
		f = simd.Encode4GridAVX512
	}
	return f(&codes[0], &absmax[0], &moments[0].Err, &x[0], len(absmax), block, &c.table.heap[0])
}

func absmaxAVX2(x []float32) float32 {
	n := len(x) &^ 31
	if n == 0 {
		return absmaxGo(x)
	}
	top := math.Float32bits(simd.AbsmaxAVX2(&x[0], n))
	// As bits a NaN is larger than all else.
	return math.Float32frombits(max(top, math.Float32bits(absmaxGo(x[n:]))))
}
