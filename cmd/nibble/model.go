package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/quantized"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/scaled"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/seed18967229/nibble/train/stream"
)

// model is an input that is a whole model, in checkpoint form: its tensors
// under their Hugging Face names, quantized weights as one tensor each.
type model struct {
	*formats.Input
	view    tensor.Source
	dropped []pipeline.Drop // what the view leaves out
	arch    *arch.Model
	gguf    *convert.Checkpoint // of a GGUF file
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

// understand finds out what the model is. If all but its weights can be
// understood, arch is set though it fails.
func (m *model) understand() (err error) {
	switch m.Kind {
	case formats.HF:
		if m.arch, err = parseConfig(m.HF); err != nil {
			return err
		}
		config := m.HF.Config()
		m.view, m.dropped, err = quantized.View(m.HF, config)
		if err == nil {
			m.view, err = bnb.View(m.view, quantized.DType(config))
		}
		if err == nil {
			var dropped []pipeline.Drop
			m.view, dropped, err = convert.Canonical(m.view, m.arch)
			m.dropped = append(m.dropped, dropped...)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
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

// vocab returns the model's tokenizer.
func (m *model) vocab() (*vocab.Vocab, error) {
	if m.gguf != nil {
		return m.gguf.Vocab, nil
	}
	return vocab.OpenDir(m.Path, int(m.arch.VocabSize))
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

// general makes the general.* entries of a GGUF file.
type general struct {
	of    func(p modelcard.Params) (tensor.Meta, []string)
	notes []string
}

func (g *general) meta(tensors iter.Seq[tensor.Info]) tensor.Meta {
	meta, notes := g.of(modelcard.CountParams(tensors))
	g.notes = append(g.notes, notes...)
	return meta
}

// general returns what the model's files say about it; of a GGUF file, what its
// own metadata does.
func (m *model) general() (*general, error) {
	if m.GGUF != nil {
		var own tensor.Meta
		for _, kv := range m.GGUF.Meta() {
			if modelcard.Covers(kv.Key) {
				own = append(own, kv)
			}
		}
		return &general{of: func(modelcard.Params) (tensor.Meta, []string) { return own, nil }}, nil
	}
	card, err := modelcard.Read(m.Path)
	if err != nil {
		return nil, err
	}
	return &general{
		of:    func(p modelcard.Params) (tensor.Meta, []string) { return card.GGUF(m.name(), p) },
		notes: card.Notes,
	}, nil
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
	if !info.DType.Opaque() {
		return tensor.Invalid
	}
	if h, err := nf4.Describe(src, info.Name); err == nil {
		return h.Source
	}
	if h, err := scaled.Describe(src, info.Name); err == nil {
		return h.Source
	}
	return tensor.Invalid
}

// quantization names the members of config.json that do not apply any more once
// the weights have been decoded.
func (m *model) quantization() []string {
	if m.HF == nil {
		return nil
	}
	return quantized.Members(m.HF.Config())
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
	if len(drop) > 0 {
		files = slices.DeleteFunc(files, func(f hf.SideFile) bool { return slices.Contains(quantized.Files(), f.Name) })
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
	if m.gguf.Readme != nil {
		files = append(files, hf.SideFile{Name: modelcard.ReadmeName, Data: m.gguf.Readme})
	}
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
