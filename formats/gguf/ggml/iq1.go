package ggml

import (
	"encoding/binary"

	"github.com/seed18967229/nibble/internal/kernel"
)

// An IQ1_S block is 256 values in groups of 32: the scale d as a float16, a byte
// for each eight values with the low bits of the number of their point on the
// grid, and a uint16 for each group: the three high bits of each of its four
// points, three bits of scale, and whether the shift is negative. The value is
// d*(2*scale+1)*(g+shift), where g is -1, 0 or 1 (ggml-common.h, block_iq1_s).
//
// An IQ1_M block has groups of 16 instead, each with a scale of three bits, and
// a shift for each point. It has no d: after the low bits of the points come
// four bits for each, three high bits and the shift, and then four uint16, each
// with the scales of four groups and, in its high bits, four of the sixteen bits
// of the float16 d (block_iq1_m).
const (
	budgetIQ1_S = 0.5
	budgetIQ1_M = 0.47

	shiftIQ1 = 0.125 // IQ1S_DELTA
)

// shifted8 stores d times the eight values of a point, shifted.
func shifted8(dst *[8]float32, d float32, point *[8]int8, negative bool) {
	var shift float32 = shiftIQ1
	if negative {
		shift = -shiftIQ1
	}
	for j, g := range point {
		dst[j] = d * (float32(g) + shift)
	}
}

// decodeIQ1_S is dequantize_row_iq1_s.
func decodeIQ1_S(dst []float32, src []byte) {
	grid := gridIQ1()
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[50]byte)(src)
		d := half(b[:2])
		for group := range 8 {
			h := binary.LittleEndian.Uint16(b[34+2*group:])
			scale := d * float32(2*(h>>12&7)+1)
			for l, low := range (*[4]byte)(b[2+4*group:]) {
				point := int(low) | int(h>>(3*l)&7)<<8
				shifted8((*[8]float32)(y[32*group+8*l:]), scale, (*[8]int8)(grid[8*point:]), h&0x8000 != 0)
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeIQ1_M is dequantize_row_iq1_m.
func decodeIQ1_M(dst []float32, src []byte) {
	grid := gridIQ1()
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[56]byte)(src)
		var scales [4]uint16
		var bits uint16
		for i := range scales {
			scales[i] = binary.LittleEndian.Uint16(b[48+2*i:])
			bits |= scales[i] >> 12 << (4 * i)
		}
		d := kernel.F16ToF32(bits)
		for i, low := range b[:32] {
			group := i / 2
			scale := d * float32(2*(scales[group/4]>>(group%4*3)&7)+1)
			h := b[32+i/2] >> (i % 2 * 4)
			point := int(low) | int(h&7)<<8
			shifted8((*[8]float32)(y[8*i:]), scale, (*[8]int8)(grid[8*point:]), h&8 != 0)
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}
