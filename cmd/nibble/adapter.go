package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/tensor"
	trainmodel "github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
)

// openAdapter opens a PEFT adapter. check says what its configuration asks for
// that the caller cannot do.
func openAdapter(path string, check func(*peft.Config) error) (*peft.Adapter, error) {
	in, err := formats.Open(path)
	if err != nil {
		return nil, err
	}
	if in.Adapter == nil {
		in.Close()
		return nil, hint.Add(fmt.Errorf("%s: %w: a %s, where an adapter is needed", path, tensor.ErrUnsupported, in.Kind),
			"an adapter is a directory with %s and %s", peft.ConfigName, peft.WeightsName)
	}
	if err := check(in.Adapter.Config); err != nil {
		in.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return in.Adapter, nil
}

// match reads an adapter and matches it with a base.
func match(base tensor.Source, ad *peft.Adapter, cfg merge.Config, path string) (*merge.Effect, error) {
	kind := strings.ToLower(ad.Config.PeftType)
	for _, method := range merge.Methods() {
		if method.Name() != kind {
			continue
		}
		e, err := method.Match(base, ad, codecs, cfg)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return e, nil
	}
	return nil, fmt.Errorf("%s: %w: peft_type %s", path, tensor.ErrUnsupported, ad.Config.PeftType)
}

// attach returns an adapter to be computed on top of a base, "" being none.
func attach(base tensor.Source, path string) (trainmodel.Trainable, error) {
	t := trainmodel.Trainable{Adapters: make(map[string]*trainmodel.Adapter)}
	if path == "" {
		return t, nil
	}
	ad, err := openAdapter(path, (*peft.Config).Unsupported)
	if err != nil {
		return t, err
	}
	defer ad.Close()
	cfg, err := mergeConfig(ad.Config)
	if err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	// Matching checks everything there is to check.
	if _, err := match(base, ad, cfg, path); err != nil {
		return t, err
	}
	for info := range ad.All() {
		module, ok := layerOf(info.Name)
		if !ok || !tensor.Has(base, module+".weight") {
			return t, hint.Add(fmt.Errorf("%s: %w: %q is no matrix of a layer that can be computed beside the base", path, tensor.ErrUnsupported, info.Name),
				"merge the adapter into the base, and take the result")
		}
		if t.Adapters[module] == nil {
			t.Adapters[module] = &trainmodel.Adapter{Scale: float32(ad.Config.Scaling())}
		}
		_, data, err := codecs.ReadAll(ad, info.Name)
		if err != nil {
			return t, fmt.Errorf("%s: %w", path, err)
		}
		// Nothing is trained here, so there is no gradient.
		p := &optim.Param{Name: info.Name, Shape: info.Shape, Data: data}
		if strings.HasSuffix(info.Name, ".lora_A.weight") {
			t.Adapters[module].A = p
		} else {
			t.Adapters[module].B = p
		}
	}
	return t, nil
}

// layerOf returns the layer that one of the two matrices of a pair is for.
func layerOf(name string) (string, bool) {
	module, ok := strings.CutSuffix(name, ".lora_A.weight")
	if !ok {
		module, ok = strings.CutSuffix(name, ".lora_B.weight")
	}
	return module, ok
}

// weighted is an adapter of merge, given as DIR or DIR:weight.
type weighted struct {
	path   string
	weight float64
}

func parseWeighted(s string) (weighted, error) {
	w := weighted{path: s, weight: 1}
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return w, nil
	}
	v, err := strconv.ParseFloat(s[at+1:], 64)
	if err != nil || v-v != 0 {
		return w, badUsage(hint.Add(fmt.Errorf("--adapter %s: %q is not a weight", s, s[at+1:]), "write DIR or DIR:weight, as in lora:0.5"))
	}
	return weighted{s[:at], v}, nil
}
