package floats

import (
	"encoding/binary"
	"math"
)

// decode8 and its kin round integers to the nearest float32, ties to even.
func decode8[T int8 | uint8](dst []float32, src []byte) {
	for i, c := range src[:len(dst)] {
		dst[i] = float32(T(c))
	}
}

func decode16[T int16 | uint16](dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for i := range dst {
		dst[i] = float32(T(binary.LittleEndian.Uint16(src[2*i:])))
	}
}

func decode32[T int32 | uint32](dst []float32, src []byte) {
	src = src[:4*len(dst)]
	for i := range dst {
		dst[i] = float32(T(binary.LittleEndian.Uint32(src[4*i:])))
	}
}

func decode64[T int64 | uint64](dst []float32, src []byte) {
	src = src[:8*len(dst)]
	for i := range dst {
		dst[i] = float32(T(binary.LittleEndian.Uint64(src[8*i:])))
	}
}

// decodeBool makes 1 of every byte that is not 0, as PyTorch does.
func decodeBool(dst []float32, src []byte) {
	for i, c := range src[:len(dst)] {
		dst[i] = float32(min(c, 1))
	}
}

// e8m0 returns the powers of two from 2^-127, which is subnormal, to 2^127; the
// last code is NaN.
func e8m0() *[256]float32 {
	var t [256]float32
	for c := range t {
		t[c] = float32(math.Ldexp(1, c-127))
	}
	t[255] = float32(math.NaN())
	return &t
}
