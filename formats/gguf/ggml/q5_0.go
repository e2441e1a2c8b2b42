package ggml

import (
	"encoding/binary"

	"github.com/seed18967229/nibble/internal/kernel"
)

// A Q5_0 block is 32 values: the scale d as a float16, a uint32 whose bit j is
// the highest bit of value j, then the low four bits of each as in a Q4_0 block.
// The value is d*(q-16) (ggml-common.h, block_q5_0).
//
// A Q5_1 block has a second float16 after d, the minimum m, and the value is
// d*q+m.
const (
	budgetQ5_0 = 0.0435
	budgetQ5_1 = 0.039

	// As for Q4_0 and Q4_1.
	largestQ5_0 = 1.0/16 + 1.0/(1<<11) + 1e-6
	largestQ5_1 = 1.0/31 + 3.0/(1<<11) + 1e-6
)

// decodeQ5_0 is dequantize_row_q5_0.
func decodeQ5_0(dst []float32, src []byte) { kernel.CodingQ5_0.Decode(dst, src) }

// decodeQ5_1 is dequantize_row_q5_1.
func decodeQ5_1(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[24]byte)(src)
		d, m, high := half(b[:2]), half(b[2:4]), binary.LittleEndian.Uint32(b[4:8])
		for j, q := range b[8:] {
			y[j] = float32(float32(q&15|byte(high>>j&1)<<4)*d) + m
			y[j+16] = float32(float32(q>>4|byte(high>>(j+16)&1)<<4)*d) + m
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// encodeQ5_0 is quantize_row_q5_0_ref.
func encodeQ5_0(dst []byte, src []float32) { kernel.Encode32(kernel.Q5_0, dst, src) }

// encodeQ5_1 is quantize_row_q5_1_ref.
func encodeQ5_1(dst []byte, src []float32) { kernel.Encode32(kernel.Q5_1, dst, src) }

// encodeQ5_0Weighted is quantize_row_q5_0_impl, save that a NaN or an infinity spoils
// its block.
func encodeQ5_0Weighted(dst []byte, src, importance []float32) {
	weighted32{bytes: 22, levels: 16, fifth: true}.encode(dst, src, importance)
}

// encodeQ5_1Weighted is quantize_row_q5_1_impl, save the same.
func encodeQ5_1Weighted(dst []byte, src, importance []float32) {
	weighted32{bytes: 24, levels: 31, low: true, fifth: true}.encode(dst, src, importance)
}
