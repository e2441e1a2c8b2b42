package ggml

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
func decodeQ6_K(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[210]byte)(src)
		d := half(b[208:210])
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
