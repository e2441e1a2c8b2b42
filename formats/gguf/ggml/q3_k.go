package ggml

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
func decodeQ3_K(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[110]byte)(src)
		d := half(b[108:110])
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
