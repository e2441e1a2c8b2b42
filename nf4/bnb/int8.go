package bnb

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/scaled"
)

// What LLM.int8 appends to the name of a layer whose weight it has quantized.
const (
	scbSuffix    = ".SCB"
	formatSuffix = ".weight_format"
)

// reciprocal is that of 127, by which bitsandbytes multiplies in float32
// (int8_vectorwise_dequant in _ops.py).
const reciprocal = 7.874015718698502e-3

// layouts are how weights of LLM.int8 may be laid out, by weight_format
// (LINEAR_8BIT_WEIGHTS_FORMAT_MAPPING in bitsandbytes' utils.py). Version 0.50
// stores rows only, and reads nothing else.
var layouts = []string{"row", "col32", "col_turing", "col_ampere"}

// eights finds the layers that LLM.int8 has quantized, by the name of their
// weight. A tensor that belongs to a weight that is not there is an error.
func eights(src tensor.Source) (map[string]*eight, error) {
	layers := make(map[string]*eight)
	for info := range src.All() {
		weight, suffix, ok := splitEight(info.Name)
		if !ok {
			continue
		}
		if !tensor.Has(src, weight) {
			return nil, fmt.Errorf("tensor %q: %w: it belongs to a weight %q, which is not there", info.Name, tensor.ErrMalformed, weight)
		}
		e := layers[weight]
		if e == nil {
			e = new(eight)
			layers[weight] = e
		}
		if suffix == scbSuffix {
			e.scb = info
		} else {
			e.format = info
		}
	}
	return layers, nil
}

// splitEight divides the name of a tensor beside a weight of LLM.int8 into the
// name of the weight and the suffix.
func splitEight(name string) (weight, suffix string, ok bool) {
	for _, s := range []string{scbSuffix, formatSuffix} {
		if layer, ok := strings.CutSuffix(name, s); ok {
			return layer + ".weight", s, true
		}
	}
	return "", "", false
}

// eight is what stands beside a weight of LLM.int8.
type eight struct{ scb, format tensor.Info }

// entry checks a layer and returns the tensor it makes. dtype is what the weight
// was before.
func (e *eight) entry(src tensor.Source, weight tensor.Info, dtype tensor.DType) (tensor.Entry, error) {
	if e.scb.Name == "" {
		return tensor.Entry{}, fmt.Errorf("%w: %q, which belongs to it, is not there", tensor.ErrMalformed,
			strings.TrimSuffix(weight.Name, ".weight")+scbSuffix)
	}
	if e.format.Name != "" {
		if err := checkLayout(src, e.format); err != nil {
			return tensor.Entry{}, fmt.Errorf("%q: %w", e.format.Name, err)
		}
	}
	switch {
	case weight.DType != tensor.I8 || len(weight.Shape) != 2:
		return tensor.Entry{}, fmt.Errorf("%w: %v of %v beside %q, want I8 of [out, in]", tensor.ErrMalformed, weight.DType, weight.Shape, e.scb.Name)
	case !slices.Contains(scaleTypes, e.scb.DType):
		return tensor.Entry{}, fmt.Errorf("%w: %q is %v, want F32, BF16 or F16", tensor.ErrMalformed, e.scb.Name, e.scb.DType)
	case e.scb.Shape.Elems() != weight.Shape[0]:
		return tensor.Entry{}, fmt.Errorf("%w: %q has %d elements, want %d, one for each row of %v",
			tensor.ErrMalformed, e.scb.Name, e.scb.Shape.Elems(), weight.Shape[0], weight.Shape)
	}
	return scaled.Entry(src, scaled.Header{
		Element: tensor.I8, Source: dtype, Factor: reciprocal,
		Rows: max(1, weight.Shape[0]), BlockRows: 1, BlockCols: max(1, weight.Shape[1]),
	}, weight, e.scb)
}

// checkLayout checks that a weight_format says "row".
func checkLayout(src tensor.Source, info tensor.Info) error {
	if info.DType != tensor.U8 || info.Size() != 1 {
		return fmt.Errorf("%w: %v of %v, want one number of U8", tensor.ErrMalformed, info.DType, info.Shape)
	}
	r, err := src.Raw(info.Name)
	if err != nil {
		return err
	}
	var code [1]byte
	if _, err := io.ReadFull(r, code[:]); err != nil {
		return err
	}
	switch n := int(code[0]); {
	case n >= len(layouts):
		return fmt.Errorf("%w: weight format %d, want 0 to %d", tensor.ErrMalformed, n, len(layouts)-1)
	case n > 0:
		return fmt.Errorf("%w: the weight is laid out as %s for one kind of GPU, want %s", tensor.ErrUnsupported, layouts[n], layouts[0])
	}
	return nil
}
