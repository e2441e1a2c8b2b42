package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
	trainmodel "github.com/seed18967229/nibble/train/model"
)

// openAdapter opens an adapter of any format. m is the model that it is put on,
// which a GGUF file takes its names from, and check says what its configuration
// asks for that the caller cannot do.
func openAdapter(path string, m *arch.Model, check func(*peft.Config) error) (*peft.Adapter, error) {
	ad, err := readAdapter(path, m)
	if err != nil {
		return nil, err
	}
	if err := check(ad.Config); err != nil {
		ad.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ad, nil
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
func attach(base tensor.Source, m *arch.Model, path string) (trainmodel.Trainable, error) {
	var none trainmodel.Trainable
	if path == "" {
		return none, nil
	}
	ad, err := openAdapter(path, m, computable)
	if err != nil {
		return none, err
	}
	defer ad.Close()
	cfg, err := mergeConfig(ad.Config)
	if err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	cfg.Transposed = func(name string) bool {
		return slices.ContainsFunc(m.Tensors(), func(t arch.Tensor) bool { return t.Name == name && t.Transposed })
	}
	if m.TieWordEmbeddings {
		cfg.Embedding, cfg.Head = m.NameOf(arch.Embedding), m.NameOf(arch.Head)
	}
	// Matching checks everything there is to check of the tensors.
	if _, err := match(base, ad, cfg, path); err != nil {
		return none, err
	}
	settings, err := settingsOf(ad)
	if err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	settings.Start.Adapter = ad
	t, params, err := train.NewTrainable(m, base, codecs, &settings)
	if err != nil {
		return none, hint.Add(fmt.Errorf("%s: %w", path, err), "merge the adapter into the base, and take the result")
	}
	for _, p := range params {
		// Nothing is trained here, so there is no gradient.
		p.Data = make([]float32, p.Shape.Elems())
		if err := p.Init(p.Data); err != nil {
			return none, fmt.Errorf("%s: %w", path, err)
		}
	}
	return t, nil
}

// computable returns an error if the configuration of an adapter asks for what cannot be
// computed beside the base.
func computable(c *peft.Config) error {
	return c.UnsupportedBut("rank_pattern", "alpha_pattern", "use_dora", "bias", "modules_to_save", "ensure_weight_tying")
}

// settingsOf returns the settings of a run that trains such adapters. Which modules have
// one, the tensors tell.
func settingsOf(ad *peft.Adapter) (train.Config, error) {
	c, s := ad.Config, train.DefaultConfig()
	if c.UseDoRA {
		s.FineTuneType = "dora"
	}
	s.Rank, s.Alpha, s.Dropout, s.UseRSLoRA = int(c.R), c.LoraAlpha, c.LoraDropout, c.UseRSLoRA
	s.RankPattern, s.AlphaPattern = c.RankPattern, c.AlphaPattern
	s.ModulesToSave, s.Bias = c.ModulesToSave, c.Bias
	s.TargetModules = nil
	for info := range ad.All() {
		for _, a := range []string{".lora_A.weight", ".lora_embedding_A"} {
			if module, ok := strings.CutSuffix(info.Name, a); ok {
				s.TargetModules = append(s.TargetModules, module)
			}
		}
	}
	if len(s.TargetModules) == 0 {
		return s, fmt.Errorf("%w: it has no low-rank matrices", tensor.ErrUnsupported)
	}
	return s, nil
}

// weighted is an adapter or a model that is merged, given as PATH or PATH:weight.
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
		return w, badUsage(hint.Add(fmt.Errorf("%s: %q is not a weight", s, s[at+1:]), "write DIR or DIR:weight, as in lora:0.5"))
	}
	return weighted{s[:at], v}, nil
}
