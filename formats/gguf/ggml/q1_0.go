package ggml

import "math"

// A Q1_0 block is 128 values: the float16 d, and a bit for each value, which is
// d where it is set and -d where it is not (ggml-common.h, block_q1_0).
//
// A Q2_0 block is 64 values: the float16 d, and two bits for each, four values
// to a byte, the first in the lowest bits. The value is d*(q-1) (block_q2_0).
const (
	budgetQ1_0 = 0.605
	budgetQ2_0 = 0.74
)

// decodeQ1_0 is dequantize_row_q1_0.
func decodeQ1_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[128]float32)(dst), (*[18]byte)(src)
		d := math.Float32bits(half(b[:2]))
		for i, q := range b[2:] {
			for j := range 8 {
				y[8*i+j] = math.Float32frombits(d ^ uint32(^q>>j&1)<<31)
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ2_0 is dequantize_row_q2_0.
func decodeQ2_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[64]float32)(dst), (*[18]byte)(src)
		d := half(b[:2])
		for i, q := range b[2:] {
			for j := range 4 {
				y[4*i+j] = float32(int(q>>(2*j)&3)-1) * d
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}
