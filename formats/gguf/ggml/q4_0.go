package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A Q4_0 block is 32 values: the scale d as a float16, then 16 bytes, of which
// byte j holds the number q of value j in its low half and that of value j+16 in
// its high half. The value is d*(q-8) (ggml-common.h, block_q4_0).
//
// A Q4_1 block has a second float16 after d, the minimum m, and the value is
// d*q+m.
const (
	budgetQ4_0 = 0.087
	budgetQ4_1 = 0.08

	// What has the largest magnitude but for its sign loses a whole step of 1/8; of
	// the others, and of all in a Q4_1 block, it is half a step. The roundings of the
	// float16 count for both ends.
	largestQ4_0 = 1.0/8 + 1.0/(1<<11) + 1e-6
	largestQ4_1 = 1.0/15 + 3.0/(1<<11) + 1e-6
)

// decodeQ4_0 is dequantize_row_q4_0.
func decodeQ4_0(dst []float32, src []byte) { kernel.CodingQ4_0.Decode(dst, src) }

// decodeQ4_1 is dequantize_row_q4_1.
func decodeQ4_1(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[20]byte)(src)
		d, m := half(b[:2]), half(b[2:4])
		for j, q := range b[4:] {
			y[j] = float32(float32(q&15)*d) + m
			y[j+16] = float32(float32(q>>4)*d) + m
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// encodeQ4_0 is quantize_row_q4_0_ref.
func encodeQ4_0(dst []byte, src []float32) { kernel.Encode32(kernel.Q4_0, dst, src) }

// encodeQ4_1 is quantize_row_q4_1_ref.
func encodeQ4_1(dst []byte, src []float32) { kernel.Encode32(kernel.Q4_1, dst, src) }

// encodeQ4_0Weighted is quantize_row_q4_0_impl, save that a NaN or an infinity spoils
// its block.
func encodeQ4_0Weighted(dst []byte, src, importance []float32) {
	weighted32{bytes: 18, levels: 8}.encode(dst, src, importance)
}

// encodeQ4_1Weighted is quantize_row_q4_1_impl, save the same.
func encodeQ4_1Weighted(dst []byte, src, importance []float32) {
	weighted32{bytes: 20, levels: 15, low: true}.encode(dst, src, importance)
}
