package bnb

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

// plain decodes what stands beside a weight; encoding to F32 is exact.
var plain = tensor.NewCodecs(floats.Codecs()...)

// View returns src with every quantized weight as one tensor, under the weight's
// name, at its place and with its shape before quantization: of DType NF4 or FP4,
// nf4.Describe tells how it is stored, or, of LLM.int8, of DType INT8, which
// scaled.Describe knows. All other tensors are passed on. A source without
// quantized weights is returned as it is.
//
// dtype is what config.json says the model is in, for the weights of LLM.int8,
// which do not say what they were: F32, F16 or BF16. tensor.Invalid is F16, which
// bitsandbytes makes of every weight first.
//
// The stored quant_map is compared with the codebook and otherwise ignored, as
// bitsandbytes ignores it. 4-bit weights may be stored as any quant_storage dtype,
// the maps and absmax as F32, BF16 or F16.
//
// Errors name the tensor. They wrap tensor.ErrMalformed if what belongs to a
// weight is missing, has the wrong size, or contradicts the rest, and
// tensor.ErrUnsupported for states and layouts that bitsandbytes does not decode
// either.
func View(src tensor.Source, dtype tensor.DType) (tensor.Source, error) {
	return ViewShaped(src, dtype, func(string) tensor.Shape { return nil })
}

// ViewShaped is View for a model whose shapes are known: shapeOf gives that of a
// weight, [out, in], or nil. It counts where a quant_state has none, which
// bitsandbytes can write and cannot decode.
func ViewShaped(src tensor.Source, dtype tensor.DType, shapeOf func(weight string) tensor.Shape) (tensor.Source, error) {
	groups, err := collect(src)
	if err != nil {
		return nil, err
	}
	layers, err := eights(src)
	if err != nil {
		return nil, err
	}
	if len(groups)+len(layers) == 0 {
		return src, nil
	}
	if dtype == tensor.Invalid {
		dtype = tensor.F16
	}
	var entries []tensor.Entry
	for info := range src.All() {
		if _, _, _, beside := split(info.Name); beside {
			continue
		}
		if _, _, beside := splitEight(info.Name); beside {
			continue
		}
		g, e := groups[info.Name], layers[info.Name]
		if e == nil && len(layers) > 0 && info.DType == tensor.I8 && g == nil && moduleOf(info.Name) != info.Name {
			e = new(eight) // which will say what is missing
		}
		entry := tensor.Forward(src, info, info.Name)
		switch {
		case g != nil && e != nil:
			err = fmt.Errorf("%w: both %q and tensors of a 4-bit weight belong to it", tensor.ErrMalformed, e.scb.Name+e.format.Name)
		case g != nil:
			entry, err = g.entry(src, info, shapeOf(info.Name))
		case e != nil:
			entry, err = e.entry(src, info, dtype)
		}
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		entries = append(entries, entry)
	}
	return tensor.NewTable(src.Meta(), entries)
}

// entry checks a group and returns the tensor it makes, of the given shape if it
// does not say its own.
func (g *group) entry(src tensor.Source, weight tensor.Info, shape tensor.Shape) (tensor.Entry, error) {
	stateInfo, err := g.part(stateInfix)
	if err != nil {
		return tensor.Entry{}, err
	}
	kind, ok := kinds[g.kind]
	if !ok {
		return tensor.Entry{}, fmt.Errorf("%w: %q says neither nf4 nor fp4", tensor.ErrUnsupported, stateInfo.Name)
	}
	_, absmaxToo := g.parts[nestedAbsmaxSuffix]
	_, mapToo := g.parts[nestedMapSuffix]
	nested := absmaxToo || mapToo
	st, err := readState(src, stateInfo, nested)
	if err != nil {
		return tensor.Entry{}, fmt.Errorf("%q: %w", stateInfo.Name, err)
	}
	if *st.QuantType != g.kind {
		return tensor.Entry{}, fmt.Errorf("%w: quant_type %q in %q", tensor.ErrMalformed, *st.QuantType, stateInfo.Name)
	}
	if st.Shape != nil {
		shape = *st.Shape
	}
	if shape == nil {
		return tensor.Entry{}, fmt.Errorf("%q: %w: no shape of the weight", stateInfo.Name, tensor.ErrUnsupported)
	}
	h := nf4.Header{BlockSize: *st.BlockSize, Double: nested, Source: dtypes[*st.DType]}
	if nested {
		h.Offset = float32(*st.NestedOffset)
	}
	if err := h.Check(); err != nil {
		return tensor.Entry{}, err
	}
	elems := shape.Elems()
	s := h.Sections(elems)

	if err := checkCodes(weight, s.Codes, shape); err != nil {
		return tensor.Entry{}, err
	}
	if err := g.checkCodebook(src, kind); err != nil {
		return tensor.Entry{}, err
	}
	parts := []tensor.Part{{Size: s.Header, Open: func() (io.ReaderAt, error) { return bytes.NewReader(h.Append(nil, elems)), nil }}}
	if nested {
		m, err := g.float32s(src, nestedMapSuffix, s.Map/4)
		if err != nil {
			return tensor.Entry{}, err
		}
		a, err := g.float32s(src, nestedAbsmaxSuffix, s.Nested/4)
		if err != nil {
			return tensor.Entry{}, err
		}
		parts = append(parts, m, a)
	}
	absmax, err := g.absmax(src, nested, s.Absmax)
	if err != nil {
		return tensor.Entry{}, err
	}
	codes := tensor.Part{Size: s.Codes, Open: func() (io.ReaderAt, error) { return src.Raw(weight.Name) }}
	return tensor.Entry{
		Info: h.Info(weight.Name, kind, shape),
		Open: tensor.Concat(append(parts, absmax, codes)...),
	}, nil
}

