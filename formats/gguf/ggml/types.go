package ggml

import (
	"encoding/binary"
	"math"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// blocks is the Codec of one type.
type blocks struct {
	dtype  tensor.DType
	decode func(dst []float32, src []byte)
	encode func(dst []byte, src []float32) // nil if the type can only be read

	// weighted encodes rows with the importance of their columns; nil if the type
	// ignores it.
	weighted func(dst []byte, src, importance []float32)

	// budget bounds the error of normally distributed values that were stored
	// and read again: its root mean square, relative to that of the values.
	budget float64
}

// types is the table of what the package can do.
func types() []blocks {
	return []blocks{
		{tensor.Q1_0, decodeQ1_0, nil, nil, budgetQ1_0},
		{tensor.Q2_0, decodeQ2_0, nil, nil, budgetQ2_0},
		{tensor.Q4_0, decodeQ4_0, encodeQ4_0, encodeQ4_0Weighted, budgetQ4_0},
		{tensor.Q4_1, decodeQ4_1, encodeQ4_1, encodeQ4_1Weighted, budgetQ4_1},
		{tensor.Q5_0, decodeQ5_0, encodeQ5_0, encodeQ5_0Weighted, budgetQ5_0},
		{tensor.Q5_1, decodeQ5_1, encodeQ5_1, encodeQ5_1Weighted, budgetQ5_1},
		{tensor.Q8_0, decodeQ8_0, encodeQ8_0, nil, budgetQ8_0},
		{tensor.Q8_1, decodeQ8_1, nil, nil, budgetQ8_1},

		{tensor.Q2_K, decodeQ2_K, encodeQ2_K, encodeQ2_KWeighted, budgetQ2_K},
		{tensor.Q3_K, decodeQ3_K, encodeQ3_K, encodeQ3_KWeighted, budgetQ3_K},
		{tensor.Q4_K, decodeQ4_K, encodeQ4_K, encodeQ4_KWeighted, budgetQ4_K},
		{tensor.Q5_K, decodeQ5_K, encodeQ5_K, encodeQ5_KWeighted, budgetQ5_K},
		{tensor.Q6_K, decodeQ6_K, encodeQ6_K, encodeQ6_KWeighted, budgetQ6_K},
		{tensor.Q8_K, decodeQ8_K, nil, nil, budgetQ8_K},

		{tensor.IQ1_S, decodeIQ1_S, nil, nil, budgetIQ1_S},
		{tensor.IQ1_M, decodeIQ1_M, nil, nil, budgetIQ1_M},
		{tensor.IQ2_XXS, decodeIQ2_XXS, nil, nil, budgetIQ2_XXS},
		{tensor.IQ2_XS, decodeIQ2_XS, nil, nil, budgetIQ2_XS},
		{tensor.IQ2_S, decodeIQ2_S, nil, nil, budgetIQ2_S},
		{tensor.IQ3_XXS, decodeIQ3_XXS, nil, nil, budgetIQ3_XXS},
		{tensor.IQ3_S, decodeIQ3_S, nil, nil, budgetIQ3_S},
		{tensor.IQ4_NL, decodeIQ4_NL, encodeIQ4_NL, encodeIQ4_NLWeighted, budgetIQ4_NL},
		{tensor.IQ4_XS, decodeIQ4_XS, encodeIQ4_XS, encodeIQ4_XSWeighted, budgetIQ4_XS},

		{tensor.TQ1_0, decodeTQ1_0, encodeTQ1_0, nil, budgetTQ1_0},
		{tensor.TQ2_0, decodeTQ2_0, encodeTQ2_0, nil, budgetTQ2_0},
		{tensor.MXFP4, decodeMXFP4, encodeMXFP4, nil, budgetMXFP4},
		{tensor.NVFP4, decodeNVFP4, nil, nil, budgetNVFP4},
	}
}

// codings are the types that are multiplied as they are stored.
var codings = map[tensor.DType]kernel.Coding{
	tensor.Q4_0: kernel.CodingQ4_0, tensor.Q5_0: kernel.CodingQ5_0, tensor.Q8_0: kernel.CodingQ8_0,
	tensor.Q2_K: kernel.CodingQ2_K, tensor.Q3_K: kernel.CodingQ3_K, tensor.Q4_K: kernel.CodingQ4_K, tensor.Q5_K: kernel.CodingQ5_K, tensor.Q6_K: kernel.CodingQ6_K,
	tensor.IQ4_NL: kernel.CodingIQ4_NL, tensor.IQ4_XS: kernel.CodingIQ4_XS, tensor.MXFP4: kernel.CodingMXFP4,
}

// Codecs returns the codecs of this package: one for every block type that GGUF
// has. Those that can be written too are tensor.Encoders.
func Codecs() []tensor.Codec {
	var list []tensor.Codec
	for _, t := range types() {
		if t.encode == nil {
			list = append(list, t)
		} else if t.weighted == nil {
			list = append(list, encoder{t})
		} else {
			list = append(list, weightedEncoder{encoder{t}})
		}
	}
	return list
}

// DType implements tensor.Codec.
func (b blocks) DType() tensor.DType { return b.dtype }

// Open implements tensor.Codec.
func (b blocks) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	if c, ok := codings[b.dtype]; ok {
		return tensor.DotRows(info, data, b.decode, c.Dot), nil
	}
	return tensor.BlockRows(info, data, b.decode), nil
}

// encoder is the Encoder of a type that can be written.
type encoder struct{ blocks }

// Encode implements tensor.Encoder. It has no error to return: a block with a
// NaN or an infinity decodes to values none of which is finite, so that the fault
// shows, and so does one with magnitudes beyond what its scale can hold. The
// exception to the latter are K-quants and IQ4_XS of magnitudes from about 1e12 on:
// the sums of a search overflow, and ggml makes zeros.
func (e encoder) Encode(dst []byte, src []float32) { e.encode(dst, src) }

// weightedEncoder is the Encoder of a type that minds importance.
type weightedEncoder struct{ encoder }

// EncodeWeighted implements tensor.WeightedEncoder. Without importance it is Encode.
func (e weightedEncoder) EncodeWeighted(dst []byte, src, importance []float32) {
	if importance == nil {
		e.encode(dst, src)
		return
	}
	e.weighted(dst, src, importance)
}

// finite says whether every value is.
func finite(x []float32) bool { return kernel.Absmax(x) <= math.MaxFloat32 }

func abs(x float32) float32 { return float32(math.Abs(float64(x))) }

// roundEven rounds to the nearest integer, ties to even, of those that have 22 bits
// (nearest_int). Of an infinity it makes the least of them, of a NaN 0.
func roundEven(x float32) int {
	return int(math.Float32bits(x+3<<22)&(1<<23-1)) - 1<<22
}

// putHalf stores d as a float16. What is no number has the sign that x86 gives to a
// NaN that it makes.
func putHalf(dst []byte, d float32) {
	h := kernel.F32ToF16(d)
	if d != d {
		h = 0xfe00
	}
	binary.LittleEndian.PutUint16(dst, h)
}

// half returns a float16 stored in two bytes.
func half(b []byte) float32 { return kernel.F16ToF32(binary.LittleEndian.Uint16(b)) }
