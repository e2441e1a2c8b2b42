package ggml

import "encoding/binary"

// An IQ3_XXS block is 256 values in groups of 32: the scale d as a float16, a
// byte for each four values, the number of their point on the grid, then for
// each group a uint32 with seven signs for each eight values and, in the high
// bits, a scale of four. The value is ±d*(scale+1/2)/2*g, where g is one of 4,
// 12, 20, 28, 36, 44, 52 and 62 (ggml-common.h, block_iq3_xxs).
//
// An IQ3_S block has the low eight bits of the numbers of all points, then a
// byte for each group with their ninth bits, then eight signs for each eight
// values, then scales of four bits. The value is ±d*(2*scale+1)*g, where g is
// odd and below 16 (block_iq3_s).
const (
	budgetIQ3_XXS = 0.215
	budgetIQ3_S   = 0.165
)

// decodeIQ3_XXS is dequantize_row_iq3_xxs.
func decodeIQ3_XXS(dst []float32, src []byte) {
	grid := gridIQ3_XXS()
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[98]byte)(src)
		d := half(b[:2])
		for group := range 8 {
			rest := binary.LittleEndian.Uint32(b[66+4*group:])
			scale := d * (0.5 + float32(rest>>28)) * 0.5
			for l, point := range (*[8]byte)(b[2+8*group:]) {
				signs := evenSigns(rest>>(l/2*7)) >> (l % 2 * 4)
				scaled4((*[4]float32)(y[32*group+4*l:]), scale, (*[4]int8)(grid[4*int(point):]), signs)
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeIQ3_S is dequantize_row_iq3_s.
func decodeIQ3_S(dst []float32, src []byte) {
	grid := gridIQ3_S()
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[110]byte)(src)
		d := half(b[:2])
		for i, low := range b[2:66] {
			group := i / 8
			point := int(low) | int(b[66+group]>>(i%8)&1)<<8
			scale := d * float32(1+2*(b[106+group/2]>>(group%2*4)&15))
			signs := b[74+i/2] >> (i % 2 * 4)
			scaled4((*[4]float32)(y[4*i:]), scale, (*[4]int8)(grid[4*point:]), signs)
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}
