package ggml

import "encoding/binary"

// An IQ2_XXS block is 256 values in groups of 32: the scale d as a float16, and
// eight bytes for each group: the numbers of four points on the grid, then a
// uint32 with seven signs for each point and, in the high bits, a scale of four.
// The value is ±d*(scale+1/2)/4*g, where g is 8, 25 or 43 (ggml-common.h,
// block_iq2_xxs).
//
// An IQ2_XS block has a uint16 for each point, nine bits of its number and seven
// signs, and then a byte for each group of 32, with scales for either half of it
// (block_iq2_xs).
//
// An IQ2_S block has the low eight bits of the numbers of all points, then eight
// signs for each, then the high two bits, and the scales as IQ2_XS (block_iq2_s).
const (
	budgetIQ2_XXS = 0.35
	budgetIQ2_XS  = 0.31
	budgetIQ2_S   = 0.27
)

// scaleIQ2 is in the order ggml has it, though only the product with d can round.
func scaleIQ2(d float32, s uint32) float32 { return d * (0.5 + float32(s)) * 0.25 }

// decodeIQ2_XXS is dequantize_row_iq2_xxs.
func decodeIQ2_XXS(dst []float32, src []byte) {
	grid := gridIQ2_XXS()
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[66]byte)(src)
		d := half(b[:2])
		for group := range 8 {
			at := (*[8]byte)(b[2+8*group:])
			rest := binary.LittleEndian.Uint32(at[4:])
			scale := scaleIQ2(d, rest>>28)
			for l, point := range (*[4]byte)(at[:]) {
				scaled8((*[8]float32)(y[32*group+8*l:]), scale, (*[8]int8)(grid[8*int(point):]), evenSigns(rest>>(7*l)))
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeIQ2_XS is dequantize_row_iq2_xs.
func decodeIQ2_XS(dst []float32, src []byte) {
	grid := gridIQ2_XS()
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[74]byte)(src)
		d := half(b[:2])
		for i := range 32 {
			q := binary.LittleEndian.Uint16(b[2+2*i:])
			scale := scaleIQ2(d, uint32(b[66+i/4]>>(i/2%2*4)&15))
			scaled8((*[8]float32)(y[8*i:]), scale, (*[8]int8)(grid[8*int(q&511):]), evenSigns(uint32(q>>9)))
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeIQ2_S is dequantize_row_iq2_s.
func decodeIQ2_S(dst []float32, src []byte) {
	grid := gridIQ2_S()
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[82]byte)(src)
		d := half(b[:2])
		for i, low := range b[2:34] {
			point := int(low) | int(b[66+i/4]>>(i%4*2)&3)<<8
			scale := scaleIQ2(d, uint32(b[74+i/4]>>(i/2%2*4)&15))
			scaled8((*[8]float32)(y[8*i:]), scale, (*[8]int8)(grid[8*point:]), b[34+i])
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}
