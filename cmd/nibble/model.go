package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

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
	"github.com/seed18967229/nibble/train/engine"
	trainmodel "github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/stream"
)

// model is an input that is a whole model.
type model struct {
	*formats.Input

	// stored has all tensors of a directory under their own names, quantized
	// weights as one tensor each; merged are those that are in others.
	stored tensor.Source
	merged []pipeline.Drop

	// view has the tensors of the model in checkpoint form, under the names that
	// its family has. turned is the same as bitsandbytes stores it, nil unless it
	// has turned weights around.
	view, turned *convert.View
	arch         *arch.Model

	// before has the tensors of the view as they were, if that has them as they are
	// behind a quantization; else it is nil.
	before tensor.Source

	gguf *convert.Checkpoint // of a GGUF file

	// template is the chat template of what is written of the model, "" for its own.
	template string
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
		if m.arch, err = parseConfig(filepath.Join(m.Path, hf.ConfigName), m.HF.Config()); err != nil {
			return err
		}
		if err := m.decode(); err != nil {
			return err
		}
		if m.view, err = convert.Canonical(m.stored, m.arch); err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		named := m.view
		if m.view, err = named.InOut(m.arch, codecs); m.view != named {
			m.turned = named
		}
		return err
	case formats.GGUF:
		if convert.IsAdapter(m.Meta()) {
			return m.isAdapter()
		}
		c, err := convert.FromGGUF(m.GGUF, codecs)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		m.gguf, m.arch, m.view = c, c.Model, c.View
		return nil
	case formats.Adapter:
		return m.isAdapter()
	}
	return hint.Add(fmt.Errorf("%s: %w: a file of tensors without a config.json, where a model is needed", m.Path, tensor.ErrUnsupported),
		"give the directory that holds the file and its config.json")
}

func (m *model) isAdapter() error {
	return hint.Add(fmt.Errorf("%s: %w: an adapter, where a model is needed", m.Path, tensor.ErrUnsupported),
		"give the base model here and the adapter with --adapter")
}

// decode finds the quantized weights of a directory of whatever family, or of a file
// without a config.json.
func (m *model) decode() (err error) {
	var config []byte
	if m.HF != nil {
		config = m.HF.Config()
		if m.arch == nil {
			m.arch, _ = arch.ParseConfig(config) // for the shapes, if the family is known
		}
	}
	if m.stored, m.merged, err = quantized.View(m.Input, config); err == nil {
		m.stored, err = bnb.ViewShaped(m.stored, quantized.DType(config), m.shapeOf())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.Path, err)
	}
	return nil
}

// shapeOf returns what tells the shapes of linear layers' weights, [out, in], nil
// for what is no such weight.
func (m *model) shapeOf() func(name string) tensor.Shape {
	shapes := sync.OnceValue(func() map[string]tensor.Shape {
		known := make(map[string]tensor.Shape)
		if m.arch == nil {
			return known
		}
		for _, t := range m.arch.Tensors() {
			if len(t.Dims) == 2 {
				known[t.Name] = tensor.Shape{int64(t.Out()), int64(t.In())}
			}
		}
		return known
	})
	return func(name string) tensor.Shape { return shapes()[name] }
}

