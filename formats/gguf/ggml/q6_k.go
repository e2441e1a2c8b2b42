package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A Q6_K block is 256 values in groups of 16: 128 bytes with the low four bits
// of each number q, 64 with the high two, a signed byte as the scale of each
// group, and the float16 d. The value is d*scale*(q-32) (ggml-common.h,
// block_q6_K).
//
// The numbers are packed by halves of 128 values: of the 64 bytes of low bits,
// byte l holds those of values l and l+64; of the 32 bytes of high bits, byte l
// those of values l, l+32, l+64 and l+96.
const budgetQ6_K = 0.019

// decodeQ6_K is dequantize_row_q6_K.
func decodeQ6_K(dst []float32, src []byte) { kernel.CodingQ6_K.Decode(dst, src) }

var q6_K = aroundZero{
	bytes: 210, d: 208, levels: 32,
	fit: func(s *signedFit, x, importance []float32) (d float32, ok bool) {
		kernel.FitSigned(&s.Fit, x, importance, signedSize, 32)
		top := furthest(s.Scale[:])
		if abs(top) < tiny {
			return 0, false
		}
		inverse := -128 / top
		for g, scale := range s.Scale {
			s.multiples[g] = int8(min(127, roundEven(float32(inverse*scale))))
		}
		return 1 / inverse, true
	},
	codes: func(codes []byte, x []float32, inverse float32) { kernel.SignedCodes(codes, x, inverse, 32) },
	put: func(b []byte, multiples *[kernel.FitGroups]int8, codes *[superBlock]byte) {
		for half := range 2 {
			low, high, c := b[64*half:64*half+64], b[128+32*half:160+32*half], codes[128*half:128*half+128]
			for l := 0; l < 32; l += 8 {
				const mask = 15 * ones
				c0, c1, c2, c3 := eight(c[l:]), eight(c[l+32:]), eight(c[l+64:]), eight(c[l+96:])
				putEight(low[l:], c0&mask|c2&mask<<4)
				putEight(low[l+32:], c1&mask|c3&mask<<4)
				putEight(high[l:], c0&^mask>>4|c1&^mask>>2|c2&^mask|c3&^mask<<2)
			}
		}
		for g, m := range multiples {
			b[192+g] = byte(m)
		}
	},
}

// encodeQ6_K is quantize_row_q6_K_ref, save that a NaN or an infinity spoils its
// super-block.
func encodeQ6_K(dst []byte, src []float32) { q6_K.encode(dst, src, nil) }

// encodeQ6_KWeighted is quantize_row_q6_K_impl, save the same.
func encodeQ6_KWeighted(dst []byte, src, importance []float32) { q6_K.encode(dst, src, importance) }
