package scaled

import (
	"bytes"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

// Entry returns the tensor that two of src make together, under the name and with
// the shape of the weight: the elements of weight, and scale, which has a scale
// for each block that h describes, in any dtype of floats. Nothing is read.
//
// The DType of scale counts, not the one it has in src: there are bytes that are
// to be read as F8_E8M0. Errors leave it to the caller to name the weight.
func Entry(src tensor.Source, h Header, weight, scale tensor.Info) (tensor.Entry, error) {
	if h.Element != weight.DType {
		return tensor.Entry{}, fmt.Errorf("%w: elements of %v where it is %v", tensor.ErrMalformed, h.Element, weight.DType)
	}
	if err := h.Check(weight.Shape); err != nil {
		return tensor.Entry{}, err
	}
	elems, scales := weight.Shape.Elems(), h.Scales(weight.Shape)
	if n := scale.Shape.Elems(); n != scales && elems > 0 {
		return tensor.Entry{}, fmt.Errorf("%w: %q has %d scales, shape %v with %s has %d",
			tensor.ErrMalformed, scale.Name, n, weight.Shape, h.Grid(weight.Shape), scales)
	}
	parts := []tensor.Part{{Size: headerSize, Open: func() (io.ReaderAt, error) { return bytes.NewReader(h.Append(nil, elems)), nil }}}
	if elems > 0 {
		s, err := floats.Widen(src, scale)
		if err != nil {
			return tensor.Entry{}, fmt.Errorf("its scales: %w", err)
		}
		parts = append(parts, s, tensor.Part{Size: elems, Open: func() (io.ReaderAt, error) { return src.Raw(weight.Name) }})
	}
	return tensor.Entry{Info: h.Info(weight.Name, weight.Shape), Open: tensor.Concat(parts...)}, nil
}
