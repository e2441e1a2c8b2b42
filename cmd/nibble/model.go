package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/seed18967229/nibble/train/stream"
)

// model is an input that is a whole model, in checkpoint form: its tensors
// under their Hugging Face names, 4-bit weights as one tensor each.
type model struct {
	*formats.Input
	view tensor.Source
	arch *arch.Model
	gguf *convert.Checkpoint // of a GGUF file
}

// openModel opens a model; what is no model is an error that says what it is.
func openModel(path string) (*model, error) {
	in, err := formats.Open(path)
	if err != nil {
		return nil, err
	}
	m := &model{Input: in}
	if err := m.understand(); err != nil {
		in.Close()
		return nil, err
	}
	return m, nil
}

func (m *model) understand() error {
	switch m.Kind {
	case formats.HF:
		a, err := parseConfig(m.HF)
		if err != nil {
			return err
		}
		view, err := bnb.View(m.HF)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		m.arch, m.view = a, view
		return nil
	case formats.GGUF:
		c, err := convert.FromGGUF(m.GGUF, codecs)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		m.gguf, m.arch, m.view = c, c.Model, c.Source
		return nil
	case formats.Adapter:
		return hint.Add(fmt.Errorf("%s: %w: an adapter, where a model is needed", m.Path, tensor.ErrUnsupported),
			"give the base model here and the adapter with --adapter")
	}
	return hint.Add(fmt.Errorf("%s: %w: a file of tensors without a config.json, where a model is needed", m.Path, tensor.ErrUnsupported),
		"give the directory that holds the file and its config.json")
}

func parseConfig(d *hf.Dir) (*arch.Model, error) {
	a, err := arch.ParseConfig(d.Config())
	switch {
	case errors.Is(err, arch.ErrUnsupported):
		return nil, fmt.Errorf("%s: %w: %w", filepath.Join(d.Path(), hf.ConfigName), tensor.ErrUnsupported, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", filepath.Join(d.Path(), hf.ConfigName), tensor.ErrMalformed, err)
	}
	return a, nil
}

// base returns the model as the trainer takes it.
func (m *model) base() train.Base {
	return train.Base{Arch: m.arch, Source: m.view, Codecs: codecs}
}

// vocab returns the model's tokenizer, to split text with.
func (m *model) vocab() (*vocab.Vocab, error) { return m.openVocab(vocab.Options{TextOnly: true}) }

// openVocab returns the model's tokenizer, by its family's rules.
func (m *model) openVocab(o vocab.Options) (*vocab.Vocab, error) {
	if m.gguf != nil {
		return m.gguf.Vocab, nil
	}
	o.Size, o.Rules = int(m.arch.VocabSize), arch.LlamaTokenizers
	return vocab.OpenDir(m.Path, o)
}

func (m *model) tokenizer() (*vocab.Vocab, *tokenizer.Tokenizer, error) {
	v, err := m.vocab()
	if err != nil {
		return nil, nil, err
	}
	t, err := tokenizer.New(v)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: the tokenizer: %w", m.Path, err)
	}
	return v, t, nil
}

// name returns what the model is called: the last part of its path.
func (m *model) name() string {
	abs, err := filepath.Abs(m.Path)
	if err != nil {
		abs = m.Path
	}
	return strings.TrimSuffix(filepath.Base(abs), ".gguf")
}

// quantized reports whether a tensor of the model is stored in an encoding
// that no arithmetic is done in.
func (m *model) quantized() bool {
	for info := range m.view.All() {
		if !info.DType.Float() {
			return true
		}
	}
	return false
}

// dtype returns the floating-point type of the model's matrices, and of what
// they were before they were quantized if they are.
func (m *model) dtype() tensor.DType {
	for info := range m.view.All() {
		if len(info.Shape) < 2 {
			continue
		}
		if d := floatOf(m.view, info); d != tensor.Invalid {
			return d
		}
	}
	return tensor.F32
}

// floatOf returns the floating-point type a tensor has, or had before it was
// quantized, Invalid if that is not known.
func floatOf(src tensor.Source, info tensor.Info) tensor.DType {
	if info.DType.Float() {
		return info.DType
	}
	if h, err := nf4.Describe(src, info.Name); info.DType.Opaque() && err == nil {
		return h.Source
	}
	return tensor.Invalid
}

// checkpointFiles returns config.json and the files beside it, for a directory
// in which the weights are dtype. drop names members of config.json that do not
// apply any more, set those that do.
func (m *model) checkpointFiles(dtype tensor.DType, set []hf.Field, drop ...string) ([]hf.SideFile, error) {
	if m.gguf != nil {
		return m.filesFromGGUF(dtype, set)
	}
	files, err := m.HF.SideFiles()
	if err != nil {
		return nil, err
	}
	// transformers 5 writes dtype where transformers 4 writes torch_dtype; the
	// one that is there is set.
	key := "torch_dtype"
	var has struct {
		DType json.RawMessage `json:"dtype"`
	}
	if err := json.Unmarshal(m.HF.Config(), &has); err == nil && has.DType != nil {
		key = "dtype"
	}
	set = append([]hf.Field{{Name: key, Value: []byte(`"` + convert.TorchDType(dtype) + `"`)}}, set...)
	config, err := hf.Edit(m.HF.Config(), set, drop)
	if err != nil {
		return nil, err
	}
	return append(files, hf.SideFile{Name: hf.ConfigName, Data: config}), nil
}

func (m *model) filesFromGGUF(dtype tensor.DType, set []hf.Field) ([]hf.SideFile, error) {
	config, err := m.gguf.ConfigJSON(dtype)
	if err != nil {
		return nil, err
	}
	if config, err = hf.Edit(config, set, nil); err != nil {
		return nil, err
	}
	gen, err := m.gguf.GenerationConfigJSON()
	if err != nil {
		return nil, err
	}
	files := []hf.SideFile{{Name: hf.ConfigName, Data: config}, {Name: "generation_config.json", Data: gen}}
	tokens, err := m.gguf.Vocab.Files()
	if err != nil {
		return nil, err
	}
	for name, text := range tokens {
		files = append(files, hf.SideFile{Name: name, Data: text})
	}
	return files, nil
}

// slots returns how many blocks of the model to keep in memory where each is
// used again and again: all of them, or as many as fit half of the budget.
func (m *model) slots(budget int64) int {
	all := int(m.arch.NumHiddenLayers)
	block, err := stream.BlockBytes(m.view, m.arch)
	if err != nil || budget == 0 || block == 0 {
		return all
	}
	return min(all, int(budget/2/block))
}
