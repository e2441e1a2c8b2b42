package ggml

import "encoding/binary"

// An IQ4_NL block is a Q4_0 block whose numbers count in a table of sixteen
// values that are closer together around zero: the value is d*table[q]
// (ggml-common.h, block_iq4_nl).
//
// An IQ4_XS block is 256 values in groups of 32: the float16 d, a uint16 with
// the high two bits of the scale of each group, four bytes with the low four,
// then the numbers of each group as IQ4_NL has them. The value is
// d*(scale-32)*table[q] (block_iq4_xs).
const (
	budgetIQ4_NL = 0.079
	budgetIQ4_XS = 0.08
)

// valuesIQ4 is the table (kvalues_iq4nl).
var valuesIQ4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// decodeIQ4_NL is dequantize_row_iq4_nl.
func decodeIQ4_NL(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[18]byte)(src)
		nibbles(y, half(b[:2]), (*[16]byte)(b[2:]), &valuesIQ4)
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeIQ4_XS is dequantize_row_iq4_xs.
func decodeIQ4_XS(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[136]byte)(src)
		d, high := half(b[:2]), binary.LittleEndian.Uint16(b[2:4])
		for group := range 8 {
			s := b[4+group/2]>>(group%2*4)&15 | byte(high>>(2*group)&3)<<4
			scale := d * float32(int(s)-32)
			nibbles((*[32]float32)(y[32*group:]), scale, (*[16]byte)(b[8+16*group:]), &valuesIQ4)
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// nibbles stores 32 values from a table, times d. Byte j has the numbers of
// values j and j+16.
func nibbles(dst *[32]float32, d float32, src *[16]byte, table *[16]float32) {
	for j, q := range src {
		dst[j] = d * table[q&15]
		dst[j+16] = d * table[q>>4]
	}
}
