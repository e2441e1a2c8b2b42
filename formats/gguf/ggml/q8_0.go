package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A Q8_0 block is 32 values: the scale d as a float16, then a signed byte q for
// each. The value is d*q (ggml-common.h, block_q8_0).
const (
	q8_0Block = kernel.BlockQ8
	q8_0Bytes = kernel.BytesQ8

	budgetQ8_0 = 0.0055

	// largestQ8_0 bounds the error of any value, relative to the largest
	// magnitude in its block: half a step of 1/127, and the rounding of d to 11
	// significant bits. The last term covers the roundings of float32.
	largestQ8_0 = 0.5/127 + 1.0/(1<<11) + 1e-6
)

// decodeQ8_0 is dequantize_row_q8_0.
func decodeQ8_0(dst []float32, src []byte) { kernel.DecodeQ8(dst, src) }

// encodeQ8_0 is quantize_row_q8_0_ref. From 65520*127 on, about 8.3e6, the scale is
// infinite as a float16, and so are the values, or NaN.
func encodeQ8_0(dst []byte, src []float32) { kernel.Encode32(kernel.Q8_0, dst, src) }
