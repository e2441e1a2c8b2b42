package ggml

import (
	"encoding/binary"

	"github.com/seed18967229/nibble/internal/kernel"
)

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

// codesIQ4 has the code of the value in the table that is nearest to x, the higher one
// of two, at floor(2x)+256: the middles between neighbours are multiples of a half.
var codesIQ4 = func() (codes [512]byte) {
	for i := range codes {
		for c := range valuesIQ4[1:] {
			if float32(i-256) >= valuesIQ4[c]+valuesIQ4[c+1] {
				codes[i]++
			}
		}
	}
	return codes
}()

// codeIQ4 is best_index_int8. A NaN has the last code.
func codeIQ4(x float32) byte {
	switch {
	case x <= -127:
		return 0
	case x < 113:
		// No middle is near zero, where the sum is not exact.
		return codesIQ4[int(2*float64(x)+256)&511]
	}
	return 15
}

// encodeIQ4_NL is quantize_iq4_nl without an importance matrix, save that a value that
// is not finite spoils its block.
func encodeIQ4_NL(dst []byte, src []float32) {
	for len(src) > 0 {
		storeIQ4_NL((*[18]byte)(dst), (*[32]float32)(src), nil)
		dst, src = dst[18:], src[32:]
	}
}

// encodeIQ4_NLWeighted is encodeIQ4_NL with one.
func encodeIQ4_NLWeighted(dst []byte, src, importance []float32) {
	for len(src) > 0 {
		for at := 0; at < len(importance); at += 32 {
			storeIQ4_NL((*[18]byte)(dst), (*[32]float32)(src), importance[at:at+32])
			dst, src = dst[18:], src[32:]
		}
	}
}

// encodeIQ4_XS is quantize_iq4_xs without an importance matrix, save that a value that
// is not finite spoils its block.
func encodeIQ4_XS(dst []byte, src []float32) {
	for len(src) > 0 {
		storeIQ4_XS((*[136]byte)(dst), (*[256]float32)(src), nil)
		dst, src = dst[136:], src[256:]
	}
}

// encodeIQ4_XSWeighted is encodeIQ4_XS with one.
func encodeIQ4_XSWeighted(dst []byte, src, importance []float32) {
	for len(src) > 0 {
		for at := 0; at < len(importance); at += 256 {
			storeIQ4_XS((*[136]byte)(dst), (*[256]float32)(src), importance[at:at+256])
			dst, src = dst[136:], src[256:]
		}
	}
}

// storeIQ4_NL stores a block. The scale is rounded after the codes are chosen.
func storeIQ4_NL(b *[18]byte, x *[32]float32, importance []float32) {
	if !finite(x[:]) {
		spoil(b[:], 0)
		return
	}
	d := scaleIQ4(x, importance, spreadIQ4(x[:]))
	putHalf(b[:2], d)
	putNibblesIQ4((*[16]byte)(b[2:]), x, inverse(d))
}

// storeIQ4_XS stores a block: the scales of its groups in units of the largest of them
// over -32, the codes by the scales that come of it, save that the unit is not rounded.
func storeIQ4_XS(b *[136]byte, x *[256]float32, importance []float32) {
	if !finite(x[:]) {
		spoil(b[:], 0)
		return
	}
	clear(b[4:8])
	spread := spreadIQ4(x[:])
	var scales [8]float32
	var top float32
	for group := range scales {
		var weights []float32
		if importance != nil {
			weights = importance[32*group:]
		}
		d := scaleIQ4((*[32]float32)(x[32*group:]), weights, spread)
		if abs(d) > abs(top) {
			top = d
		}
		scales[group] = d
	}
	d := -top / 32
	putHalf(b[:2], d)
	id := inverse(d)
	var high uint16
	for group, scale := range scales {
		s := max(-32, min(31, roundEven(float32(id*scale))))
		putNibblesIQ4((*[16]byte)(b[8+16*group:]), (*[32]float32)(x[32*group:]), inverse(d*float32(s)))
		b[4+group/2] |= byte(s+32) & 15 << (group % 2 * 4)
		high |= uint16(s+32) >> 4 << (2 * group)
	}
	binary.LittleEndian.PutUint16(b[2:], high)
}

// putNibblesIQ4 stores the codes of 32 values times id.
func putNibblesIQ4(dst *[16]byte, x *[32]float32, id float32) {
	for j := range dst {
		dst[j] = codeIQ4(x[j]*id) | codeIQ4(x[j+16]*id)<<4
	}
}

// scaleIQ4 returns the scale of 32 values: of those that give the value of the largest
// magnitude 127 of either sign, or up to seven more or less, the one after which the
// least squares are the least. A square counts x^2-fold, or as much as importance says
// times the root of x^2 and the spread around it.
func scaleIQ4(x *[32]float32, importance []float32, spread float32) float32 {
	top := furthest(x[:])
	if abs(top) < tiny {
		return 0
	}
	var weight [32]float32
	if importance != nil {
		kernel.Weigh(weight[:], x[:], importance, spread)
	} else {
		for j, v := range x {
			weight[j] = v * v
		}
	}
	var d float32
	qx, qq := fitIQ4(x, &weight, 1/(top/127))
	if qq > 0 {
		d = qx / qq
	}
	best := d * qx
	for target := -134; target <= -120; target++ {
		qx, qq := fitIQ4(x, &weight, float32(target)/top)
		if qq > 0 && qx*qx > best*qq {
			d = qx / qq
			best = d * qx
		}
	}
	return d
}

// fitIQ4 returns the weighted sums of q*x and q*q over the values q that x times id
// becomes.
func fitIQ4(x, weight *[32]float32, id float32) (qx, qq float32) {
	for j, v := range x {
		q := valuesIQ4[codeIQ4(v*id)]
		wq := weight[j] * q
		qx += float32(wq * v)
		qq += float32(wq * q)
	}
	return qx, qq
}

// spreadIQ4 returns twice the mean square.
func spreadIQ4(x []float32) float32 { return float32(sumOfSquares(x) * (2 / float32(len(x)))) }

// inverse returns 1/d, and 0 of zero.
func inverse(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}
