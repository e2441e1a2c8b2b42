package ggml

import (
	"encoding/binary"
	"math"
)

// Q8_1 and Q8_K are what ggml makes of activations while it multiplies. No tool
// writes them to a file, but a file may hold them.
//
// A Q8_1 block is a Q8_0 block with a second float16 after d, the sum of the
// values, which does not matter here (ggml-common.h, block_q8_1).
//
// A Q8_K block is 256 values: the scale d as a float32, a signed byte q for each
// value, and the sums of each 16 of them as int16, which do not matter here
// (block_q8_K). The value is d*q.
const (
	budgetQ8_1 = 0.0055
	budgetQ8_K = 0.0075
)

// decodeQ8_1 has no counterpart in ggml, which only multiplies such blocks.
func decodeQ8_1(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[36]byte)(src)
		d := half(b[:2])
		for j, q := range b[4:] {
			y[j] = float32(int8(q)) * d
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ8_K is dequantize_row_q8_K.
func decodeQ8_K(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[292]byte)(src)
		d := math.Float32frombits(binary.LittleEndian.Uint32(b[:4]))
		for j, q := range b[4:260] {
			y[j] = d * float32(int8(q))
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}