// parseConfig reads the text of a config.json.
func parseConfig(path string, text []byte) (*arch.Model, error) {
	a, err := arch.ParseConfig(text)
	switch {
	case errors.Is(err, arch.ErrUnsupported):
		return nil, fmt.Errorf("%s: %w: %w", path, tensor.ErrUnsupported, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", path, tensor.ErrMalformed, err)
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
		v, err := m.gguf.Vocab()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		return v, nil
	}
	o.Size, o.Rules = int(m.arch.VocabSize), m.arch.Tokenizers
	return vocab.OpenDir(m.Path, o)
}

// describeVocab says of the tokenizer what can be told fast.
func (m *model) describeVocab() (*vocab.Description, error) {
	if m.GGUF != nil {
		return vocab.DescribeGGUF(m.Meta())
	}
	return vocab.DescribeDir(m.Path, m.arch.Tokenizers)
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
	return strings.TrimSuffix(lastOf(m.Path), ".gguf")
}

// original returns the tensors of the input under their own names.
func (m *model) original() tensor.Source {
	if m.stored != nil {
		return m.stored
	}
	return m.Input
}

// source returns the model's tensors: those of its view, or as they are stored
// where there is none.
func (m *model) source() tensor.Source {
	if m.before != nil {
		return m.before
	}
	if m.view != nil {
		return m.view
	}
	return m.stored
}

// whole returns all tensors of the input: those of its view, and those of other
// parts than the text model under their own names.
func (m *model) whole() tensor.Source {
	if m.stored == nil || !m.view.Partial() {
		return m.view
	}
	var entries []tensor.Entry
	for info := range m.view.All() {
		entries = append(entries, tensor.Forward(m.view, info, info.Name))
	}
	for _, d := range m.view.Dropped {
		if info, err := m.stored.Info(d.Name); err == nil && d.Reason == convert.OtherPart {
			entries = append(entries, tensor.Forward(m.stored, info, info.Name))
		}
	}
	all, err := tensor.NewTable(m.stored.Meta(), entries)
	if err != nil {
		return m.view
	}
	return all
}

// asStored returns the tensors of whole as they are stored.
func (m *model) asStored() tensor.Source {
	if m.turned != nil {
		return m.turned
	}
	return m.whole()
}

// quantized reports whether a tensor of the model is stored in an encoding
// that no arithmetic is done in.
func (m *model) quantized() bool {
	src := m.source()
	if m.stored != nil {
		src = m.stored
	}
	for info := range src.All() {
		if info.DType.Opaque() || blockType(info.DType) {
			return true
		}
	}
	return false
}

// plainType is that of a tensor of the view.
func (m *model) plainType(info tensor.Info, d tensor.DType) tensor.DType {
	if m.before != nil {
		if was, err := m.before.Info(info.Name); err == nil {
			return plainType(m.before, was, d)
		}
	}
	return plainType(m.view, info, d)
}

// blockType reports whether several numbers share a block of the encoding.
func blockType(d tensor.DType) bool {
	elems, _ := d.Block()
	return elems > 1
}

// dtype returns the floating-point type of the model's matrices, and of what
// they were before they were quantized if they are.
func (m *model) dtype() tensor.DType {
	src := m.source()
	for info := range src.All() {
		if len(info.Shape) < 2 {
			continue
		}
		if d := floatOf(src, info); d != tensor.Invalid {
			return d
		}
	}
	return tensor.F32
}

// orOwn returns d, or if that is tensor.Invalid the model's own dtype.
func (m *model) orOwn(d tensor.DType) tensor.DType {
	if d == tensor.Invalid {
		return m.dtype()
	}
	return d
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

// checkpointFiles returns config.json and the files beside it.
func (m *model) checkpointFiles(o dirOptions) ([]hf.SideFile, error) {
	files, err := m.ownFiles(o)
	if err != nil || m.template == "" {
		return files, err
	}
	return withTemplate(files, m.template)
}

// ownFiles are checkpointFiles with the chat template that the model has.
func (m *model) ownFiles(o dirOptions) ([]hf.SideFile, error) {
	if m.gguf != nil {
		return m.filesFromGGUF(o)
	}
	if m.view != nil && m.view.Partial() {
		return nil, hint.Add(fmt.Errorf("%s: %w: it is of more than text; a directory of what was computed of its text model would lack the rest", m.Path, tensor.ErrUnsupported),
			"nibble convert casts it whole, and makes a .gguf file of its text model")
	}
	files, err := m.HF.SideFiles()
	if err != nil {
		return nil, err
	}
	if len(o.drop) > 0 {
		files = slices.DeleteFunc(files, func(f hf.SideFile) bool { return slices.Contains(quantized.Files(), f.Name) })
	}
	set := o.set
	if o.dtype != tensor.Invalid {
		set = append([]hf.Field{{Name: dtypeKey(m.HF.Config()), Value: []byte(`"` + convert.TorchDType(o.dtype) + `"`)}}, set...)
	}
	config := m.HF.Config()
	if len(set)+len(o.drop) > 0 {
		if config, err = hf.Edit(config, set, o.drop); err != nil {
			return nil, err
		}
	}
	return append(files, hf.SideFile{Name: hf.ConfigName, Data: config}), nil
}

// dtypeKey returns where a configuration has the type of the weights:
// transformers 5 writes dtype, transformers 4 torch_dtype.
func dtypeKey(config []byte) string {
	var has struct {
		DType json.RawMessage `json:"dtype"`
	}
	if err := json.Unmarshal(config, &has); err == nil && has.DType != nil {
		return "dtype"
	}
	return "torch_dtype"
}

func (m *model) filesFromGGUF(o dirOptions) ([]hf.SideFile, error) {
	v, err := m.openVocab(vocab.Options{}) // all of them need it, and this error has the path
	if err != nil {
		return nil, err
	}
	config, err := m.gguf.ConfigJSON(o.dtype)
	if err != nil {
		return nil, err
	}
	if config, err = hf.Edit(config, o.set, nil); err != nil {
		return nil, err
	}
	gen, err := m.gguf.GenerationConfigJSON()
	if err != nil {
		return nil, err
	}
	files := []hf.SideFile{{Name: hf.ConfigName, Data: config}, {Name: modelcard.GenerationName, Data: gen}}
	if m.gguf.Readme != nil {
		files = append(files, hf.SideFile{Name: modelcard.ReadmeName, Data: m.gguf.Readme})
	}
	tokens, err := v.Files()
	if err != nil {
		return nil, err
	}
	for name, text := range tokens {
		files = append(files, hf.SideFile{Name: name, Data: text})
	}
	return files, nil
}

// engine returns what runs the model, with a PEFT adapter on top of it if one is
// named, on sequences of up to that many tokens; watch, which may be nil, is told
// what goes into the linear layers.
func (m *model) engine(adapter string, positions int, budget int64, watch trainmodel.Observer) (*engine.Engine, error) {
	trained, err := attach(m.view, m.arch, adapter)
	if err != nil {
		return nil, err
	}
	e, err := engine.New(m.view, codecs, m.arch, trained, engine.Options{Choices: m.choices(budget), Positions: positions, Observer: watch})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	return e, nil
}

// choices returns what of the model to keep in memory where each weight is used again
// and again: all of it, or what fits half of the budget, the head first.
func (m *model) choices(budget int64) engine.Choices {
	c := engine.Choices{Slots: int(m.arch.NumHiddenLayers), ResidentHead: true}
	sizes, err := stream.NewSizes(m.view, m.arch, nil)
	if err != nil || budget == 0 {
		return c
	}
	left := budget/2 - sizes.Rest
	if head := sizes.HeadMemory(true, 0); head+2*sizes.Slot <= left {
		left -= head
	} else {
		c.ResidentHead = false
		left -= sizes.HeadMemory(false, trainmodel.HeadRows(m.arch))
	}
	c.Slots = max(2, min(c.Slots, int(left/max(1, sizes.Slot))))
	return c
}
