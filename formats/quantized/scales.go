package quantized

import (
	"fmt"
	"math"
	"strings"

	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/scaled"
)

// scaleNames are the names of scales: what they end in, and what the name of their
// weight ends in instead. Of suffixes that fit, the first counts.
var scaleNames = []struct {
	suffix, weight string

	// shy says that others have tensors of such names, too: one counts if there is
	// a weight of 8 bits for it.
	shy bool
}{
	{suffix: ".weight_scale_inv", weight: ".weight"},
	{suffix: ".weight_scale", weight: ".weight"},
	{suffix: ".qscale_weight", weight: ".weight"},
	{suffix: "_scale_inv"}, // experts.gate_up_proj
	{suffix: "_weight_scale", shy: true},
	{suffix: ".scale", weight: ".weight", shy: true},
	{suffix: "_scale", shy: true},
}

const (
	ofActivations = "scale of activations, which are not quantized here"
	ofCache       = "scale of the key-value cache, which is not quantized here"
)

// unused are the tensors that say how something else than weights is quantized,
// by what their names end in.
var unused = []struct{ suffix, reason string }{
	{".input_scale", ofActivations},
	{"_input_scale", ofActivations},
	{".activation_scale", ofActivations},
	{"_activation_scale", ofActivations},
	{".qscale_act", ofActivations},
	{".output_scale", ofActivations},
	{".input_zero_point", ofActivations},
	{".output_zero_point", ofActivations},
	{".k_scale", ofCache},
	{".v_scale", ofCache},
	{".q_scale", ofCache},
	{".kv_scale", ofCache},
	{".k_zero_point", ofCache},
	{".v_zero_point", ofCache},
}

// unusedFor returns why a tensor does not count, "" if it may.
func unusedFor(name string) string {
	for _, u := range unused {
		if strings.HasSuffix(name, u.suffix) {
			return u.reason
		}
	}
	return ""
}

// isElement reports whether weights of that dtype have scales.
func isElement(d tensor.DType) bool { return scaled.DType(d) != tensor.Invalid }

// scaleOf returns the name of the weight that a tensor holds the scales of.
func scaleOf(src tensor.Source, info tensor.Info) (weight, suffix string, ok bool) {
	if unusedFor(info.Name) != "" {
		return "", "", false
	}
	for _, s := range scaleNames {
		base, ok := strings.CutSuffix(info.Name, s.suffix)
		if !ok {
			continue
		}
		weight = base + s.weight
		if s.shy {
			w, err := src.Info(weight)
			if err != nil || !isElement(w.DType) {
				continue
			}
		}
		return weight, s.suffix, true
	}
	return "", "", false
}

// scaleType returns the dtype that scales are read as. Bytes are exponents, as MX
// formats have them.
func scaleType(d tensor.DType) (tensor.DType, bool) {
	switch d {
	case tensor.U8, tensor.F8_E8M0:
		return tensor.F8_E8M0, true
	case tensor.F32, tensor.BF16, tensor.F16, tensor.F64:
		return d, true
	}
	return d, false
}

// usual is the block of DeepSeek, whom everyone follows, and that of MX formats.
var (
	usual = block{128, 128}
	mx    = block{1, 32}
)

// header returns how a weight is stored, given its scales.
func (c *config) header(weight, scale tensor.Info) (scaled.Header, error) {
	h := scaled.Header{Element: weight.DType, Source: c.dtype, Factor: 1}
	if h.Source == tensor.Invalid {
		h.Source = tensor.BF16
	}
	w := weight.Shape
	h.Rows, h.BlockRows, h.BlockCols = max(1, w.Rows()), max(1, w.Rows()), max(1, w.Cols())

	if w.Elems() == 0 {
		return h, nil // and no scale counts
	}
	s := scale.Shape
	if len(w) == 2 && len(s) == 4 && s[1] == 1 && s[3] == 1 {
		s = tensor.Shape{s[0], s[2]} // ModelOpt keeps the dimensions it has reduced
	}
	exact := len(s) == len(w) // not one for rows or experts alone
	for len(s) < len(w) {
		s = append(s[:len(s):len(s)], 1) // as dequant_simple aligns them
	}
	if n := len(w) - 2; n >= 0 && len(s) == len(w) && s[:n].Equal(w[:n]) {
		down, across := s[n], s[n+1]
		rows := w[n]
		fits := func(b block) bool { return down == ceilDiv(w[n], b.rows) && across == ceilDiv(w[n+1], b.cols) }
		if b, ok, err := c.block(exact, scale.DType, block{rows, h.BlockCols}, fits); err != nil {
			return h, fmt.Errorf("%w: scale %q of shape %v: %w", tensor.ErrUnsupported, scale.Name, scale.Shape, err)
		} else if ok {
			h.Rows, h.BlockRows, h.BlockCols = rows, b.rows, b.cols
			return h, nil
		}
	}
	if s.Elems() == 1 {
		return h, nil
	}
	sizes := c.blocks
	if len(sizes) == 0 {
		sizes = []block{usual}
	}
	return h, fmt.Errorf("%w: scale %q has shape %v, and %v of %v has neither one scale, nor one for each row, nor one for each block of %v",
		tensor.ErrMalformed, scale.Name, scale.Shape, weight.DType, w, text(sizes))
}

// block returns the block that a scale is for: the configuration's, else a row,
// else the whole matrix, else one of those that everyone uses. That two of the
// configuration fit and are not the same here is an error.
func (c *config) block(exact bool, scale tensor.DType, whole block, fits func(block) bool) (block, bool, error) {
	if exact {
		var own []block
		for _, b := range c.blocks {
			if fits(b) && !(len(own) > 0 && own[0].within(whole) == b.within(whole)) {
				own = append(own, b)
			}
		}
		switch len(own) {
		case 0:
		case 1:
			return own[0], true, nil
		default:
			return block{}, false, fmt.Errorf("blocks of %v fit", text(own))
		}
	}
	others := []block{{1, whole.cols}, whole}
	if len(c.blocks) == 0 {
		others = append(others, usual)
	}
	if scale == tensor.F8_E8M0 || scale == tensor.U8 {
		others = append(others, mx)
	}
	for _, b := range others {
		if fits(b) {
			return b, true, nil
		}
	}
	return block{}, false, nil
}

// within returns the block cut down to a matrix.
func (b block) within(whole block) block {
	return block{min(b.rows, whole.rows), min(b.cols, whole.cols)}
}

// text lists blocks as people write them.
func text(blocks []block) string {
	var out []string
	for _, b := range blocks[:min(len(blocks), 4)] {
		out = append(out, fmt.Sprintf("%dx%d", b.rows, b.cols))
	}
	return strings.Join(out, " and ")
}

func ceilDiv(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return a / b // not a size that a scale can have
	}
	return (a + b - 1) / b
}
