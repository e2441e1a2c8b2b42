package ggml

// A Q2_K block is 256 values in groups of 16: a byte for each group, its scale
// in the low half and its minimum in the high half; 64 bytes of numbers q of two
// bits; the float16 d and dmin that scale the scales and the minimums. The value
// is d*scale*q - dmin*minimum (ggml-common.h, block_q2_K).
//
// The numbers are packed by halves of 128 values: byte l of 32 holds those of
// values l, l+32, l+64 and l+96, the first in the lowest bits.
const budgetQ2_K = 0.3

// decodeQ2_K is dequantize_row_q2_K.
func decodeQ2_K(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[84]byte)(src)
		d, dmin := half(b[80:82]), half(b[82:84])
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
