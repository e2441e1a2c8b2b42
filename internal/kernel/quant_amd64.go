//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var quantAVX2 = quantLoops{
	decode4: decode4AVX2, encode4: encode4AVX2, encodeMap8: encodeMap8AVX2, decode8: decode8(simd.Decode8AVX2),
	decodeQ8: decodeQ8With(simd.DecodeQ8AVX2), codeRows: 4, dots: dotsAVX2, dot4: dot4AVX2, pack4: pack4With(8, simd.Pack4AVX2),
}

var quantAVX512 = quantLoops{
	decode4: decode4AVX512, encode4: encode4AVX512, encodeMap8: encodeMap8AVX512, decode8: decode8(simd.Decode8AVX512),
	decodeQ8: decodeQ8With(simd.DecodeQ8AVX512), codeRows: smallM, dots: dotsAVX512, dot4: dot4AVX512, pack4: pack4With(16, simd.Pack4AVX512),
}

func decodeQ8With(f func(dst *float32, src *byte, blocks int)) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		if len(dst) > 0 {
			f(&dst[0], &src[0], len(dst)/BlockQ8)
		}
	}
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

func encodeMap8AVX2(codes []byte, x []float32, m *Map8, mul float32) {
	n := len(x) &^ 7
	if n > 0 {
		simd.EncodeMap8AVX2(&codes[0], &x[0], &m.heap[0], mul, n)
	}
	encodeMap8Go(codes[n:], x[n:], m, mul)
}

func encodeMap8AVX512(codes []byte, x []float32, m *Map8, mul float32) {
	n := len(x) &^ 15
	if n > 0 {
		simd.EncodeMap8AVX512(&codes[0], &x[0], &m.heap[0], mul, n)
	}
	encodeMap8Go(codes[n:], x[n:], m, mul)
}

func decode8(loop func(dst *float32, codes *uint8, values *float32, n int, scale float32)) func(dst []float32, codes []byte, values *[256]float32, scale float32) {
	return func(dst []float32, codes []byte, values *[256]float32, scale float32) {
		n := len(dst) &^ (step8 - 1)
		if n > 0 {
			loop(&dst[0], &codes[0], &values[0], n, scale)
		}
		decode8Go(dst[n:], codes[n:], values, scale)
	}
}

func pack4With(step int, f func(dst *float32, ld uintptr, codes *byte, stride uintptr, values, absmax *float32, skip uintptr, block, cols int, ahead uintptr)) func(dst []float32, ld int, codes []byte, stride int, values *[16]float32, absmax []float32, block, rows, cols, ahead int) {
	return func(dst []float32, ld int, codes []byte, stride int, values *[16]float32, absmax []float32, block, rows, cols, ahead int) {
		if block%8 != 0 || rows%PackRows != 0 || cols%PackCols != 0 {
			pack4Go(dst, ld, codes, stride, values, absmax, block, rows, cols, ahead)
			return
		}
		for j := 0; j < rows; j += step {
			f(&dst[j], bytes(ld), &codes[j*stride], uintptr(stride), &values[0], &absmax[j], bytes(rows), block, cols, uintptr(ahead))
		}
	}
}
