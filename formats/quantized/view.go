package quantized

import (
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/scaled"
)

// View returns src with every weight of 8 bits and its scales as one tensor, of
// DType FP8 or INT8, under the weight's name, at its place and with its shape;
// scaled.Describe tells how it is stored. Tensors that say how activations or the
// cache are quantized are left out and returned with the reason. All others are
// passed on. A source whose weights are plain, or are nf4/bnb's, is returned as it
// is.
//
// config is the text of config.json, empty if there is none: then the names of the
// tensors say what they say.
//
// Errors name the tensor. They wrap tensor.ErrMalformed if the configuration cannot
// be read, a scale has no weight or a weight no scale, or the two do not fit each
// other, and tensor.ErrUnsupported, with a hint, for weights that are stored by a
// method that is not decoded.
func View(src tensor.Source, config []byte) (tensor.Source, []pipeline.Drop, error) {
	c, err := parseConfig(config)
	if err != nil {
		return nil, nil, err
	}
	f := identify(src, c)
	switch {
	case f == nil:
		return src, nil, nil
	case f.fate == refused:
		return nil, nil, f.refusal()
	case f.fate == bnb:
		return src, nil, c.checkInt8(src)
	}
	scales, drop, err := pairs(src)
	if err != nil {
		return nil, nil, err
	}
	var entries []tensor.Entry
	changed := len(drop) > 0
	for info := range src.All() {
		if unusedFor(info.Name) != "" {
			continue
		}
		if _, _, ok := scaleOf(src, info); ok {
			continue
		}
		e := tensor.Forward(src, info, info.Name)
		if scale, ok := scales[info.Name]; ok || isElement(info.DType) && len(info.Shape) > 1 {
			if e, err = c.entry(src, info, scale, f.scaleSuffix()); err != nil {
				return nil, nil, fmt.Errorf("tensor %q: %w", info.Name, err)
			}
			changed = true
		}
		entries = append(entries, e)
	}
	if !changed {
		return src, nil, nil
	}
	view, err := tensor.NewTable(src.Meta(), entries)
	return view, drop, err
}

// Describe says how the weights of a checkpoint are stored, for people: "FP8 E4M3,
// blocks of 128x128", "LLM.int8", "GPTQ 4-bit, group 128". It is "" if they are
// plain, or nf4/bnb's and of 4 bits. The error is View's where that refuses them or
// cannot read them.
func Describe(src tensor.Source, config []byte) (string, error) {
	c, err := parseConfig(config)
	if err != nil {
		return "", err
	}
	f := identify(src, c)
	switch {
	case f == nil:
		return "", nil
	case f.fate == refused:
		return f.label(), f.refusal()
	case f.fate == bnb && f.title == "LLM.int8":
		return f.title, c.checkInt8(src)
	case f.fate == bnb:
		return "", nil
	}
	view, _, err := View(src, config)
	if err != nil {
		return f.title, err
	}
	for info := range view.All() {
		if h, err := scaled.Describe(view, info.Name); info.DType.Opaque() && err == nil {
			return h.Kind() + ", " + h.Grid(info.Shape), nil
		}
	}
	return "", nil
}

// scaleSuffix is what the name of a scale ends in that is not there.
func (f *found) scaleSuffix() string {
	if f.title == "FP8" {
		return "_scale_inv"
	}
	return "_scale"
}

// pairs returns the scales of src by the name of their weight, and what is left
// out.
func pairs(src tensor.Source) (map[string]tensor.Info, []pipeline.Drop, error) {
	scales := make(map[string]tensor.Info)
	var drop []pipeline.Drop
	for info := range src.All() {
		if reason := unusedFor(info.Name); reason != "" {
			drop = append(drop, pipeline.Drop{Name: info.Name, Reason: reason})
			continue
		}
		weight, _, ok := scaleOf(src, info)
		if !ok {
			continue
		}
		if !tensor.Has(src, weight) {
			return nil, nil, fmt.Errorf("tensor %q: %w: it is the scale of a weight %q, which is not there", info.Name, tensor.ErrMalformed, weight)
		}
		if old, dup := scales[weight]; dup {
			return nil, nil, fmt.Errorf("tensor %q: %w: both %q and %q are scales of it", weight, tensor.ErrMalformed, old.Name, info.Name)
		}
		scales[weight] = info
	}
	return scales, drop, nil
}

// entry checks a weight and its scale, whose name is empty if there is none, and
// returns the tensor they make.
func (c *config) entry(src tensor.Source, weight, scale tensor.Info, missing string) (tensor.Entry, error) {
	if scale.Name == "" {
		return tensor.Entry{}, fmt.Errorf("%w: %v without a scale: %q is not there", tensor.ErrMalformed, weight.DType, weight.Name+missing)
	}
	if !isElement(weight.DType) {
		return tensor.Entry{}, fmt.Errorf("%w: weights of %v with a scale %q, want F8_E4M3, F8_E5M2 or I8", tensor.ErrUnsupported, weight.DType, scale.Name)
	}
	d, ok := scaleType(scale.DType)
	if !ok || weight.DType == tensor.I8 && d == tensor.F8_E8M0 {
		return tensor.Entry{}, fmt.Errorf("%w: scale %q of %v for weights of %v", tensor.ErrUnsupported, scale.Name, scale.DType, weight.DType)
	}
	h, err := c.header(weight, scale)
	if err != nil {
		return tensor.Entry{}, err
	}
	scale.DType = d
	return scaled.Entry(src, h, weight, scale)
}

// checkInt8 checks that no weight lacks its scales in a checkpoint that is in
// LLM.int8 by its configuration. Which are there, nf4/bnb sees.
func (c *config) checkInt8(src tensor.Source) error {
	if len(c.formats) == 0 || c.formats[0] != "8-bit" {
		return nil
	}
	for info := range src.All() {
		layer, ok := strings.CutSuffix(info.Name, ".weight")
		if ok && info.DType == tensor.I8 && !tensor.Has(src, layer+".SCB") {
			return fmt.Errorf("tensor %q: %w: I8 in a model that load_in_8bit says is in LLM.int8, but %q is not there",
				info.Name, tensor.ErrMalformed, layer+".SCB")
		}
	}
	return nil
}
