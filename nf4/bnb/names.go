package bnb

import (
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// What is appended to the name of a quantized weight.
const (
	absmaxSuffix       = ".absmax"
	quantMapSuffix     = ".quant_map"
	nestedAbsmaxSuffix = ".nested_absmax"
	nestedMapSuffix    = ".nested_quant_map"
	stateInfix         = ".quant_state.bitsandbytes__"
)

// kinds are the encodings, as quant_state and quantization_config spell them.
var kinds = map[string]tensor.DType{"nf4": tensor.NF4, "fp4": tensor.FP4}

// kindOf returns the spelling of a type.
func kindOf(d tensor.DType) string { return strings.ToLower(d.String()) }

// dtypes are torch's names of what a weight can have been.
var dtypes = map[string]tensor.DType{"float32": tensor.F32, "float16": tensor.F16, "bfloat16": tensor.BF16}

// scaleTypes are what absmax and maps may be stored as.
var scaleTypes = []tensor.DType{tensor.F32, tensor.BF16, tensor.F16}

// dtypeName returns torch's name of a dtype, "" for one a weight cannot have
// been.
func dtypeName(d tensor.DType) string {
	for name, e := range dtypes {
		if e == d {
			return name
		}
	}
	return ""
}

// storageName returns torch's name of a dtype that 4-bit codes may be written as,
// "" for others.
func storageName(d tensor.DType) string {
	if d == tensor.U8 {
		return "uint8"
	}
	return dtypeName(d)
}

// storage returns the dtype that 4-bit codes are stored as.
func (o *Options) storage() tensor.DType {
	if o.Storage == tensor.Invalid {
		return tensor.U8
	}
	return o.Storage
}

// group is a quantized weight and the tensors beside it.
type group struct {
	name  string                 // of the weight
	parts map[string]tensor.Info // by suffix; quant_state under stateInfix
	kind  string                 // after stateInfix
}

// split divides the name of a tensor beside a weight into that of the weight and
// the suffix.
func split(name string) (weight, suffix, kind string, ok bool) {
	if i := strings.LastIndex(name, stateInfix); i >= 0 {
		return name[:i], stateInfix, name[i+len(stateInfix):], true
	}
	for _, s := range []string{absmaxSuffix, quantMapSuffix, nestedAbsmaxSuffix, nestedMapSuffix} {
		if weight, ok := strings.CutSuffix(name, s); ok {
			return weight, s, "", true
		}
	}
	return "", "", "", false
}

// Stored returns, for each quantized weight of src by name, the tensors that it is
// stored in, in the order of src: the weight's own and those beside it.
func Stored(src tensor.Source) map[string][]tensor.Info {
	parts := make(map[string][]tensor.Info)
	for info := range src.All() {
		if weight, _, _, beside := split(info.Name); beside {
			parts[weight] = append(parts[weight], info)
		} else if weight, _, beside := splitEight(info.Name); beside {
			parts[weight] = append(parts[weight], info)
		}
	}
	for info := range src.All() {
		if beside := parts[info.Name]; beside != nil {
			parts[info.Name] = append([]tensor.Info{info}, beside...)
		}
	}
	return parts
}

// collect finds the quantized weights of src. A tensor that belongs beside a
// weight that is not there is an error.
func collect(src tensor.Source) (map[string]*group, error) {
	groups := make(map[string]*group)
	var first []string // the name of the first part of each group
	for info := range src.All() {
		weight, suffix, kind, ok := split(info.Name)
		if !ok {
			continue
		}
		g := groups[weight]
		if g == nil {
			g = &group{name: weight, parts: make(map[string]tensor.Info)}
			groups[weight] = g
			first = append(first, info.Name)
		}
		if old, dup := g.parts[suffix]; dup {
			return nil, fmt.Errorf("tensor %q: %w: both %q and %q belong to it", weight, tensor.ErrMalformed, old.Name, info.Name)
		}
		g.parts[suffix] = info
		if suffix == stateInfix {
			g.kind = kind
		}
	}
	for _, name := range first {
		weight, _, _, _ := split(name)
		if !tensor.Has(src, weight) {
			return nil, fmt.Errorf("tensor %q: %w: it belongs to a weight %q, which is not there", name, tensor.ErrMalformed, weight)
		}
	}
	return groups, nil
}

// part returns the tensor with that suffix, which must be there.
func (g *group) part(suffix string) (tensor.Info, error) {
	info, ok := g.parts[suffix]
	if !ok {
		name := g.name + suffix
		if suffix == stateInfix {
			name += "nf4"
		}
		return info, fmt.Errorf("%w: %q, which belongs to it, is not there", tensor.ErrMalformed, name)
	}
	return info, nil
}
