package ggml

import "github.com/seed18967229/nibble/internal/kernel"

// A Q4_0 block is 32 values: the scale d as a float16, then 16 bytes, of which
// byte j holds the number q of value j in its low half and that of value j+16 in
// its high half. The value is d*(q-8) (ggml-common.h, block_q4_0).
//
// A Q4_1 block has a second float16 after d, the minimum m, and the value is
// d*q+m.
const (
	budgetQ4_0 = 0.087
	budgetQ4_1 = 0.08

	// What has the largest magnitude but for its sign loses a whole step of 1/8; of
	// the others, and of all in a Q4_1 block, it is half a step. The roundings of the
	// float16 count for both ends.
	largestQ4_0 = 1.0/8 + 1.0/(1<<11) + 1e-6
	largestQ4_1 = 1.0/15 + 3.0/(1<<11) + 1e-6
)

// decodeQ4_0 is dequantize_row_q4_0.
func decodeQ4_0(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[18]byte)(src)
		d := half(b[:2])
		for j, q := range b[2:] {
			y[j] = float32(int(q&15)-8) * d
			y[j+16] = float32(int(q>>4)-8) * d
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// decodeQ4_1 is dequantize_row_q4_1.
func decodeQ4_1(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[32]float32)(dst), (*[20]byte)(src)
		d, m := half(b[:2]), half(b[2:4])
		for j, q := range b[4:] {
			y[j] = float32(float32(q&15)*d) + m
			y[j+16] = float32(float32(q>>4)*d) + m
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}

// encodeQ4_0 is quantize_row_q4_0_ref. The value of the largest magnitude becomes
// -8, which has no positive counterpart.
func encodeQ4_0(dst []byte, src []float32) {
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[18]byte)(dst)
		d := extreme(x[:]) / -8
		id := inverse(d)
		putHalf(b[:2], d)
		for j := range 16 {
			low, high := truncate(float32(x[j]*id)+8.5), truncate(float32(x[j+16]*id)+8.5)
			b[2+j] = min(low, 15) | min(high, 15)<<4
		}
		dst, src = dst[len(b):], src[len(x):]
	}
}

// encodeQ4_1 is quantize_row_q4_1_ref.
func encodeQ4_1(dst []byte, src []float32) {
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[20]byte)(dst)
		m, top := span(x[:])
		d := (top - m) / 15
		id := inverse(d)
		putHalf(b[:2], d)
		putHalf(b[2:4], m)
		for j := range 16 {
			low, high := truncate(float32((x[j]-m)*id)+0.5), truncate(float32((x[j+16]-m)*id)+0.5)
			b[4+j] = min(low, 15) | min(high, 15)<<4
		}
		dst, src = dst[len(b):], src[len(x):]
	}
}

// extreme returns the value of the largest magnitude, the first of those that have
// it, or NaN if there is one.
func extreme(x []float32) float32 {
	top := kernel.Absmax(x)
	if top > 0 {
		for _, v := range x {
			if v == top || v == -top {
				return v
			}
		}
	}
	return top
}

// span returns the least and the greatest value, the first of equal ones, which can
// be zeros of either sign. Both are NaN if there is one.
func span(x []float32) (low, high float32) {
	if top := kernel.Absmax(x); top != top {
		return top, top
	}
	low, high = x[0], x[0]
	for _, v := range x {
		if v < low {
			low = v
		}
		if v > high {
			high = v
		}
	}
	return low, high
}

// inverse returns 1/d, and 0 of zero.
func inverse(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// truncate drops the fraction. What is no byte, as where 1/d overflows, becomes 0: C
// leaves that to the processor, and it is what ggml gets on x86.
func truncate(x float32) byte {
	if !(x > -1 && x < 256) {
		return 0
	}
	return byte(x)
}

// encodeQ4_0Weighted is quantize_row_q4_0_impl, save that a NaN or an infinity spoils
// its block.
func encodeQ4_0Weighted(dst []byte, src, importance []float32) {
	weighted32(dst, src, importance, 18, func(b []byte, x, weights []float32) {
		var codes [32]byte
		putHalf(b, fitSigned32(&codes, x, weights, 8))
		putFourBits(b[2:], &codes)
	})
}

// encodeQ4_1Weighted is quantize_row_q4_1_impl, save the same.
func encodeQ4_1Weighted(dst []byte, src, importance []float32) {
	weighted32(dst, src, importance, 20, func(b []byte, x, weights []float32) {
		var codes [32]byte
		d, low := fitRange32(&codes, x, weights, 15)
		putHalf(b, d)
		putHalf(b[2:], low)
		putFourBits(b[4:], &codes)
	})
}
