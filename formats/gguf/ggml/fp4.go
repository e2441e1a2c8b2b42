package ggml

import (
	"math"

	"github.com/seed18967229/nibble/internal/kernel"
)

// An MXFP4 block is 32 values: a byte e, the scale 2^(e-127), then 16 bytes of
// numbers in E2M1, packed as those of Q4_0 (ggml-common.h, block_mxfp4). The
// scale 255, which OCP's specification has for NaN, is 2^128 here as in ggml:
// the values are finite for as long as they fit.
//
// An NVFP4 block is 64 values in groups of 16: a scale for each in E4M3 without
// a sign, then eight bytes for each, byte j with values j and j+8 (block_nvfp4).
// As in ggml the scale 127 is zero, and the highest bit of any other is ignored.
const (
	budgetMXFP4 = 0.115
	budgetNVFP4 = 0.098

	// What is just below 8 times the scale becomes 6 times.
	largestMXFP4 = 0.25 + 1e-6
)

// valuesE2M1 is twice what the codes stand for, and the scales below are half
// of theirs (kvalues_fp4).
var valuesE2M1 = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// decodeMXFP4 is dequantize_row_mxfp4.
func decodeMXFP4(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[17]byte)(src)
		nibbles(y, halfE8M0(b[0]), (*[16]byte)(b[1:]), &valuesE2M1)
		dst, src = dst[len(y):], src[len(b):]
	}
}

// halfE8M0 returns 2^(e-128), of which the first two are subnormal.
func halfE8M0(e byte) float32 {
	if e < 2 {
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// encodeMXFP4 is quantize_row_mxfp4_ref, save that a value that is not finite spoils
// its block. The scale is the power of two that gives the largest magnitude an exponent
// of 2, the largest there is; what is beyond 6 times it is cut off there.
func encodeMXFP4(dst []byte, src []float32) {
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[17]byte)(dst)
		if top := kernel.Absmax(x[:]); top <= math.MaxFloat32 {
			b[0] = scaleMXFP4(top)
			d := halfE8M0(b[0])
			for j := range 16 {
				b[1+j] = codeE2M1(x[j], d) | codeE2M1(x[j+16], d)<<4
			}
		} else { // infinities
			b[0] = 255
			for j := range 16 {
				b[1+j] = 0x77
			}
		}
		dst, src = dst[len(b):], src[len(x):]
	}
}

// scaleMXFP4 returns the byte for a largest magnitude. As in ggml the logarithm is
// rounded to a float32, so that what is a little less than a power of two may count as
// the power, and of what is below 2^-125 the byte wraps around: too large a scale, by
// which all values are 0.
func scaleMXFP4(top float32) byte {
	if top == 0 {
		return 0
	}
	return byte(int(math.Floor(float64(float32(math.Log2(float64(top)))))) - 2 + 127)
}

// codeE2M1 returns the code whose value times d is the nearest to x, the one closer to
// zero of two. A value that overflows is not near anything.
func codeE2M1(x, d float32) byte {
	top := abs(x)
	best := top
	var code byte
	for c := byte(1); c < 8; c++ {
		e := abs(float32(valuesE2M1[c]*d) - top)
		if !(e < best) {
			break
		}
		code, best = c, e
	}
	if code != 0 && x < 0 {
		code |= 8
	}
	return code
}

// decodeNVFP4 is dequantize_row_nvfp4.
func decodeNVFP4(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[64]float32)(dst), (*[36]byte)(src)
		for group, s := range b[:4] {
			d := halfUE4M3(s)
			x := (*[16]float32)(y[16*group:])
			for j, q := range (*[8]byte)(b[4+8*group:]) {
				x[j] = valuesE2M1[q&15] * d
				x[j+8] = valuesE2M1[q>>4] * d
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// halfUE4M3 returns half the value of an E4M3 code without its sign
// (ggml_ue4m3_to_fp32). Every one is exact.
func halfUE4M3(c byte) float32 {
	e, m := int(c>>3&15), float32(c&7)
	switch {
	case c == 0x7f:
		return 0
	case e == 0:
		return m * 0x1p-10
	}
	return float32(math.Ldexp(float64(8+m), e-11))
}
