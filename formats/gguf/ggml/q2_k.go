package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A Q2_K block is 256 values in groups of 16: a byte for each group, its scale
// in the low half and its minimum in the high half; 64 bytes of numbers q of two
// bits; the float16 d and dmin that scale the scales and the minimums. The value
// is d*scale*q - dmin*minimum (ggml-common.h, block_q2_K).
//
// The numbers are packed by halves of 128 values: byte l of 32 holds those of
// values l, l+32, l+64 and l+96, the first in the lowest bits.
const budgetQ2_K = 0.3

// decodeQ2_K is dequantize_row_q2_K.
func decodeQ2_K(dst []float32, src []byte) { kernel.CodingQ2_K.Decode(dst, src) }

var q2_K = lowEnded{
	bytes: 84, d: 80, size: 16, multiple: 15, spread: 1,
	plain:    kernel.Range{Levels: 3, First: -0.5, Step: 0.1, Steps: 15, Absolute: true},
	weighted: kernel.Range{Levels: 3, First: -0.9, Step: 0.05, Steps: 36},
	putMultiples: func(b []byte, scales, lows *[kernel.FitGroups]byte) {
		for g, s := range scales {
			b[g] = s | lows[g]<<4
		}
	},
	multiples: func(b []byte, group int) (scale, low byte) { return b[group] & 15, b[group] >> 4 },
	putCodes:  func(b []byte, codes *[superBlock]byte) { putTwoBits(b[16:80], codes) },
}

// putTwoBits packs the two lowest bits of numbers.
func putTwoBits(b []byte, codes *[superBlock]byte) {
	const mask = 3 * ones
	for half := range 2 {
		q, c := b[32*half:32*half+32], codes[128*half:128*half+128]
		for l := 0; l < 32; l += 8 {
			putEight(q[l:], eight(c[l:])&mask|eight(c[l+32:])&mask<<2|eight(c[l+64:])&mask<<4|eight(c[l+96:])&mask<<6)
		}
	}
}

// encodeQ2_K is quantize_row_q2_K_ref, save that a NaN or an infinity spoils its
// super-block.
func encodeQ2_K(dst []byte, src []float32) { q2_K.encode(dst, src, nil) }

// encodeQ2_KWeighted is quantize_row_q2_K_impl, save the same.
func encodeQ2_KWeighted(dst []byte, src, importance []float32) { q2_K.encode(dst, src, importance) }
