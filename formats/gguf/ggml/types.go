package ggml

import (
	"encoding/binary"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// blocks is the Codec of one type.
type blocks struct {
	dtype  tensor.DType
	decode func(dst []float32, src []byte)
	encode func(dst []byte, src []float32) // nil if the type can only be read

	// budget bounds the error of normally distributed values that were stored
	// and read again: its root mean square, relative to that of the values.
	budget float64
}

// types is the table of what the package can do.
func types() []blocks {
	return []blocks{
		{tensor.Q1_0, decodeQ1_0, nil, budgetQ1_0},
		{tensor.Q2_0, decodeQ2_0, nil, budgetQ2_0},
		{tensor.Q4_0, decodeQ4_0, nil, budgetQ4_0},
		{tensor.Q4_1, decodeQ4_1, nil, budgetQ4_1},
		{tensor.Q5_0, decodeQ5_0, nil, budgetQ5_0},
		{tensor.Q5_1, decodeQ5_1, nil, budgetQ5_1},
		{tensor.Q8_0, decodeQ8_0, encodeQ8_0, budgetQ8_0},
		{tensor.Q8_1, decodeQ8_1, nil, budgetQ8_1},

		{tensor.Q2_K, decodeQ2_K, nil, budgetQ2_K},
		{tensor.Q3_K, decodeQ3_K, nil, budgetQ3_K},
		{tensor.Q4_K, decodeQ4_K, nil, budgetQ4_K},
		{tensor.Q5_K, decodeQ5_K, nil, budgetQ5_K},
		{tensor.Q6_K, decodeQ6_K, nil, budgetQ6_K},
		{tensor.Q8_K, decodeQ8_K, nil, budgetQ8_K},

		{tensor.IQ1_S, decodeIQ1_S, nil, budgetIQ1_S},
		{tensor.IQ1_M, decodeIQ1_M, nil, budgetIQ1_M},
		{tensor.IQ2_XXS, decodeIQ2_XXS, nil, budgetIQ2_XXS},
		{tensor.IQ2_XS, decodeIQ2_XS, nil, budgetIQ2_XS},
		{tensor.IQ2_S, decodeIQ2_S, nil, budgetIQ2_S},
		{tensor.IQ3_XXS, decodeIQ3_XXS, nil, budgetIQ3_XXS},
		{tensor.IQ3_S, decodeIQ3_S, nil, budgetIQ3_S},
		{tensor.IQ4_NL, decodeIQ4_NL, nil, budgetIQ4_NL},
		{tensor.IQ4_XS, decodeIQ4_XS, nil, budgetIQ4_XS},

		{tensor.TQ1_0, decodeTQ1_0, nil, budgetTQ1_0},
		{tensor.TQ2_0, decodeTQ2_0, nil, budgetTQ2_0},
		{tensor.MXFP4, decodeMXFP4, nil, budgetMXFP4},
		{tensor.NVFP4, decodeNVFP4, nil, budgetNVFP4},
	}
}

// Codecs returns the codecs of this package: one for every block type that GGUF
// has. Those that can be written too are tensor.Encoders.
func Codecs() []tensor.Codec {
	var list []tensor.Codec
	for _, t := range types() {
		if t.encode == nil {
			list = append(list, t)
		} else {
			list = append(list, encoder{t})
		}
	}
	return list
}

// DType implements tensor.Codec.
func (b blocks) DType() tensor.DType { return b.dtype }

// Open implements tensor.Codec.
func (b blocks) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	return tensor.BlockRows(info, data, b.decode), nil
}

// encoder is the Encoder of a type that can be written.
type encoder struct{ blocks }

// Encode implements tensor.Encoder. It has no error to return: a block with a
// NaN, or with magnitudes beyond what its scale can hold, decodes to values
// none of which is finite, so that the fault shows.
func (e encoder) Encode(dst []byte, src []float32) { e.encode(dst, src) }

// half returns a float16 stored in two bytes.
func half(b []byte) float32 { return kernel.F16ToF32(binary.LittleEndian.Uint16(b)) }
