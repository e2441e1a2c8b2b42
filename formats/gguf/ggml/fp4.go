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

// decodeMXFP4 is dequantize_row_mxfp4.
func decodeMXFP4(dst []float32, src []byte) { kernel.CodingMXFP4.Decode(dst, src) }

// encodeMXFP4 is quantize_row_mxfp4_ref, save that a value that is not finite spoils its
// block: all of it becomes infinite.
func encodeMXFP4(dst []byte, src []float32) { kernel.Encode32(kernel.MXFP4, dst, src) }

// decodeNVFP4 is dequantize_row_nvfp4.
func decodeNVFP4(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[64]float32)(dst), (*[36]byte)(src)
		for group, s := range b[:4] {
			d := halfUE4M3(s)
			x := (*[16]float32)(y[16*group:])
			for j, q := range (*[8]byte)(b[4+8*group:]) {
				x[j] = kernel.ValuesE2M1[q&15] * d
				x[j+8] = kernel.ValuesE2M1[q>>4] * d
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
