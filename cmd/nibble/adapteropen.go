package main

import (
	"fmt"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/tensor"
)

// readAdapter opens an adapter of PEFT, MLX, kohya, diffusers or GGUF, with its tensors in
// PEFT's layout. A GGUF file has names that only the model that it is for can turn into
// those of a checkpoint, and kohya's spelling is clearer with it; m may be nil for the others.
func readAdapter(path string, m *arch.Model) (*peft.Adapter, error) {
	in, err := formats.Open(path)
	if err != nil {
		return nil, err
	}
	ad, err := adapterOf(in, m)
	if err != nil {
		in.Close()
		return nil, err
	}
	return ad, nil
}

// adapterOf returns the adapter that an input is, which closes the input.
func adapterOf(in *formats.Input, m *arch.Model) (*peft.Adapter, error) {
	switch {
	case in.Adapter != nil:
		return in.Adapter, nil
	case in.GGUF != nil && convert.IsAdapter(in.Meta()):
		if m == nil {
			return nil, badUsage(needsBase(in.Path))
		}
		ad, _, err := fromGGUF(in, m)
		return ad, err
	case (in.Kind == formats.Safetensors || in.Kind == formats.Torch) && peft.IsSingle(in):
		ad, err := peft.FromSingle(in, in.Path, modulesOf(m))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", in.Path, err)
		}
		return peft.NewAdapter(ad.Config, ad.Table, in.Path, in), nil
	}
	return nil, hint.Add(fmt.Errorf("%s: %w: a %s, where an adapter is needed", in.Path, tensor.ErrUnsupported, in.Kind),
		"an adapter is a directory with %s and %s, MLX's %s, a file of kohya's or diffusers', or a .gguf file", peft.ConfigName, peft.WeightsName, peft.MLXWeightsName)
}

func needsBase(path string) error {
	return hint.Add(fmt.Errorf("%s: a GGUF adapter does not say enough of the model that it belongs to", path),
		"give its directory or .gguf file with --base; config.json alone is enough")
}

// fromGGUF returns a GGUF adapter as PEFT has it, and what its tensors are made of.
func fromGGUF(in *formats.Input, m *arch.Model) (*peft.Adapter, originOf, error) {
	view, scale, err := convert.AdapterFromGGUF(in.GGUF, codecs, m)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	a, err := factors.Inventory(view, func(_ string, rank int) (float64, error) { return scale.Of(rank), nil })
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	c := peft.NewConfig()
	c.TaskType, c.InferenceMode, c.FanInFanOut = "CAUSAL_LM", true, m.FanInFanOut()
	c.TargetModules.Names = targets(view)
	c.SetModules(scalesOf(a))
	c.BaseModel = baseName(in.Meta(), "")
	var entries []tensor.Entry
	for info := range view.All() {
		entries = append(entries, tensor.Forward(view, info, info.Name))
	}
	t, err := tensor.NewTable(view.Meta(), entries)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	return peft.NewAdapter(c, t, in.Path, in), view.Origin, nil
}

// modulesOf returns the names of a model's modules, none of no model.
func modulesOf(m *arch.Model) []string {
	if m == nil {
		return nil
	}
	var out []string
	for _, t := range append(m.Tensors(), m.Extras()...) {
		out = append(out, t.Module())
	}
	return out
}

// scalesOf returns the ranks and scales of an adapter's modules.
func scalesOf(a *factors.Adapter) []peft.ModuleScale {
	var out []peft.ModuleScale
	for _, m := range a.Modules {
		out = append(out, peft.ModuleScale{Module: m.Name, Rank: m.Rank, Scale: m.Scale})
	}
	return out
}

// openFactors opens an adapter, of any format, for work on its low-rank matrices. base is
// the path of the model that it is for, "" if that is not known. follows are the keys of its
// configuration that the work respects beside those of ranks and scales.
func openFactors(path, base string, follows ...string) (*peft.Adapter, *factors.Adapter, error) {
	m, err := modelOf(base)
	if err != nil {
		return nil, nil, err
	}
	ad, err := readAdapter(path, m)
	if err != nil {
		return nil, nil, err
	}
	if err := ad.Config.UnsupportedBut(append(follows, "rank_pattern", "alpha_pattern")...); err != nil {
		ad.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	a, err := inventory(path, ad)
	if err != nil {
		ad.Close()
		return nil, nil, err
	}
	return ad, a, nil
}

// inventory returns the modules of an adapter with their scales.
func inventory(path string, ad *peft.Adapter) (*factors.Adapter, error) {
	scales, err := ad.Config.Scales()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a, err := factors.Inventory(ad, scales)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// modelOf returns what the model at a path is, nil for none.
func modelOf(base string) (*arch.Model, error) {
	if base == "" {
		return nil, nil
	}
	return hyperparameters(base)
}
