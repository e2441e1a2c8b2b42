package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
		ad, err := openAdapter(w.path, m.arch, (*peft.Config).Unmergeable)
		if err != nil {
			return err
		}
		x.open = append(x.open, ad)
		o.output.base.note(w.path, ad.Config)
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
		x.tokenizer(w.path, o.out)
		x.chained(w.path, ad.Config, list)
	}
	if len(initial) > 0 {
		return badUsage(hint.Add(fmt.Errorf("--initial-adapter %s: no adapter is left that changed its base when training began", initial[0]),
			"leave it out: init_lora_weights of the adapters does not ask for it"))
	}
	if o.plan != nil {
		x.changes, err = x.combine(o.plan, changes)
		return err
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
	first, err := openAdapter(list[0], x.model.arch, (*peft.Config).Unmergeable)
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

// chained notes that an adapter was trained on top of another one that is not
// merged before it.
func (x *adapted) chained(path string, c *peft.Config, list []weighted) {
	below := localBase(c.BaseModel)
	if below == "" {
		return
	}
	if _, err := os.Stat(filepath.Join(below, peft.ConfigName)); err != nil {
		return
	}
	for _, w := range list {
		if sameFile(w.path, below) {
			return
		}
	}
	x.notes = append(x.notes, fmt.Sprintf("%s was trained on top of the adapter %s, which is not merged", path, below))
}

// sameFile reports whether two paths are of one file or directory.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// tokenizerFiles are what trainers save of a tokenizer beside an adapter.
var tokenizerFiles = []string{
	"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"chat_template.jinja", "chat_template.json",
}

// tokenizer has the files of the tokenizer that the adapter was trained with take
// the place of the base's. Of several adapters the first that has any counts.
func (x *adapted) tokenizer(dir, out string) {
	if len(x.files) > 0 {
		return
	}
	var names []string
	for _, name := range tokenizerFiles {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			x.files = append(x.files, hf.SideFile{Name: name, From: path})
			names = append(names, name)
		}
	}
	switch {
	case len(names) > 0 && isGGUF(out):
		x.notes = append(x.notes, fmt.Sprintf("%s has a tokenizer of its own, which a .gguf file does not get: merge into a directory, and convert that", dir))
	case len(names) > 0:
		x.notes = append(x.notes, fmt.Sprintf("the tokenizer is that of %s: %s", dir, listed(names)))
	}
}

// restructure makes the model what an adapter wants it to be.
func (x *adapted) restructure(e *merge.Effect, c *peft.Config) error {
	m := x.model
	x.model = m.over(e.Base, e.Origins, m.view.Dropped)
	set := func(name, value string) {
		x.config = append(slices.DeleteFunc(x.config, func(f hf.Field) bool { return f.Name == name }), hf.Field{Name: name, Value: []byte(value)})
	}
	a, config := *m.arch, *m.arch.Config
	a.Config = &config
	if e.Untied {
		config.TieWordEmbeddings = false
		set("tie_word_embeddings", "false")
	}
	if e.Vocabulary != 0 {
		config.VocabSize = e.Vocabulary
		set("vocab_size", strconv.FormatInt(e.Vocabulary, 10))
	}
	if e.Layers != 0 {
		config.NumHiddenLayers = e.Layers
		set(m.member("num_hidden_layers", "n_layer"), strconv.FormatInt(e.Layers, 10))
	}
	x.model.arch = &a
	if m.gguf != nil {
		// Its configuration is written from what is known of it.
		g := *m.gguf
		g.Model, x.model.gguf, x.config = &a, &g, nil
	}
	if e.Layers == 0 || m.HF == nil {
		return nil
	}
	if err := x.layerTypes(c, m.arch.NumHiddenLayers, set); err != nil {
		return err
	}
	// What follows from the number of layers follows from the new one.
	text, err := hf.Edit(m.HF.Config(), x.config, nil)
	if err != nil {
		return err
	}
	x.model.arch, err = parseConfig(filepath.Join(m.Path, hf.ConfigName), text)
	return err
}

// members returns what is in the configuration of a directory.
func (m *model) members() map[string]json.RawMessage {
	var out map[string]json.RawMessage
	if m.HF != nil && json.Unmarshal(m.HF.Config(), &out) != nil {
		return nil // it has been read before, and was sound
	}
	return out
}

// member returns under which of its names a member is in the configuration, the
// first if it is not.
func (m *model) member(names ...string) string {
	all := m.members()
	for _, n := range names {
		if _, ok := all[n]; ok {
			return n
		}
	}
	return names[0]
}

// layerTypes says of each layer what is said of the one that it is made of.
func (x *adapted) layerTypes(c *peft.Config, layers int64, set func(name, value string)) error {
	var was, all []json.RawMessage
	if err := json.Unmarshal(x.model.members()["layer_types"], &was); err != nil || int64(len(was)) != layers {
		return nil // there are none
	}
	for _, r := range c.LayerReplication {
		if r[1] > layers {
			return fmt.Errorf("%w: layer_replication has layer %d, the configuration of the base %d layers", tensor.ErrMalformed, r[1]-1, layers)
		}
		all = append(all, was[r[0]:r[1]]...)
	}
	text, err := json.Marshal(all)
	if err == nil {
		set("layer_types", string(text))
	}
	return err
}
