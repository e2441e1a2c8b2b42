package ggml

import (
	"math"
	"math/bits"
	"sync"
)

// The IQ types store no values but the number of a point on a grid: eight
// magnitudes (for IQ3 four) that a model's weights often have together. A grid
// is a table of ggml-common.h; here each magnitude is two or three bits, the
// lowest first, that count in a short list of the magnitudes there are. Packed
// like that the points are in ascending order.
var (
	gridIQ1     = grid(codesIQ1[:], 2, -1, 0, 1)
	gridIQ2_XXS = grid(codesIQ2_XXS[:], 2, 8, 25, 43)
	gridIQ2_XS  = grid(codesIQ2_XS[:], 2, 8, 25, 43)
	gridIQ2_S   = grid(codesIQ2_S[:], 2, 8, 25, 43)
	gridIQ3_XXS = grid(codesIQ3_XXS[:], 3, 4, 12, 20, 28, 36, 44, 52, 62)
	gridIQ3_S   = grid(codesIQ3_S[:], 3, 1, 3, 5, 7, 9, 11, 13, 15)
)

// grid unpacks codes, once, when the grid is first used: to eight values of two
// bits for each point, or to four of three bits.
func grid(codes []uint16, width int, magnitudes ...int8) func() []int8 {
	return sync.OnceValue(func() []int8 {
		n := 8
		if width == 3 {
			n = 4
		}
		out := make([]int8, 0, n*len(codes))
		for _, c := range codes {
			for range n {
				out = append(out, magnitudes[c&(1<<width-1)])
				c >>= width
			}
		}
		return out
	})
}

// scaled4 stores d times four magnitudes, negated where the low four bits of
// signs say so.
func scaled4(dst *[4]float32, d float32, magnitudes *[4]int8, signs byte) {
	for j, m := range magnitudes {
		v := math.Float32bits(d * float32(m))
		dst[j] = math.Float32frombits(v ^ uint32(signs>>j&1)<<31)
	}
}

// scaled8 does the same with eight.
func scaled8(dst *[8]float32, d float32, magnitudes *[8]int8, signs byte) {
	for j, m := range magnitudes {
		v := math.Float32bits(d * float32(m))
		dst[j] = math.Float32frombits(v ^ uint32(signs>>j&1)<<31)
	}
}

// evenSigns returns the signs of eight values from those of the first seven: an
// even number of values is negative (ksigns_iq2xs).
func evenSigns(seven uint32) byte {
	s := byte(seven) & 127
	return s | byte(bits.OnesCount8(s))<<7
}
