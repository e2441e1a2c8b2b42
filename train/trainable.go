package train

import (
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
)

// NewTrainable returns what a run of that configuration trains of the model,
// and the parameters of it in the model's order, none of which is in memory yet.
func NewTrainable(a *arch.Model, src tensor.Source, codecs tensor.Codecs, c *Config) (model.Trainable, []*optim.Param, error) {
	if c.FineTuneType == "full" {
		return fullParams(a, src, codecs)
	}
	return adapters(a, c)
}

func fullParams(a *arch.Model, src tensor.Source, codecs tensor.Codecs) (model.Trainable, []*optim.Param, error) {
	t := model.Trainable{Params: make(map[string]*optim.Param)}
	var params []*optim.Param
	for _, x := range a.Tensors() {
		info, err := src.Info(x.Name)
		if err != nil {
			return t, nil, err
		}
		if !info.DType.Float() {
			return t, nil, hint.Add(fmt.Errorf("tensor %q: %w: full fine-tuning of %v weights", x.Name, tensor.ErrUnsupported, info.DType),
				"train an adapter (--fine-tune-type lora), or dequantize the model first")
		}
		p := &optim.Param{Name: x.Name, Shape: info.Shape, Layer: x.Layer, Decay: len(x.Dims) > 1, Init: func(dst []float32) error {
			_, rows, err := codecs.OpenFrom(src, x.Name)
			if err != nil {
				return err
			}
			return rows.ReadRows(dst, 0)
		}}
		t.Params[x.Name] = p
		params = append(params, p)
	}
	return t, params, nil
}

func adapters(a *arch.Model, c *Config) (model.Trainable, []*optim.Param, error) {
	t := model.Trainable{Adapters: make(map[string]*model.Adapter)}
	var params []*optim.Param
	found := make(map[string]bool)
	for _, x := range a.Tensors() {
		target := c.target(x)
		if target == "" {
			continue
		}
		found[target] = true
		ad := model.NewAdapter(x, c.Rank, float32(c.Scale()), float32(c.Dropout), c.Seed)
		t.Adapters[x.Module()] = ad
		params = append(params, ad.A, ad.B)
	}
	for _, target := range c.TargetModules {
		if !found[target] {
			return t, nil, hint.Add(fmt.Errorf("--target-modules %q: the model has no linear layer of that name", target),
				"the %s family has %s; all-linear takes them all", a.Name, strings.Join(a.LinearModules(), ", "))
		}
	}
	return t, params, nil
}

// target returns the entry of TargetModules that a linear layer's weight
// answers to, "" if none: by PEFT's rule, its whole name or its end after a dot.
func (c *Config) target(x arch.Tensor) string {
	if !x.Linear {
		return ""
	}
	for _, t := range c.TargetModules {
		if t == "all-linear" || x.Module() == t || strings.HasSuffix(x.Module(), "."+t) {
			return t
		}
	}
	return ""
}
