package ggml

import "github.com/seed18967229/nibble/tensor"

// blocks is the Encoder of one type.
type blocks struct {
	dtype  tensor.DType
	decode func(dst []float32, src []byte)
	encode func(dst []byte, src []float32)

	// budget is the largest error of a value that was stored and read again,
	// relative to the largest magnitude in its block.
	budget float64
}

// types is the table of what the package can do.
func types() []blocks {
	return []blocks{
		{tensor.Q8_0, decodeQ8_0, encodeQ8_0, budgetQ8_0},
	}
}

// Codecs returns the codecs of this package. Each is a tensor.Encoder.
func Codecs() []tensor.Codec {
	var list []tensor.Codec
	for _, t := range types() {
		list = append(list, t)
	}
	return list
}

// DType implements tensor.Codec.
func (b blocks) DType() tensor.DType { return b.dtype }

// Open implements tensor.Codec.
func (b blocks) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	return tensor.BlockRows(info, data, b.decode), nil
}

// Encode implements tensor.Encoder. It has no error to return: a block with a
// NaN, or with magnitudes beyond what its scale can hold, decodes to values
// none of which is finite, so that the fault shows.
func (b blocks) Encode(dst []byte, src []float32) { b.encode(dst, src) }
