package floats

import (
	"fmt"
	"io"

	"github.com/seed18967229/nibble/tensor"
)

var codecs = tensor.NewCodecs(Codecs()...)

// Widen returns the numbers of a tensor of src as a run of F32: its stored bytes
// if it is F32, else computed as they are read. The dtype is that of info, a
// floating-point one of this package.
func Widen(src tensor.Source, info tensor.Info) (tensor.Part, error) {
	switch info.DType {
	case tensor.F64, tensor.F32, tensor.F16, tensor.BF16, tensor.F8_E4M3, tensor.F8_E5M2, tensor.F8_E8M0:
	default:
		return tensor.Part{}, fmt.Errorf("tensor %q: %w: numbers of %v", info.Name, tensor.ErrUnsupported, info.DType)
	}
	enc, err := codecs.Encoder(tensor.F32)
	if err != nil {
		return tensor.Part{}, err
	}
	// A column: its rows are short however long the tensor's are.
	column := tensor.Info{Name: info.Name, DType: tensor.F32, Shape: tensor.Shape{info.Shape.Elems(), 1}}
	if err := column.Validate(); err != nil {
		return tensor.Part{}, err
	}
	return tensor.Part{Size: column.Size(), Open: func() (io.ReaderAt, error) {
		raw, err := src.Raw(info.Name)
		if err != nil || info.DType == tensor.F32 {
			return raw, err
		}
		stored := column
		stored.DType = info.DType
		rows, err := codecs.Open(stored, tensor.ReaderBytes{R: raw})
		if err != nil {
			return nil, err
		}
		return tensor.Compute(column, rows, nil, enc).Open()
	}}, nil
}
