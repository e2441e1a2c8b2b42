package floats

import (
	"math"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Codecs returns the codecs of this package.
func Codecs() []tensor.Codec {
	return []tensor.Codec{
		rounding{reading{tensor.F64, kernel.DecodeF64}, kernel.EncodeF64},
		rounding{reading{tensor.F32, kernel.DecodeF32}, kernel.EncodeF32},
		rounding{reading{tensor.F16, kernel.DecodeF16}, kernel.EncodeF16},
		rounding{reading{tensor.BF16, kernel.DecodeBF16}, kernel.EncodeBF16},
		reading{tensor.F8_E4M3, lookup(kernel.Float8{Exp: 4, Bias: 7}.Table)},
		reading{tensor.F8_E5M2, lookup(kernel.Float8{Exp: 5, Bias: 15, IEEE: true}.Table)},
		reading{tensor.F8_E8M0, lookup(powers)},
	}
}

// reading is a codec for a dtype that can only be read.
type reading struct {
	dtype  tensor.DType
	decode func(dst []float32, src []byte)
}

// DType implements tensor.Codec.
func (c reading) DType() tensor.DType { return c.dtype }

// Open implements tensor.Codec.
func (c reading) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	return tensor.BlockRows(info, data, c.decode), nil
}

// rounding adds the way back: to the nearest value, ties to even.
type rounding struct {
	reading
	encode func(dst []byte, src []float32)
}

// Encode implements tensor.Encoder.
func (c rounding) Encode(dst []byte, src []float32) { c.encode(dst, src) }

// lookup is the decoder of a dtype of one byte.
func lookup(values func() *[256]float32) func(dst []float32, src []byte) {
	table := sync.OnceValue(values)
	return func(dst []float32, src []byte) {
		t := table()
		for i, c := range src[:len(dst)] {
			dst[i] = t[c]
		}
	}
}

// powers are the values of F8_E8M0, which has neither a sign nor a mantissa: the
// powers of two from 2^-127 on, and NaN.
func powers() *[256]float32 {
	var t [256]float32
	for c := range t {
		t[c] = float32(math.Ldexp(1, c-127))
	}
	t[255] = float32(math.NaN())
	return &t
}
