package kernel

import (
	"encoding/binary"
	"math"
)

// decodeQ4_0Go is of blocks of 32 values: the scale d as a float16, then 16 bytes, of which
// byte j holds the number q of value j in its low half and that of value j+16 in its high
// half. The value is d*(q-8).
func decodeQ4_0Go(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[18]byte)(src)
		d := fromHalf(b[:2])
		for j, q := range b[2:] {
			y[j] = float32(int(q&15)-8) * d
			y[j+16] = float32(int(q>>4)-8) * d
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ5_0Go is of blocks of 32 values: the scale d as a float16, a uint32 whose bit j is
// the highest bit of value j, then the low four bits of each as in a Q4_0 block. The value
// is d*(q-16).
func decodeQ5_0Go(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[22]byte)(src)
		d, high := fromHalf(b[:2]), binary.LittleEndian.Uint32(b[2:6])
		for j, q := range b[6:] {
			y[j] = float32(int(q&15|byte(high>>j&1)<<4)-16) * d
			y[j+16] = float32(int(q>>4|byte(high>>(j+16)&1)<<4)-16) * d
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// ScaleMin6 returns the scale and the minimum of one of eight groups of a Q4_K or Q5_K
// block. Those of the first four are the low six bits of bytes 0 to 3 and 4 to 7. The others
// have their low four bits in the halves of bytes 8 to 11, and their high two in the two
// bits that are left of those before (get_scale_min_k4).
func ScaleMin6(b *[12]byte, group int) (scale, low byte) {
	if group < 4 {
		return b[group] & 63, b[group+4] & 63
	}
	return b[group+4]&15 | b[group-4]>>6<<4, b[group+4]>>4 | b[group]>>6<<4
}

// decodeQ4_KGo is of blocks of 256 values in groups of 32: the float16 d and dmin; 12 bytes
// with a scale and a minimum of six bits for each group; 128 bytes of numbers q of four
// bits, byte l of 32 those of values l and l+32 of 64. The value is d*scale*q -
// dmin*minimum.
func decodeQ4_KGo(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[144]byte)(src)
		d, dmin := fromHalf(b[:2]), fromHalf(b[2:4])
		for group := range 8 {
			s, m := ScaleMin6((*[12]byte)(b[4:]), group)
			scale, low := d*float32(s), float32(dmin*float32(m))
			shift := group % 2 * 4
			q := (*[32]byte)(b[16+group/2*32:])
			for l, v := range q {
				y[32*group+l] = float32(scale*float32(v>>shift&15)) - low
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ5_KGo is decodeQ4_KGo with 32 bytes more before the numbers, their fifth bits: bit n
// of byte l belongs to value l of group n.
func decodeQ5_KGo(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[176]byte)(src)
		d, dmin := fromHalf(b[:2]), fromHalf(b[2:4])
		high := (*[32]byte)(b[16:])
		for group := range 8 {
			s, m := ScaleMin6((*[12]byte)(b[4:]), group)
			scale, low := d*float32(s), float32(dmin*float32(m))
			shift := group % 2 * 4
			q := (*[32]byte)(b[48+group/2*32:])
			for l, v := range q {
				v = v>>shift&15 | high[l]>>group&1<<4
				y[32*group+l] = float32(scale*float32(v)) - low
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ6_KGo is of blocks of 256 values in groups of 16: 128 bytes with the low four bits
// of each number q, 64 with the high two, a signed byte as the scale of each group, and the
// float16 d. The value is d*scale*(q-32).
//
// The numbers are packed by halves of 128 values: of the 64 bytes of low bits, byte l holds
// those of values l and l+64; of the 32 bytes of high bits, byte l those of values l, l+32,
// l+64 and l+96.
func decodeQ6_KGo(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[210]byte)(src)
		d := fromHalf(b[208:210])
		for group, s := range b[192:208] {
			scale := d * float32(int8(s))
			n, at := group%8, group/8 // of 128 values, and which 128
			low := (*[16]byte)(b[64*at+n%4*16:])
			high := (*[16]byte)(b[128+32*at+n%2*16:])
			for l, v := range low {
				q := v>>(n/4*4)&15 | high[l]>>(n/2*2)&3<<4
				y[16*group+l] = scale * float32(int(q)-32)
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ2_KGo is of blocks of 256 values in groups of 16: a byte for each group, its scale in
// the low half and its minimum in the high half; 64 bytes of numbers q of two bits; the
// float16 d and dmin that scale the scales and the minimums. The value is d*scale*q -
// dmin*minimum.
//
// The numbers are packed by halves of 128 values: byte l of 32 holds those of values l,
// l+32, l+64 and l+96, the first in the lowest bits.
func decodeQ2_KGo(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[84]byte)(src)
		d, dmin := fromHalf(b[80:82]), fromHalf(b[82:84])
		for group, s := range b[:16] {
			scale, low := d*float32(s&15), float32(dmin*float32(s>>4))
			shift := group / 2 % 4 * 2
			q := (*[16]byte)(b[16+group/8*32+group%2*16:])
			for l, v := range q {
				y[16*group+l] = float32(scale*float32(v>>shift&3)) - low
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ3_KGo is of blocks of 256 values in groups of 16: 32 bytes with the highest bit of
// each number, 64 with the two lower bits, packed as those of Q2_K; 12 bytes with a scale of
// six bits for each group; the float16 d. The value is d*(scale-32)*(q-4).
//
// Bit n of byte l of the first 32 belongs to value l+32*n. Of the scales, byte g holds the
// low four bits of those of groups g and g+8, and the last four bytes two bits each: byte g%4
// those of groups g, g+4, g+8 and g+12.
func decodeQ3_KGo(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[110]byte)(src)
		d := fromHalf(b[108:110])
		scales := (*[12]byte)(b[96:108])
		for group := range 16 {
			s := scales[group%8]>>(group/8*4)&15 | scales[8+group%4]>>(group/4*2)&3<<4
			scale := d * float32(int(s)-32)
			n := group / 2 // which 32 values
			high := (*[16]byte)(b[group%2*16:])
			low := (*[16]byte)(b[32+group/8*32+group%2*16:])
			for l, v := range low {
				q := v>>(n%4*2)&3 | high[l]>>n&1<<2
				y[16*group+l] = scale * float32(int(q)-4)
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeIQ4_NLGo is of Q4_0 blocks whose numbers count in a table: the value is d*table[q].
func decodeIQ4_NLGo(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[18]byte)(src)
		tableNibbles(y, fromHalf(b[:2]), (*[16]byte)(b[2:]), &ValuesIQ4)
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeIQ4_XSGo is of blocks of 256 values in groups of 32: the float16 d, a uint16 with the
// high two bits of the scale of each group, four bytes with the low four, then the numbers of
// each group as IQ4_NL has them. The value is d*(scale-32)*table[q].
func decodeIQ4_XSGo(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[136]byte)(src)
		d, high := fromHalf(b[:2]), binary.LittleEndian.Uint16(b[2:4])
		for group := range 8 {
			s := b[4+group/2]>>(group%2*4)&15 | byte(high>>(2*group)&3)<<4
			scale := d * float32(int(s)-32)
			tableNibbles((*[32]float32)(y[32*group:]), scale, (*[16]byte)(b[8+16*group:]), &ValuesIQ4)
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// ValuesIQ4 are the numbers that those of IQ4_NL and IQ4_XS stand for (kvalues_iq4nl).
var ValuesIQ4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// tableNibbles stores 32 values from a table, times d. Byte j has the numbers of values j and
// j+16.
func tableNibbles(dst *[32]float32, d float32, src *[16]byte, table *[16]float32) {
	for j, q := range src {
		dst[j] = d * table[q&15]
		dst[j+16] = d * table[q>>4]
	}
}

// decodeMXFP4Go is of blocks of 32 values: half a power of two as a byte, and the numbers as
// Q4_0 has them, in another table.
func decodeMXFP4Go(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[17]byte)(src)
		tableNibbles(y, halfE8M0(b[0]), (*[16]byte)(b[1:]), &ValuesE2M1)
		dst, src = dst[len(y):], src[len(b):]
	}
}

// halfE8M0 returns 2^(e-128), of which the first two are subnormal.
func halfE8M0(e byte) float32 {
	if e < 2 {
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// ValuesE2M1 is twice what the codes stand for, and the scales below are half
// of theirs (kvalues_fp4).
var ValuesE2M1 = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
