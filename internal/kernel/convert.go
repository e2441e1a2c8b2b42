package kernel

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// The conversions below read and write little-endian bytes. len(dst) and
// len(src) must correspond; a shorter byte slice panics. dst and src do not overlap.
// All variants give the same bits.

// convertLoops are the inner loops between number formats.
type convertLoops struct {
	decodeBF16, decodeF16, decodeF64 func(dst []float32, src []byte)
	encodeBF16, encodeF16, encodeF64 func(dst []byte, src []float32)

	roundBF16 func(x []float32)
}

var convertGo = convertLoops{
	decodeBF16: decodeBF16Go, decodeF16: decodeF16Go, decodeF64: decodeF64Go,
	encodeBF16: encodeBF16Go, encodeF16: encodeF16Go, encodeF64: encodeF64Go,
	roundBF16: roundBF16Go,
}

// littleEndian says that float32 values lie in memory as they do in files.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// memory returns the bytes of x.
func memory(x []float32) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x))
}

// DecodeF32 copies float32 values out of their bytes.
func DecodeF32(dst []float32, src []byte) {
	src = src[:4*len(dst)]
	if littleEndian {
		copy(memory(dst), src)
		return
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// EncodeF32 copies float32 values into bytes.
func EncodeF32(dst []byte, src []float32) {
	dst = dst[:4*len(src)]
	if littleEndian {
		copy(dst, memory(src))
		return
	}
	for i, x := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}

// DecodeF64 rounds float64 values to the nearest float32, ties to even.
func DecodeF64(dst []float32, src []byte) { use.decodeF64(dst, src[:8*len(dst)]) }

func decodeF64Go(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
	}
}

// EncodeF64 widens float32 values to float64.
func EncodeF64(dst []byte, src []float32) { use.encodeF64(dst[:8*len(src)], src) }

func encodeF64Go(dst []byte, src []float32) {
	for i, x := range src {
		binary.LittleEndian.PutUint64(dst[8*i:], math.Float64bits(float64(x)))
	}
}

// DecodeBF16 widens bfloat16 values; every one is exact.
func DecodeBF16(dst []float32, src []byte) { use.decodeBF16(dst, src[:2*len(dst)]) }

func decodeBF16Go(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// EncodeBF16 rounds to the nearest bfloat16, ties to even. A NaN stays one and
// becomes quiet.
func EncodeBF16(dst []byte, src []float32) { use.encodeBF16(dst[:2*len(src)], src) }

func encodeBF16Go(dst []byte, src []float32) {
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToBF16(x))
	}
}

// F32ToBF16 rounds one value to the bits of the nearest bfloat16, ties to even.
func F32ToBF16(x float32) uint16 {
	b := math.Float32bits(x)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// RoundBF16 rounds each value to the nearest bfloat16 in place, ties to even.
func RoundBF16(x []float32) { use.roundBF16(x) }

func roundBF16Go(x []float32) {
	for i, v := range x {
		x[i] = BF16ToF32(F32ToBF16(v))
	}
}

// BF16ToF32 widens one bfloat16 given by its bits.
func BF16ToF32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// DecodeF16 widens IEEE half-precision values; every one is exact.
func DecodeF16(dst []float32, src []byte) { use.decodeF16(dst, src[:2*len(dst)]) }

func decodeF16Go(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// F16ToF32 widens one half-precision value given by its bits.
func F16ToF32(h uint16) float32 {
	sign, em := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	if em >= 0x7c00 { // Inf, and NaN with its payload
		return math.Float32frombits(sign | 0x7f800000 | em<<13)
	}
	// As float32 bits the exponent is 112 too small; the product mends that
	// and normalizes the subnormals, both exactly.
	f := math.Float32frombits(em<<13) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(f))
}

// EncodeF16 rounds to the nearest half-precision value, ties to even. What is
// too large becomes Inf, a NaN stays one and becomes quiet.
func EncodeF16(dst []byte, src []float32) { use.encodeF16(dst[:2*len(src)], src) }

func encodeF16Go(dst []byte, src []float32) {
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToF16(x))
	}
}

// F32ToF16 rounds one value to the bits of the nearest half-precision value,
// ties to even.
func F32ToF16(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b>>16) & 0x8000
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00 | uint16(b>>13)&0x3ff
	case b >= 0x47800000: // 65536 and above
		return sign | 0x7c00
	case b < 0x38800000:
		// Below the smallest normal half. The sum has the subnormal's unit,
		// 2^-24, as its last place, so the addition does the rounding.
		f := math.Float32frombits(b) + 0.5
		return sign | uint16(math.Float32bits(f)-0x3f000000)
	default:
		b += 0xfff + b>>13&1
		return sign | uint16((b-0x38000000)>>13)
	}
}

// Float8 describes a one-byte float: 1 sign bit, Exp exponent bits with the
// given Bias, and the rest mantissa.
type Float8 struct {
	Exp, Bias int

	// IEEE says that the top exponent holds Inf and NaN; otherwise (the "FN"
	// formats) only the all-ones code is NaN.
	IEEE bool
}

// Table returns the value of each of the 256 codes.
func (f Float8) Table() *[256]float32 {
	var t [256]float32
	man := 7 - f.Exp
	for c := range t {
		e, m := c>>man&(1<<f.Exp-1), c&(1<<man-1)
		var v float64
		switch {
		case f.IEEE && e == 1<<f.Exp-1 && m == 0:
			v = math.Inf(1)
		case f.IEEE && e == 1<<f.Exp-1, !f.IEEE && c&0x7f == 0x7f:
			v = math.NaN()
		case e == 0:
			v = math.Ldexp(float64(m), 1-f.Bias-man)
		default:
			v = math.Ldexp(float64(m|1<<man), e-f.Bias-man)
		}
		if c >= 0x80 {
			v = -v
		}
		t[c] = float32(v)
	}
	return &t
}
