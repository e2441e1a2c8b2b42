package kernel

import (
	"encoding/binary"
	"math"
)

// Block32 is a format of ggml of blocks of 32 elements that is written by its largest
// value alone, or its least and its largest (ggml-common.h).
type Block32 int

// The formats: a block_q4_0 and so on.
const (
	Q4_0 Block32 = iota
	Q4_1
	Q5_0
	Q5_1
	Q8_0
	MXFP4
	blocks32
)

// Bytes returns the size of a block.
func (f Block32) Bytes() int { return [...]int{18, 20, 22, 24, BytesQ8, 17}[f] }

// block32Loops are the inner loops that write such blocks.
type block32Loops struct {
	// encode32 has the function for each format, of whole blocks.
	encode32 [blocks32]func(dst []byte, src []float32)

	// round8 is Round8 of whole blocks.
	round8 func(dst []byte, src []float32, mul float32)
}

var block32Go = block32Loops{
	encode32: [...]func(dst []byte, src []float32){
		Q4_0: encodeQ4_0Go, Q4_1: encodeQ4_1Go, Q5_0: encodeQ5_0Go, Q5_1: encodeQ5_1Go, Q8_0: encodeQ8_0Go, MXFP4: encodeMXFP4Go,
	},
	round8: round8Go,
}

// Encode32 stores whole blocks, with the bytes that ggml's quantize_row_..._ref makes on
// x86 of finite numbers. Whatever has a NaN in its block decodes to NaN, and in MXFP4,
// which has none, it and infinities to infinities. len(src) must be a multiple of 32.
func Encode32(f Block32, dst []byte, src []float32) {
	blocks := len(src) / 32
	use.encode32[f](dst[:blocks*f.Bytes()], src[:blocks*32])
}

// encodeQ4_0Go makes the value of the largest magnitude -8, which has no positive
// counterpart.
func encodeQ4_0Go(dst []byte, src []float32) {
	var q [32]byte
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[18]byte)(dst)
		putHalf(b[:2], signedLevels(&q, x, 8))
		putNibbles((*[16]byte)(b[2:]), &q)
		dst, src = dst[len(b):], src[len(x):]
	}
}

func encodeQ4_1Go(dst []byte, src []float32) {
	var q [32]byte
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[20]byte)(dst)
		d, m := levels(&q, x, 15)
		putHalf(b[:2], d)
		putHalf(b[2:4], m)
		putNibbles((*[16]byte)(b[4:]), &q)
		dst, src = dst[len(b):], src[len(x):]
	}
}

func encodeQ5_0Go(dst []byte, src []float32) {
	var q [32]byte
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[22]byte)(dst)
		putHalf(b[:2], signedLevels(&q, x, 16))
		putFifths(b[2:6], &q)
		putNibbles((*[16]byte)(b[6:]), &q)
		dst, src = dst[len(b):], src[len(x):]
	}
}

func encodeQ5_1Go(dst []byte, src []float32) {
	var q [32]byte
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[24]byte)(dst)
		d, m := levels(&q, x, 31)
		putHalf(b[:2], d)
		putHalf(b[2:4], m)
		putFifths(b[4:8], &q)
		putNibbles((*[16]byte)(b[8:]), &q)
		dst, src = dst[len(b):], src[len(x):]
	}
}

func encodeQ8_0Go(dst []byte, src []float32) {
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[BytesQ8]byte)(dst)
		d := magnitudeGo(x[:]) / 127
		putHalf(b[:2], d)
		round8Go(b[2:], x[:], inverse(d))
		dst, src = dst[len(b):], src[len(x):]
	}
}

// encodeMXFP4Go takes the power of two for the scale that gives the largest magnitude
// an exponent of 2, the largest there is; what is beyond 6 times it is cut off there.
func encodeMXFP4Go(dst []byte, src []float32) {
	for len(src) > 0 {
		x, b := (*[32]float32)(src), (*[17]byte)(dst)
		if top := magnitudeGo(x[:]); top <= math.MaxFloat32 {
			b[0] = scaleMXFP4(top)
			unit := math.Ldexp(1, int(b[0])-128)
			for j := range 16 {
				b[1+j] = codeE2M1(x[j], unit) | codeE2M1(x[j+16], unit)<<4
			}
		} else { // infinities
			b[0] = 255
			for j := range 16 {
				b[1+j] = 0x77
			}
		}
		dst, src = dst[len(b):], src[len(x):]
	}
}

// scaleMXFP4 returns the byte for a largest magnitude. In ggml the logarithm is rounded
// to a float32, so that what is a little less than a power of two may count as the
// power, and of what is below 2^-125 the byte wraps around: too large a scale, by which
// all values are 0.
func scaleMXFP4(top float32) byte {
	bits := math.Float32bits(top)
	if exponent := bits >> 23; exponent > 0 && bits&0x7fffff < 0x7fffc0 {
		return byte(exponent - 2)
	}
	if top == 0 {
		return 0
	}
	return byte(int(math.Floor(float64(float32(math.Log2(float64(top)))))) - 2 + 127)
}

