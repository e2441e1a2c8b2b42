package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A Q3_K block is 256 values in groups of 16: 32 bytes with the highest bit of
// each number, 64 with the two lower bits, packed as those of Q2_K; 12 bytes
// with a scale of six bits for each group; the float16 d. The value is
// d*(scale-32)*(q-4) (ggml-common.h, block_q3_K).
//
// Bit n of byte l of the first 32 belongs to value l+32*n. Of the scales, byte g
// holds the low four bits of those of groups g and g+8, and the last four bytes
// two bits each: byte g%4 those of groups g, g+4, g+8 and g+12.
const budgetQ3_K = 0.155

// decodeQ3_K is dequantize_row_q3_K.
func decodeQ3_K(dst []float32, src []byte) { kernel.CodingQ3_K.Decode(dst, src) }

var q3_K = aroundZero{
	bytes: 110, d: 108, levels: 4,
	fit:   fitQ3_K,
	put:   putQ3_K,
	codes: func(codes []byte, x []float32, _ float32) { kernel.DescentCodes(codes, x, 4) },
}

var q3_KWeighted = aroundZero{
	bytes: 110, d: 108, levels: 4,
	fit:   fitQ3_KWeighted,
	put:   putQ3_K,
	codes: func(codes []byte, x []float32, inverse float32) { kernel.SignedCodes(codes, x, inverse, 4) },
}

func fitQ3_K(s *signedFit, x, _ []float32) (d float32, ok bool) {
	kernel.FitDescent(&s.Fit, x, signedSize, 4)
	top := furthest(s.Scale[:])
	if top == 0 {
		for g := range s.multiples {
			s.multiples[g] = -32
		}
		return 0, true
	}
	inverse := -32 / top
	for g, scale := range s.Scale {
		s.multiples[g] = max(-32, min(31, int8(roundEven(float32(inverse*scale)))))
	}
	return 1 / inverse, true
}

func fitQ3_KWeighted(s *signedFit, x, importance []float32) (d float32, ok bool) {
	var weights [superBlock]float32
	var sums [kernel.FitGroups]float32
	kernel.Weigh(weights[:], x, importance, 2*sumOfSquares(x)/superBlock)
	for i, w := range weights {
		sums[i/signedSize] += w
	}
	kernel.FitSigned(&s.Fit, x, weights[:], signedSize, 4)

	// The scales are fitted as if they were a group.
	var codes [kernel.FitGroups]byte
	kernel.FitSigned(&s.outer, s.Scale[:], sums[:], kernel.FitGroups, 32)
	kernel.SignedCodes(codes[:], s.Scale[:], s.outer.Inverse[0], 32)
	for g, c := range codes {
		s.multiples[g] = int8(c) - 32
	}
	return s.outer.Scale[0], true
}

func putQ3_K(b []byte, multiples *[kernel.FitGroups]int8, codes *[superBlock]byte) {
	scales := (*[12]byte)(b[96:])
	clear(scales[:])
	for g, m := range multiples {
		s := byte(m + 32)
		scales[g%8] |= s & 15 << (g / 8 * 4)
		scales[8+g%4] |= s >> 4 << (g / 4 * 2)
	}
	for l := 0; l < 32; l += 8 {
		var high uint64
		for n := range 8 {
			high |= eight(codes[32*n+l:]) >> 2 & ones << n
		}
		putEight(b[l:], high)
	}
	putTwoBits(b[32:96], codes)
}

// encodeQ3_K is quantize_row_q3_K_ref, save that a NaN or an infinity spoils its
// super-block.
func encodeQ3_K(dst []byte, src []float32) { q3_K.encode(dst, src, nil) }

// encodeQ3_KWeighted is quantize_row_q3_K_impl, save the same.
func encodeQ3_KWeighted(dst []byte, src, importance []float32) {
	q3_KWeighted.encode(dst, src, importance)
}
