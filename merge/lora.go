package merge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// LoRA is the low-rank adapter (Hu et al., 2021): W + scale * B·A, with A
// [rank, in] in <module>.lora_A.weight and B [out, rank] in
// <module>.lora_B.weight.
type LoRA struct{}

// Name implements Method.
func (LoRA) Name() string { return "lora" }

const (
	suffixA = ".lora_A.weight"
	suffixB = ".lora_B.weight"
)

// Match implements Method.
func (LoRA) Match(base, adapter tensor.Source, codecs tensor.Codecs, cfg Config) (*Effect, error) {
	var out []Delta
	for info := range adapter.All() {
		module, isA := strings.CutSuffix(info.Name, suffixA)
		if !isA {
			module, isB := strings.CutSuffix(info.Name, suffixB)
			if !isB {
				return nil, fmt.Errorf("adapter tensor %q: %w: neither a lora_A nor a lora_B weight", info.Name, tensor.ErrUnsupported)
			}
			if !tensor.Has(adapter, module+suffixA) {
				return nil, fmt.Errorf("adapter tensor %q: %w: there is no %s beside it", info.Name, tensor.ErrMalformed, module+suffixA)
			}
			continue
		}
		d, err := newLoRADelta(base, adapter, codecs, module, cfg)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: the adapter has no tensors", tensor.ErrMalformed)
	}
	return &Effect{Base: base, Changes: Sums(out)}, nil
}

// loraDelta is one pair in memory: the rows of the target change by those of
// left times right.
type loraDelta struct {
	target string
	left   []float32    // [rows, rank]: B, or A transposed if the target is
	right  kernel.Dense // [rank, cols]: A, or B transposed
	scale  float32
}

func newLoRADelta(base, adapter tensor.Source, codecs tensor.Codecs, module string, cfg Config) (*loraDelta, error) {
	nameA, nameB, target := module+suffixA, module+suffixB, module+".weight"
	w, err := base.Info(target)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: the base has no tensor %q", nameA, tensor.ErrMalformed, target),
			"was the adapter trained on another model?")
	}
	infoA, err := adapter.Info(nameA)
	if err != nil {
		return nil, err
	}
	infoB, err := adapter.Info(nameB)
	if err != nil {
		return nil, fmt.Errorf("adapter tensor %q: %w: there is no %s beside it", nameA, tensor.ErrMalformed, nameB)
	}
	switch {
	case len(infoA.Shape) != 2 || len(infoB.Shape) != 2 || infoA.Shape[0] != infoB.Shape[1]:
		return nil, fmt.Errorf("adapter tensors %q and %q: %w: shapes %v and %v, want [rank, in] and [out, rank]",
			nameA, nameB, tensor.ErrMalformed, infoA.Shape, infoB.Shape)
	case infoA.Shape[0] != int64(cfg.Rank):
		return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: its rank is %d, the configuration says %d", nameA, tensor.ErrMalformed, infoA.Shape[0], cfg.Rank),
			"adapter_config.json does not belong to these tensors")
	}
	fits := tensor.Shape{infoB.Shape[0], infoA.Shape[1]}
	if cfg.FanInFanOut {
		slices.Reverse(fits)
	}
	if !w.Shape.Equal(fits) {
		return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: the adapter is for a weight of %v, the base's %s has shape %v",
			nameA, tensor.ErrMalformed, fits, target, w.Shape),
			"was the adapter trained on another model?")
	}
	_, a, err := codecs.ReadAll(adapter, nameA)
	if err != nil {
		return nil, err
	}
	_, b, err := codecs.ReadAll(adapter, nameB)
	if err != nil {
		return nil, err
	}
	for _, x := range []struct {
		info   tensor.Info
		values []float32
	}{{infoA, a}, {infoB, b}} {
		if err := finite(x.info, x.values, 0, "the adapter"); err != nil {
			return nil, fmt.Errorf("adapter tensor %q: %w", x.info.Name, err)
		}
	}
	in, out := int(infoA.Shape[1]), int(infoB.Shape[0])
	d := &loraDelta{target: target, scale: float32(cfg.Scale())}
	if cfg.FanInFanOut {
		d.left, d.right = transposed(a, cfg.Rank, in), kernel.Dense{Data: transposed(b, out, cfg.Rank), Rows: cfg.Rank, Cols: out}
	} else {
		d.left, d.right = b, kernel.Dense{Data: a, Rows: cfg.Rank, Cols: in}
	}
	return d, nil
}

// transposed returns a small matrix with rows and columns exchanged.
func transposed(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	for r := range rows {
		for c := range cols {
			out[c*rows+r] = x[r*cols+c]
		}
	}
	return out
}

// Target implements Delta.
func (d *loraDelta) Target() string { return d.target }

// Zero implements Delta.
func (d *loraDelta) Zero() bool { return allZero(d.right.Data) || allZero(d.left) || d.scale == 0 }

func allZero(x []float32) bool {
	for _, v := range x {
		if v != 0 {
			return false
		}
	}
	return true
}

// Factors implements LowRank.
func (d *loraDelta) Factors() (b, a []float32, rank int, scale float32, err error) {
	return d.left, d.right.Data, d.right.Rows, d.scale, nil
}

// AddRows implements Delta: the product is taken first and scaled then, as PEFT
// does it.
func (d *loraDelta) AddRows(w []float32, row int64, scale float32) error {
	n, r := len(w)/d.right.Cols, d.right.Rows
	delta := make([]float32, len(w))
	kernel.MulFused(delta, d.left[row*int64(r):][:n*r], n, d.right)
	kernel.AddScaled(w, scale*d.scale, delta)
	return nil
}

// ModuleOf returns the module that a low-rank adapter tensor is for, and
// whether the name is that of one.
func ModuleOf(name string) (string, bool) {
	for _, suffix := range []string{suffixA, suffixB} {
		if module, ok := strings.CutSuffix(name, suffix); ok {
			return module, true
		}
	}
	return "", false
}
