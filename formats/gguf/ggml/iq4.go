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

// decodeIQ4_NL is dequantize_row_iq4_nl.
func decodeIQ4_NL(dst []float32, src []byte) { kernel.CodingIQ4_NL.Decode(dst, src) }

// decodeIQ4_XS is dequantize_row_iq4_xs.
func decodeIQ4_XS(dst []float32, src []byte) { kernel.CodingIQ4_XS.Decode(dst, src) }

var tableIQ4 = kernel.NewTable16(kernel.ValuesIQ4)

// searchIQ4 is what the search for a scale works with: memory for a whole call.
type searchIQ4 struct {
	weights [32]float32
	inverse [16]float32
	sums    kernel.Sums16
}

// encodeIQ4_NL is quantize_iq4_nl without an importance matrix, save that a value that
// is not finite spoils its block.
func encodeIQ4_NL(dst []byte, src []float32) {
	var s searchIQ4
	for len(src) > 0 {
		s.storeIQ4_NL((*[18]byte)(dst), (*[32]float32)(src), nil)
		dst, src = dst[18:], src[32:]
	}
}

// encodeIQ4_NLWeighted is encodeIQ4_NL with one.
func encodeIQ4_NLWeighted(dst []byte, src, importance []float32) {
	var s searchIQ4
	for len(src) > 0 {
		for at := 0; at < len(importance); at += 32 {
			s.storeIQ4_NL((*[18]byte)(dst), (*[32]float32)(src), importance[at:at+32])
			dst, src = dst[18:], src[32:]
		}
	}
}

// encodeIQ4_XS is quantize_iq4_xs without an importance matrix, save that a value that
// is not finite spoils its block.
func encodeIQ4_XS(dst []byte, src []float32) {
	var s searchIQ4
	for len(src) > 0 {
		s.storeIQ4_XS((*[136]byte)(dst), (*[256]float32)(src), nil)
		dst, src = dst[136:], src[256:]
	}
}

// encodeIQ4_XSWeighted is encodeIQ4_XS with one.
func encodeIQ4_XSWeighted(dst []byte, src, importance []float32) {
	var s searchIQ4
	for len(src) > 0 {
		for at := 0; at < len(importance); at += 256 {
			s.storeIQ4_XS((*[136]byte)(dst), (*[256]float32)(src), importance[at:at+256])
			dst, src = dst[136:], src[256:]
		}
	}
}

// storeIQ4_NL stores a block. The scale is rounded after the codes are chosen.
func (s *searchIQ4) storeIQ4_NL(b *[18]byte, x *[32]float32, importance []float32) {
	if !finite(x[:]) {
		spoil(b[:], 0)
		return
	}
	d := s.scale(x, importance, spreadIQ4(x[:]))
	putHalf(b[:2], d)
	tableIQ4.Nibbles((*[16]byte)(b[2:]), inverse(d), x)
}

// storeIQ4_XS stores a block: the scales of its groups in units of the largest of them
// over -32, the codes by the scales that come of it, save that the unit is not rounded.
func (s *searchIQ4) storeIQ4_XS(b *[136]byte, x *[256]float32, importance []float32) {
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
		d := s.scale((*[32]float32)(x[32*group:]), weights, spread)
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
		l := max(-32, min(31, roundEven(float32(id*scale))))
		tableIQ4.Nibbles((*[16]byte)(b[8+16*group:]), inverse(d*float32(l)), (*[32]float32)(x[32*group:]))
		b[4+group/2] |= byte(l+32) & 15 << (group % 2 * 4)
		high |= uint16(l+32) >> 4 << (2 * group)
	}
	binary.LittleEndian.PutUint16(b[2:], high)
}

// scale returns the scale of 32 values: of those that give the value of the largest
// magnitude 127 of either sign, or up to seven more or less, the one after which the
// least squares are the least. A square counts x^2-fold, or as much as importance says
// times the root of x^2 and the spread around it.
func (s *searchIQ4) scale(x *[32]float32, importance []float32, spread float32) float32 {
	top := furthest(x[:])
	if abs(top) < tiny {
		return 0
	}
	if importance != nil {
		kernel.Weigh(s.weights[:], x[:], importance, spread)
	} else {
		for j, v := range x {
			s.weights[j] = v * v
		}
	}
	// The first is to begin with; in ggml its sign is the other one.
	s.inverse[0] = 1 / (top / 127)
	for try := range s.inverse[1:] {
		s.inverse[1+try] = float32(try-134) / top
	}
	tableIQ4.Fit(&s.sums, &s.inverse, x, &s.weights)
	var d, best float32
	for try, qq := range s.sums.Square {
		qx := s.sums.Mixed[try]
		if try == 0 || qq > 0 && qx*qx > best*qq {
			d = 0
			if qq > 0 {
				d = qx / qq
			}
			best = d * qx
		}
	}
	return d
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
