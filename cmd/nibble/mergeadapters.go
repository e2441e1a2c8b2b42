package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/tensor"
)

// adapted is a base with what adapters do to it.
type adapted struct {
	// model is the base with the tensors, the shapes and the layers that the
	// adapters want.
	model   *model
	changes []merge.Change

	// config and files are what a directory has that the base's has not.
	config []hf.Field
	files  []hf.SideFile

	zero  int // deltas that are zero
	notes []string

	// account is that of the view that is written.
	account *merge.Account

	open []io.Closer
}

// close closes the adapters, which are read until all is written.
func (x *adapted) close() error {
	var errs []error
	for _, c := range x.open {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// adapted matches adapters with the model.
func (m *model) adapted(list []weighted, arithmetic merge.Arithmetic, o *mergeOptions) (*adapted, error) {
	x := &adapted{}
	if err := x.match(m, list, arithmetic, o); err != nil {
		return nil, errors.Join(err, x.close())
	}
	return x, nil
}

func (x *adapted) match(m *model, list []weighted, arithmetic merge.Arithmetic, o *mergeOptions) (err error) {
	if x.model, err = m.withoutTiedHead(); err != nil {
		return err
	}
	initial := slices.Clone(o.initial)
	var changes [][]merge.Change
	for i, w := range list {
		ad, err := openAdapter(w.path, (*peft.Config).Unmergeable)
		if err != nil {
			return err
		}
		x.open = append(x.open, ad)
		cfg, err := mergeConfig(ad.Config)
		if err != nil {
			return fmt.Errorf("%s: %w", w.path, err)
		}
		x.model.describe(&cfg)
		cfg.Arithmetic, cfg.Untie = arithmetic, o.untie && i == 0
		if ad.Config.ChangedBase() && !o.residual {
			if cfg.Initial, initial, err = x.initial(ad, w.path, initial); err != nil {
				return err
			}
		}
		e, err := match(x.model.view, ad, cfg, w.path)
		if err != nil {
			return err
		}
		own, err := e.Weighted(w.weight)
		if err != nil {
			return fmt.Errorf("%s: %w", w.path, err)
		}
		changes = append(changes, own)
		x.zero += e.Zeros()
		x.notes = append(x.notes, e.Notes...)
		if err := x.restructure(e, ad.Config); err != nil {
			return fmt.Errorf("%s: %w", w.path, err)
		}
	}
	if len(initial) > 0 {
		return badUsage(hint.Add(fmt.Errorf("--initial-adapter %s: no adapter is left that changed its base when training began", initial[0]),
			"leave it out: init_lora_weights of the adapters does not ask for it"))
	}
	x.changes, err = merge.Join(x.model.view, codecs, arithmetic, changes...)
	return err
}

// initial opens the first of the initial adapters, for an adapter that needs one.
func (x *adapted) initial(ad *peft.Adapter, path string, list []string) (tensor.Source, []string, error) {
	if len(list) == 0 {
		return nil, nil, hint.Add(fmt.Errorf("%s: %w: init_lora_weights = %q changed the base when training began, so the adapter does not fit the base as published",
			path, tensor.ErrUnsupported, ad.Config.InitLoraWeights),
			"give the adapter as it was before training with --initial-adapter, or the changed base as --base with --residual-base")
	}
	// PEFT has such an adapter say that it was made with init_lora_weights = true,
	// so that loading it does not change the base again. What it says does not
	// matter here.
	first, err := openAdapter(list[0], (*peft.Config).Unmergeable)
	if err != nil {
		return nil, nil, err
	}
	x.open = append(x.open, first)
	if first.Config.R != ad.Config.R || first.Config.LoraAlpha != ad.Config.LoraAlpha || first.Config.UseRSLoRA != ad.Config.UseRSLoRA {
		return nil, nil, hint.Add(fmt.Errorf("%s: %w: r, lora_alpha and use_rslora are not those of %s", list[0], tensor.ErrMalformed, path),
			"is it the initial adapter of another training?")
	}
	return first, list[1:], nil
}

// restructure makes the model what an adapter wants it to be.
func (x *adapted) restructure(e *merge.Effect, c *peft.Config) error {
	m := x.model
	x.model = m.over(e.Base, e.Origins, m.view.Dropped)
	if !e.Untied && e.Vocabulary == 0 && e.Layers == 0 {
		return nil
	}
	a, config := *m.arch, *m.arch.Config
	a.Config, x.model.arch = &config, &a
	set := func(name, value string) {
		x.config = append(slices.DeleteFunc(x.config, func(f hf.Field) bool { return f.Name == name }), hf.Field{Name: name, Value: []byte(value)})
	}
	if e.Untied {
		config.TieWordEmbeddings = false
		set("tie_word_embeddings", "false")
	}
	if e.Vocabulary != 0 {
		config.VocabSize = e.Vocabulary
		set("vocab_size", strconv.FormatInt(e.Vocabulary, 10))
	}
	if e.Layers != 0 {
		return x.replicate(e, c, set)
	}
	return nil
}

// replicate sets in the configuration how many layers there are, and of what kind
// each is.
func (x *adapted) replicate(e *merge.Effect, c *peft.Config, set func(name, value string)) error {
	m := x.model
	was := m.arch.NumHiddenLayers
	m.arch.NumHiddenLayers = e.Layers
	if m.HF == nil {
		set("num_hidden_layers", strconv.FormatInt(e.Layers, 10))
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(m.HF.Config(), &members); err != nil {
		return fmt.Errorf("%s: %w: %w", hf.ConfigName, tensor.ErrMalformed, err)
	}
	name := "num_hidden_layers"
	if _, ok := members[name]; !ok && members["n_layer"] != nil {
		name = "n_layer"
	}
	set(name, strconv.FormatInt(e.Layers, 10))
	for name, text := range members {
		// What is said of each layer is said of each that is made of it.
		var each []json.RawMessage
		if name != "layer_types" || json.Unmarshal(text, &each) != nil || int64(len(each)) != was {
			continue
		}
		var all []json.RawMessage
		for _, r := range c.LayerReplication {
			all = append(all, each[r[0]:r[1]]...)
		}
		text, err := json.Marshal(all)
		if err != nil {
			return err
		}
		set(name, string(text))
	}
	return nil
}
