package peft

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// WithoutInitial returns what fits the base as it was before training began, of an
// adapter that fits it without the product of what it began with (PiSSA and its like):
//
//	W - s·B0·A0 + s·B·A = W + s·[B, -B0]·[A; A0],
//
// of twice the rank and the same scale. It is what PEFT's save_pretrained makes if it is
// given path_initial_model_for_weight_conversion. Tensors but A and B are as they are.
func WithoutInitial(c *Config, trained, initial tensor.Source) (*Config, tensor.Source, error) {
	alpha := 2.0
	if c.UseRSLoRA {
		alpha = math.Sqrt2
	}
	out := c.Clone()
	out.InitLoraWeights = "true"
	out.R, out.LoraAlpha = 2*c.R, alpha*c.LoraAlpha
	out.RankPattern, out.AlphaPattern = slices.Clone(c.RankPattern), slices.Clone(c.AlphaPattern)
	for i := range out.RankPattern {
		out.RankPattern[i].Value *= 2
	}
	for i := range out.AlphaPattern {
		out.AlphaPattern[i].Value *= alpha
	}
	var entries []tensor.Entry
	for info := range trained.All() {
		axis := -1
		switch {
		case strings.HasSuffix(info.Name, suffixA):
			axis = 0
		case strings.HasSuffix(info.Name, suffixB):
			axis = 1
		default:
			entries = append(entries, tensor.Forward(trained, info, info.Name))
			continue
		}
		if first, err := initial.Info(info.Name); err != nil || !first.Shape.Equal(info.Shape) || len(info.Shape) != 2 {
			return nil, nil, fmt.Errorf("adapter tensor %q: %w: what it began with is not there, or has another shape", info.Name, tensor.ErrMalformed)
		}
		entries = append(entries, joined(trained, initial, info, axis))
	}
	t, err := tensor.NewTable(trained.Meta(), entries)
	return out, t, err
}

// joined returns the entry of A over A0, or of B beside -B0: axis is that along which
// they are put together.
func joined(trained, initial tensor.Source, info tensor.Info, axis int) tensor.Entry {
	shape := slices.Clone(info.Shape)
	shape[axis] *= 2
	out := tensor.Info{Name: info.Name, DType: tensor.F32, Shape: shape}
	return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
		_, x, err := codecs().ReadAll(trained, info.Name)
		if err != nil {
			return nil, err
		}
		_, first, err := codecs().ReadAll(initial, info.Name)
		if err != nil {
			return nil, err
		}
		all := make([]float32, 0, 2*len(x))
		if axis == 0 {
			all = append(append(all, x...), first...)
		} else {
			width := int(info.Shape.Cols())
			for at := 0; at < len(x); at += width {
				all = append(all, x[at:at+width]...)
				for _, v := range first[at : at+width] {
					all = append(all, -v)
				}
			}
		}
		b := make([]byte, 4*len(all))
		kernel.EncodeF32(b, all)
		return bytes.NewReader(b), nil
	}}
}