// checkCodes checks that the weight holds the codes of that many bytes, as
// whatever dtype they are stored.
func checkCodes(weight tensor.Info, size int64, shape tensor.Shape) error {
	switch weight.DType {
	case tensor.U8, tensor.I8, tensor.F16, tensor.BF16, tensor.F32, tensor.F64:
	default:
		return fmt.Errorf("%w: 4-bit codes stored as %v", tensor.ErrUnsupported, weight.DType)
	}
	if weight.Size() != size {
		return fmt.Errorf("%w: %v of %v is %d bytes of 4-bit codes, shape %v needs %d",
			tensor.ErrMalformed, weight.DType, weight.Shape, weight.Size(), shape, size)
	}
	return nil
}

// checkCodebook checks that quant_map is the codebook, rounded to the dtype it
// is stored as.
func (g *group) checkCodebook(src tensor.Source, d tensor.DType) error {
	if _, err := g.float32s(src, quantMapSuffix, 16); err != nil {
		return err
	}
	info, stored, err := plain.ReadAll(src, g.parts[quantMapSuffix].Name)
	if err != nil {
		return err
	}
	want, err := nf4.Codebook(d)
	if err != nil {
		return err
	}
	for i, v := range stored {
		// Half of the last place of a BF16 below 1, doubled to be generous.
		if !(math.Abs(float64(v-want[i])) <= 1.0/256) {
			return fmt.Errorf("%w: entry %d of %q is %v, of %v it is %v", tensor.ErrUnsupported, i, info.Name, v, d, want[i])
		}
	}
	return nil
}

// absmax returns the absmax section of a blob.
func (g *group) absmax(src tensor.Source, nested bool, size int64) (tensor.Part, error) {
	if !nested {
		return g.float32s(src, absmaxSuffix, size/4)
	}
	info, err := g.part(absmaxSuffix)
	if err != nil {
		return tensor.Part{}, err
	}
	if info.DType != tensor.U8 || info.Size() != size {
		return tensor.Part{}, fmt.Errorf("%w: %q is %v of %v, want U8 of [%d]", tensor.ErrMalformed, info.Name, info.DType, info.Shape, size)
	}
	return tensor.Part{Size: size, Open: func() (io.ReaderAt, error) { return src.Raw(info.Name) }}, nil
}

// float32s returns n numbers beside the weight as F32.
func (g *group) float32s(src tensor.Source, suffix string, n int64) (tensor.Part, error) {
	info, err := g.part(suffix)
	if err != nil {
		return tensor.Part{}, err
	}
	if !slices.Contains(scaleTypes, info.DType) {
		return tensor.Part{}, fmt.Errorf("%w: %q is %v, want F32, BF16 or F16", tensor.ErrMalformed, info.Name, info.DType)
	}
	if got := info.Shape.Elems(); got != n {
		return tensor.Part{}, fmt.Errorf("%w: %q has %d elements, want %d", tensor.ErrMalformed, info.Name, got, n)
	}
	return floats.Widen(src, info)
}
