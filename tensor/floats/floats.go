package floats

import (
	"encoding/binary"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Codecs returns the codecs of this package.
func Codecs() []tensor.Codec {
	return []tensor.Codec{
		rounding{reading{tensor.F64, kernel.DecodeF64, nil}, kernel.EncodeF64},
		rounding{reading{tensor.F32, kernel.DecodeF32, kernel.CodingF32.Dot}, kernel.EncodeF32},
		rounding{reading{tensor.F16, kernel.DecodeF16, kernel.CodingF16.Dot}, kernel.EncodeF16},
		rounding{reading{tensor.BF16, kernel.DecodeBF16, kernel.CodingBF16.Dot}, kernel.EncodeBF16},
		reading{tensor.F8_E4M3, lookup(kernel.Float8{Exp: 4, Bias: 7}.Table), nil},
		reading{tensor.F8_E5M2, lookup(kernel.Float8{Exp: 5, Bias: 15, IEEE: true}.Table), nil},
		reading{tensor.F8_E8M0, lookup(e8m0), nil},
		reading{tensor.I8, decode8[int8], nil},
		reading{tensor.I16, decode16[int16], nil},
		reading{tensor.I32, decode32[int32], nil},
		reading{tensor.I64, decode64[int64], nil},
		reading{tensor.U8, decode8[uint8], nil},
		reading{tensor.U16, decode16[uint16], nil},
		reading{tensor.U32, decode32[uint32], nil},
		reading{tensor.U64, decode64[uint64], nil},
		reading{tensor.Bool, decodeBool, nil},
	}
}

// reading is a codec for a dtype that can only be read.
type reading struct {
	dtype  tensor.DType
	decode func(dst []float32, src []byte)
	dot    func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int) // or nil
}

// DType implements tensor.Codec.
func (c reading) DType() tensor.DType { return c.dtype }

// Open implements tensor.Codec.
func (c reading) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	if c.dot != nil {
		return tensor.DotRows(info, data, c.decode, c.dot), nil
	}
	return tensor.BlockRows(info, data, c.decode), nil
}

// rounding adds the way back: to the nearest value, ties to even.
type rounding struct {
	reading
	encode func(dst []byte, src []float32)
}

// Encode implements tensor.Encoder.
func (c rounding) Encode(dst []byte, src []float32) { c.encode(dst, src) }

// From implements tensor.Recoder, for the two types of 16 bits.
func (c rounding) From(d tensor.DType) func(dst, src []byte) {
	return recoders[[2]tensor.DType{d, c.dtype}]
}

// recoders are by the DTypes of input and output.
var recoders = map[[2]tensor.DType]func(dst, src []byte){
	{tensor.BF16, tensor.F16}: halves(kernel.DecodeBF16, kernel.EncodeF16),
	{tensor.F16, tensor.BF16}: halves(kernel.DecodeF16, kernel.EncodeBF16),
}

// halves stores one type of 16 bits as another, by way of float32. Without vector
// instructions a table of all its values is faster.
func halves(decode func([]float32, []byte), encode func([]byte, []float32)) func(dst, src []byte) {
	if v, _ := kernel.Variant(); v == "go" {
		return tabled(decode, encode)
	}
	return func(dst, src []byte) {
		buf := pieces.Get().(*[piece]float32)
		defer pieces.Put(buf)
		for n := len(src) / 2; n > 0; n = len(src) / 2 {
			x := buf[:min(n, piece)]
			decode(x, src)
			encode(dst, x)
			src, dst = src[2*len(x):], dst[2*len(x):]
		}
	}
}

// piece is how many values there are as float32 at a time: what the nearest cache
// holds.
const piece = 2048

var pieces = sync.Pool{New: func() any { return new([piece]float32) }}

// tabled is halves by a table, which is made when first used.
func tabled(decode func([]float32, []byte), encode func([]byte, []float32)) func(dst, src []byte) {
	table := sync.OnceValue(func() *[1 << 16]uint16 {
		b, f := make([]byte, 2<<16), make([]float32, 1<<16)
		for i := range f {
			binary.LittleEndian.PutUint16(b[2*i:], uint16(i))
		}
		decode(f, b)
		encode(b, f)
		var t [1 << 16]uint16
		for i := range t {
			t[i] = binary.LittleEndian.Uint16(b[2*i:])
		}
		return &t
	})
	return func(dst, src []byte) {
		t := table()
		for len(src) >= 8 && len(dst) >= 8 {
			v := binary.LittleEndian.Uint64(src)
			binary.LittleEndian.PutUint64(dst, uint64(t[uint16(v)])|uint64(t[uint16(v>>16)])<<16|uint64(t[uint16(v>>32)])<<32|uint64(t[v>>48])<<48)
			src, dst = src[8:], dst[8:]
		}
		for ; len(src) >= 2; src, dst = src[2:], dst[2:] {
			binary.LittleEndian.PutUint16(dst, t[binary.LittleEndian.Uint16(src)])
		}
	}
}

// lookup decodes one byte at a time by a table that is made when first used.
func lookup(make func() *[256]float32) func(dst []float32, src []byte) {
	table := sync.OnceValue(make)
	return func(dst []float32, src []byte) {
		t := table()
		for i, c := range src[:len(dst)] {
			dst[i] = t[c]
		}
	}
}
