package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A Q4_K block is 256 values in groups of 32: the float16 d and dmin; 12 bytes
// with a scale and a minimum of six bits for each group; 128 bytes of numbers q
// of four bits, byte l of 32 those of values l and l+32 of 64. The value is
// d*scale*q - dmin*minimum (ggml-common.h, block_q4_K).
//
// A Q5_K block has 32 bytes more before the numbers, with their fifth bits: bit
// n of byte l belongs to value l of group n (block_q5_K).
const (
	budgetQ4_K = 0.073
	budgetQ5_K = 0.037
)

// decodeQ4_K is dequantize_row_q4_K.
func decodeQ4_K(dst []float32, src []byte) { kernel.CodingQ4_K.Decode(dst, src) }

// decodeQ5_K is dequantize_row_q5_K.
func decodeQ5_K(dst []float32, src []byte) { kernel.CodingQ5_K.Decode(dst, src) }

var q4_K = lowEnded{
	bytes: 144, d: 0, size: 32, multiple: 63, spread: 2,
	plain:        kernel.Range{Levels: 15, First: -1, Step: 0.1, Steps: 20},
	weighted:     kernel.Range{Levels: 15, First: -0.9, Step: 0.05, Steps: 36},
	putMultiples: putScaleMin6,
	multiples:    func(b []byte, group int) (scale, low byte) { return kernel.ScaleMin6((*[12]byte)(b[4:]), group) },
	putCodes: func(b []byte, codes *[superBlock]byte) {
		for n := range 4 {
			q, c := b[16+32*n:48+32*n], codes[64*n:64*n+64]
			for l := 0; l < 32; l += 8 {
				putEight(q[l:], eight(c[l:])|eight(c[l+32:])<<4)
			}
		}
	},
}

var q5_K = lowEnded{
	bytes: 176, d: 0, size: 32, multiple: 63, spread: 2,
	plain:        kernel.Range{Levels: 31, First: -0.5, Step: 0.1, Steps: 15},
	weighted:     kernel.Range{Levels: 31, First: -0.9, Step: 0.05, Steps: 36},
	putMultiples: putScaleMin6,
	multiples:    func(b []byte, group int) (scale, low byte) { return kernel.ScaleMin6((*[12]byte)(b[4:]), group) },
	putCodes: func(b []byte, codes *[superBlock]byte) {
		for l := 0; l < 32; l += 8 {
			var high uint64
			for n := range 4 {
				c0, c1 := eight(codes[64*n+l:]), eight(codes[64*n+l+32:])
				putEight(b[48+32*n+l:], c0&(15*ones)|c1&(15*ones)<<4)
				high |= c0>>4&ones<<(2*n) | c1>>4&ones<<(2*n+1)
			}
			putEight(b[16+l:], high)
		}
	},
}

// putScaleMin6 stores what kernel.ScaleMin6 reads.
func putScaleMin6(block []byte, scales, lows *[kernel.FitGroups]byte) {
	b := (*[12]byte)(block[4:])
	for g := range 8 {
		s, m := min(63, scales[g]), min(63, lows[g])
		if g < 4 {
			b[g], b[g+4] = s, m
			continue
		}
		b[g+4] = s&15 | m<<4
		b[g-4] |= s >> 4 << 6
		b[g] |= m >> 4 << 6
	}
}

// encodeQ4_K is quantize_row_q4_K_ref, save that a NaN or an infinity spoils its
// super-block.
func encodeQ4_K(dst []byte, src []float32) { q4_K.encode(dst, src, nil) }

// encodeQ4_KWeighted is quantize_row_q4_K_impl, save the same.
func encodeQ4_KWeighted(dst []byte, src, importance []float32) { q4_K.encode(dst, src, importance) }

// encodeQ5_K is quantize_row_q5_K_ref, save the same.
func encodeQ5_K(dst []byte, src []float32) { q5_K.encode(dst, src, nil) }

// encodeQ5_KWeighted is quantize_row_q5_K_impl, save the same.
func encodeQ5_KWeighted(dst []byte, src, importance []float32) { q5_K.encode(dst, src, importance) }
