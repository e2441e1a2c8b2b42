package modelcard

import (
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// Params are numbers of parameters as GGUF counts them.
type Params struct {
	// Total is negative for an adapter, of whose tensors it is known only what
	// they add up to, and 0 if not known.
	Total int64

	// Shared is what all experts share, Expert what one of them has, Experts how
	// many there are, 0 in a dense model.
	Shared, Expert, Experts int64
}

// CountParams counts the tensors of a GGUF file by their names
// (GGUFWriter.get_total_parameter_count).
func CountParams(list iter.Seq[tensor.Info]) Params {
	var p Params
	var loraA *tensor.Info
	var stacked, expertSum int64
	for info := range list {
		shape := info.Shape
		if strings.HasSuffix(info.Name, ".lora_a") {
			loraA = &info
			continue
		}
		if base, ok := strings.CutSuffix(info.Name, ".lora_b"); ok {
			if loraA == nil || loraA.Name != base+".lora_a" || len(shape) == 0 {
				return Params{} // the reference gives up, too
			}
			shape = append(append(tensor.Shape{}, shape[:len(shape)-1]...), loraA.Shape.Cols())
		}
		size := elems(shape)
		p.Total = add(p.Total, size)
		if !strings.Contains(info.Name, "_exps.") || len(shape) < 3 {
			p.Shared = add(p.Shared, size)
			continue
		}
		n := shape[len(shape)-3]
		if strings.Contains(info.Name, ".bias") {
			n = shape[len(shape)-2]
		}
		p.Expert = add(p.Expert, size/max(1, n))
		expertSum = add(expertSum, n)
		stacked++
	}
	if stacked > 0 {
		p.Experts = expertSum / stacked
	}
	if loraA != nil {
		p.Total = -p.Total
	}
	return p
}

// add and elems stop at the largest number rather than wrap around: the sum of
// valid shapes may not fit.
func add(a, b int64) int64 {
	if s, ok := safeio.Add(a, b); ok {
		return s
	}
	return math.MaxInt64
}

func elems(s tensor.Shape) int64 {
	if s.Validate() != nil {
		return math.MaxInt64
	}
	return s.Elems()
}

// SizeLabel writes the size of a model in short: "7.2B", of experts "8x7.2B"
// (size_label in gguf-py/gguf/utility.py).
func (p Params) SizeLabel() string {
	if p.Experts > 0 {
		return fmt.Sprintf("%dx%s", p.Experts, rounded(add(magnitude(p.Shared), magnitude(p.Expert))))
	}
	return rounded(magnitude(p.Total))
}

func magnitude(n int64) int64 { return max(n, -n, 0) }

// rounded writes a number with at least two digits ("260K", "1.2B", "70B").
func rounded(n int64) string {
	x, scale, unit := float64(n), 1e-3, "K"
	switch {
	case x > 1e12:
		scale, unit = 1e-12, "T"
	case x > 1e9:
		scale, unit = 1e-9, "B"
	case x > 1e6:
		scale, unit = 1e-6, "M"
	}
	x *= scale
	digits := strings.TrimLeft(strconv.FormatFloat(math.RoundToEven(x), 'f', 0, 64), "0")
	return strconv.FormatFloat(x, 'f', max(2-len(digits), 0), 64) + unit
}

// FileName returns the name that the reference gives a GGUF file when it is told
// a directory to write to, after the file's own metadata
// (naming_convention). outType is spelled as tensor.DType spells it.
func FileName(meta tensor.Meta, outType string) string {
	get := func(key string) string {
		s, _ := tensor.Lookup[string](meta, prefix+key)
		return s
	}
	name := get("basename")
	if name == "" {
		name = get("name")
	}
	if name == "" {
		name = "ggml-model"
	}
	dashes := func(s string) string { return strings.ReplaceAll(strings.TrimFunc(s, isSpace), " ", "-") }
	name = strings.ReplaceAll(dashes(name), "/", "-")
	if size := get("size_label"); size != "" {
		name += "-" + size
	}
	for _, p := range []string{get("finetune"), get("version"), outType} {
		if p != "" {
			name += "-" + dashes(p)
		}
	}
	if get("type") == "adapter" {
		name += "-LoRA"
	}
	return name + ".gguf"
}
