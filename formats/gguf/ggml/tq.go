package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A TQ1_0 block is 256 values of -d, 0 and d: 48 bytes of five values each, four
// bytes of four, and the float16 d. A byte is a fraction of 256 in base 3, the
// first value its highest digit (ggml-common.h, block_tq1_0). The first 32 bytes
// hold values 0 to 159, byte m the values m, m+32 and so on; the next 16 hold the
// 80 that follow in the same manner, and the last four the rest.
//
// A TQ2_0 block is 64 bytes of four values of two bits, packed as those of Q2_K,
// and the float16 d. The value is d*(q-1), of which ggml writes no 2*d
// (block_tq2_0).
const (
	budgetTQ1_0 = 0.85
	budgetTQ2_0 = 0.85

	// Half of d, and the rounding of d.
	largestTQ = 0.5 + 1.0/(1<<11) + 1e-6
)

var powersOf3 = [5]byte{1, 3, 9, 27, 81}

// trit returns the value of a digit of q, -1, 0 or 1: the product drops the
// digits before it, the rest of it is times three over 256.
func trit(q, power byte) float32 { return float32(int(uint16(q*power)*3>>8) - 1) }

// decodeTQ1_0 is dequantize_row_tq1_0.
func decodeTQ1_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[54]byte)(src)
		d := half(b[52:54])
		for n, power := range powersOf3 {
			for m, q := range b[:32] {
				y[32*n+m] = trit(q, power) * d
			}
			for m, q := range b[32:48] {
				y[160+16*n+m] = trit(q, power) * d
			}
		}
		for n, power := range powersOf3[:4] {
			for m, q := range b[48:52] {
				y[240+4*n+m] = trit(q, power) * d
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeTQ2_0 is dequantize_row_tq2_0.
func decodeTQ2_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[256]float32)(dst), (*[66]byte)(src)
		d := half(b[64:66])
		for n := range 8 {
			q, shift := (*[32]byte)(b[n/4*32:]), n%4*2
			for m, v := range q {
				y[32*n+m] = float32(int(v>>shift&3)-1) * d
			}
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// encodeTQ1_0 is quantize_row_tq1_0_ref.
func encodeTQ1_0(dst []byte, src []float32) {
	for len(src) > 0 {
		b := (*[54]byte)(dst)
		var t [256]byte
		putHalf(b[52:54], trits(&t, src))
		for m := range 32 {
			b[m] = fraction(t[m], t[32+m], t[64+m], t[96+m], t[128+m])
		}
		for m := range 16 {
			b[32+m] = fraction(t[160+m], t[176+m], t[192+m], t[208+m], t[224+m])
		}
		for m := range 4 {
			b[48+m] = fraction(t[240+m], t[244+m], t[248+m], t[252+m], 0)
		}
		dst, src = dst[len(b):], src[len(t):]
	}
}

// fraction returns five digits in base 3 as a fraction of 256, rounded up so that the
// products of trit have them whole.
func fraction(a, b, c, d, e byte) byte {
	q := ((((int(a)*3+int(b))*3+int(c))*3 + int(d)) * 3) + int(e)
	return byte((q*256 + 242) / 243)
}

// encodeTQ2_0 is quantize_row_tq2_0_ref.
func encodeTQ2_0(dst []byte, src []float32) {
	for len(src) > 0 {
		b := (*[66]byte)(dst)
		var t [256]byte
		putHalf(b[64:66], trits(&t, src))
		for m := range 32 {
			b[m] = t[m] | t[32+m]<<2 | t[64+m]<<4 | t[96+m]<<6
			b[32+m] = t[128+m] | t[160+m]<<2 | t[192+m]<<4 | t[224+m]<<6
		}
		dst, src = dst[len(b):], src[len(t):]
	}
}

// trits stores the first values of x rounded to -d, 0 or d, as 0, 1 or 2, and returns
// d, their largest magnitude.
func trits(dst *[256]byte, x []float32) float32 {
	d := kernel.Absmax(x[:256])
	kernel.Round8(dst[:], x[:256], inverse(d))
	for i := range dst {
		dst[i]++
	}
	return d
}