// codeE2M1 returns the code of the value nearest to x: unit times 0, 1, 2, 3, 4, 6, 8 or
// 12, the one closer to zero of two. ggml takes none that is not finite as a float32.
func codeE2M1(x float32, unit float64) byte {
	r := math.Abs(float64(x)) / unit
	var code byte
	switch {
	case r > 10 && unit < 1<<125:
		code = 7
	case r > 7 && unit < 1<<125:
		code = 6
	case r > 5:
		code = 5
	case r > 3.5:
		code = 4
	case r > 2.5:
		code = 3
	case r > 1.5:
		code = 2
	case r > 0.5:
		code = 1
	default:
		return 0
	}
	return code | byte(math.Float32bits(x)>>31)<<3
}

// signedLevels makes numbers from 0 to 2*zero-1 of a block, of which zero is that of 0,
// and returns their unit: the value of the largest magnitude is -zero of it.
func signedLevels(q *[32]byte, x *[32]float32, zero int) float32 {
	d := extreme(x) / float32(-zero)
	id := inverse(d)
	half := float32(zero) + 0.5
	for j, v := range x {
		q[j] = min(truncate(float32(v*id)+half), byte(2*zero-1))
	}
	return d
}

// levels makes numbers from 0 to top of a block and returns their unit and the least
// value.
func levels(q *[32]byte, x *[32]float32, top int) (d, m float32) {
	m, high := span(x)
	d = (high - m) / float32(top)
	id := inverse(d)
	for j, v := range x {
		q[j] = min(truncate(float32((v-m)*id)+0.5), byte(top))
	}
	return d, m
}

// extreme returns the value of the largest magnitude, the first of those that have it,
// or NaN if there is one.
func extreme(x *[32]float32) float32 {
	if top := magnitudeGo(x[:]); top != top {
		return top
	}
	return furthest(x[:])
}

// span returns the least and the greatest value, the first of equal ones, which can be
// zeros of either sign. Both are NaN if there is one.
func span(x *[32]float32) (low, high float32) {
	low, high = x[0], x[0]
	for _, v := range x {
		if v < low {
			low = v
		}
		if v > high {
			high = v
		}
		if v != v {
			return v, v
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
	return byte(int32(x))
}

// putNibbles packs what has four bits; byte j has the numbers of values j and j+16.
func putNibbles(dst *[16]byte, q *[32]byte) {
	const low = 0x0f0f0f0f0f0f0f0f
	for j := 0; j < 16; j += 8 {
		a, b := binary.LittleEndian.Uint64(q[j:])&low, binary.LittleEndian.Uint64(q[j+16:])&low
		binary.LittleEndian.PutUint64(dst[j:], a|b<<4)
	}
}

// putFifths packs the fifth bits, that of value j in bit j.
func putFifths(dst []byte, q *[32]byte) {
	for j := range 4 {
		b := binary.LittleEndian.Uint64(q[8*j:]) >> 4 & 0x0101010101010101
		dst[j] = byte(b * 0x0102040810204080 >> 56)
	}
}

// putHalf stores d as a float16. Whatever is no number has the sign that x86 gives to a
// NaN that it makes.
func putHalf(dst []byte, d float32) {
	h := F32ToF16(d)
	if d != d {
		h = 0xfe00
	}
	binary.LittleEndian.PutUint16(dst, h)
}

// Round8 multiplies and rounds to the nearest integer, ties away from zero, as C's
// roundf, and stores it as a signed byte. The products must be from -127.49 to 127.49:
// those that are NaN or infinite, as they are where the inverse of something subnormal
// overflows, become 0. C leaves that to the processor, and it is what ggml gets on x86.
func Round8(dst []byte, src []float32, mul float32) {
	dst = dst[:len(src)]
	n := len(src) &^ 31
	if n > 0 {
		use.round8(dst[:n], src[:n], mul)
	}
	round8Go(dst[n:], src[n:], mul)
}

func round8Go(dst []byte, src []float32, mul float32) {
	dst = dst[:len(src)]
	for i, x := range src {
		dst[i] = byte(roundInt8(float32(x * mul)))
	}
}

// almostHalf is the float32 before a half. The half itself would round up what is just
// below it.
const almostHalf = 0.5 - 0x1p-25

func roundInt8(x float32) int8 {
	r := x + float32(math.Copysign(almostHalf, float64(x)))
	if !(r > -128 && r < 128) {
		return 0
	}
	return int8(int32(r))
}
