package convert

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// OutTypes lists what GGUFOptions.OutType may be, spelled as
// convert_hf_to_gguf.py spells it.
func OutTypes() []string { return []string{"f32", "f16", "bf16", "q8_0", "auto"} }

// GGUFOptions say how a GGUF file is made.
type GGUFOptions struct {
	// OutType is one of OutTypes. "auto" is that of the first matrix which is
	// BF16 or F16, and F16 if none is.
	OutType string

	// General returns the general.* entries that describe the model beside its
	// type, given the file's tensors. It may be nil.
	General func(tensors iter.Seq[tensor.Info]) tensor.Meta
}

// GGUF is what a checkpoint becomes.
type GGUF struct {
	// Source has the tensors under GGUF's names and in GGUF's layout. The plan
	// is to be run on it.
	Source tensor.Source
	Plan   *pipeline.Plan

	// Notes say what llama.cpp will compute otherwise than transformers does.
	Notes []string
}

// ToGGUF plans the GGUF file of a model in checkpoint form, its tensors under
// canonical names.
//
// Every tensor of src must belong to the model and every tensor of the model
// must be there; the vocabulary must have a token for each row of the
// embeddings.
func ToGGUF(src tensor.Source, codecs tensor.Codecs, m *arch.Model, v *vocab.Vocab, o GGUFOptions) (*GGUF, error) {
	if int64(len(v.Pieces)) != m.VocabSize {
		return nil, hint.Add(fmt.Errorf("%w: the tokenizer has %d tokens, the model's vocab_size is %d", tensor.ErrMalformed, len(v.Pieces), m.VocabSize),
			"the tokenizer files do not belong to this model")
	}
	if err := v.Validate(); err != nil {
		return nil, err
	}
	if err := sparse(m); err != nil {
		return nil, err
	}
	list, err := match(src, m)
	if err != nil {
		return nil, err
	}
	outType, err := o.dtype(list)
	if err != nil {
		return nil, err
	}
	p := planner{src: src, codecs: codecs, m: m, out: outType, plan: &pipeline.Plan{}}
	if m.Generated != nil {
		for _, g := range m.Generated(m.Config) {
			p.generate(g)
		}
	}
	for _, t := range join(list, m.NumExperts) {
		if err := p.add(t); err != nil {
			return nil, err
		}
	}
	view, err := tensor.NewTable(nil, p.entries)
	if err != nil {
		return nil, err
	}
	var general tensor.Meta
	if o.General != nil {
		general = o.General(view.All())
	}
	if p.plan.Meta, err = p.metadata(general); err != nil {
		return nil, err
	}
	p.plan.Meta = append(p.plan.Meta, v.GGUF()...)
	out := &GGUF{Source: view, Plan: p.plan}
	if m.Differs != nil {
		out.Notes = m.Differs(m.Config)
	}
	if v.Kind == vocab.SPM && v.AddSpacePrefix && !v.Legacy {
		out.Notes = append(out.Notes, "legacy: false of the tokenizer: llama.cpp puts a space after each special token all the same")
	}
	return out, nil
}

// sparse refuses a mixture of experts that has layers without: llama.cpp looks for
// experts in each layer of these architectures.
func sparse(m *arch.Model) error {
	if m.NumExperts == 0 {
		return nil
	}
	for l := range m.NumHiddenLayers {
		if !m.Sparse(int(l)) {
			return fmt.Errorf("%w: layer %d has no experts (decoder_sparse_step, mlp_only_layers), and GGUF knows the %s family with experts in every layer only",
				tensor.ErrUnsupported, l, m.Name)
		}
	}
	return nil
}

func (o GGUFOptions) dtype(list []matched) (tensor.DType, error) {
	switch o.OutType {
	case "f32":
		return tensor.F32, nil
	case "f16":
		return tensor.F16, nil
	case "bf16":
		return tensor.BF16, nil
	case "q8_0":
		return tensor.Q8_0, nil
	case "auto":
		for _, t := range list {
			if d := t.info.DType; len(t.Dims) >= 2 && (d == tensor.BF16 || d == tensor.F16) {
				return d, nil
			}
		}
		return tensor.F16, nil
	}
	return 0, fmt.Errorf("no output type %q (there are: %s)", o.OutType, strings.Join(OutTypes(), ", "))
}

// InGGUF returns the tensors of a model in checkpoint form under GGUF's names and in
// GGUF's layout, as ToGGUF has them, without those that no checkpoint has.
func InGGUF(src tensor.Source, codecs tensor.Codecs, m *arch.Model) (*View, error) {
	list, err := match(src, m)
	if err != nil {
		return nil, err
	}
	p := planner{src: src, codecs: codecs, m: m}
	v := &View{Origins: make(map[string]Origin)}
	for _, t := range join(list, m.NumExperts) {
		e, change := p.view(t)
		p.entries = append(p.entries, e)
		v.Origins[e.Info.Name] = Origin{names(t.infos), change}
	}
	v.Source, err = tensor.NewTable(nil, p.entries)
	return v, err
}

// planner collects the views and steps of a GGUF file.
type planner struct {
	src    tensor.Source
	codecs tensor.Codecs
	m      *arch.Model
	out    tensor.DType

	entries []tensor.Entry
	plan    *pipeline.Plan
}

// generate adds a tensor that no checkpoint has.
func (p *planner) generate(g arch.Generated) {
	e := floatEntry(g.Name, g.Values)
	p.entries = append(p.entries, e)
	step := pipeline.Copy(e.Info, g.Name)
	step.Action, step.From = generated, []string{}
	p.plan.Steps = append(p.plan.Steps, step)
}

// add adds a tensor of the checkpoint, or the stack of its experts.
func (p *planner) add(t joined) error {
	e, change := p.view(t)
	return p.store(e, p.storedAs(t.Tensor, e.Info), Origin{names(t.infos), change})
}

func names(list []tensor.Info) []string {
	out := make([]string, len(list))
	for i, info := range list {
		out[i] = info.Name
	}
	return out
}

// store adds a view and the step that writes it as dtype.
func (p *planner) store(e tensor.Entry, dtype tensor.DType, o Origin) error {
	p.entries = append(p.entries, e)
	out := tensor.Info{Name: e.Info.Name, DType: dtype, Shape: e.Info.Shape}
	step := pipeline.Copy(e.Info, out.Name)
	if out.DType != e.Info.DType {
		var err error
		if step, err = pipeline.Cast(p.codecs, out.Name, out); err != nil {
			return err
		}
	}
	step.Derive(o.From, o.Change)
	p.plan.Steps = append(p.plan.Steps, step)
	return nil
}

// view returns the tensor in GGUF's layout, and what that takes in a word.
func (p *planner) view(t joined) (tensor.Entry, string) {
	info := t.infos[0]
	switch order := between(p.m.Rotary, p.m.GGUFRotary, p.m.HeadDim); {
	case t.Expert >= 0:
		return stack(p.src, p.codecs, t.infos, t.GGUFName), stackUp
	case t.PlusOne:
		return plusOne(p.src, p.codecs, info, t.GGUFName), addOne
	case t.Transposed:
		return transposed(p.src, p.codecs, info, t.GGUFName), transpose
	case t.RotaryHeads != nil && order != nil:
		return reorder(p.src, p.codecs, info, t.GGUFName, order), permute
	}
	return tensor.Forward(p.src, info, t.GGUFName), ""
}

// storedAs is the type rule of the reference (prepare_tensors in
// conversion/base.py): vectors stay F32, and so do biases, routers and position
// embeddings; rows that do not divide into blocks are stored as F16.
func (p *planner) storedAs(t arch.Tensor, info tensor.Info) tensor.DType {
	if len(info.Shape) <= 1 || t.Wide || t.Part != "weight" {
		return tensor.F32
	}
	return p.matrixType(info)
}

// matrixType is the type asked for, or F16 if its blocks do not divide the rows.
func (p *planner) matrixType(info tensor.Info) tensor.DType {
	if block, _ := p.out.Block(); info.Shape.Cols()%block != 0 {
		return tensor.F16
	}
	return p.out
}

// metadata returns everything but the tokenizer, in the reference's order.
func (p *planner) metadata(general tensor.Meta) (tensor.Meta, error) {
	ft, ok := gguf.FileTypeOf(p.out)
	if !ok {
		return nil, fmt.Errorf("%w: a GGUF file of %v", tensor.ErrUnsupported, p.out)
	}
	meta := tensor.Meta{{Key: gguf.KeyArchitecture, Value: p.m.GGUF}}
	kvs := p.m.KVs()
	for _, kv := range kvs {
		if kv.Early {
			meta = append(meta, tensor.KV{Key: kv.Key, Value: kv.Value})
		}
	}
	meta = append(append(meta, tensor.KV{Key: gguf.KeyType, Value: "model"}), general...)
	for _, kv := range kvs {
		switch {
		case kv.Early:
		case kv.Key == gguf.KeyFileType:
			meta = append(meta, tensor.KV{Key: kv.Key, Value: uint32(ft)})
		default:
			meta = append(meta, tensor.KV{Key: kv.Key, Value: kv.Value})
		}
	}
	return append(meta, tensor.KV{Key: gguf.KeyQuantizationVersion, Value: gguf.QuantizationVersion}), nil
}

// floatEntry is an F32 vector in memory.
func floatEntry(name string, values []float32) tensor.Entry {
	b := make([]byte, 4*len(values))
	kernel.EncodeF32(b, values)
	return tensor.Entry{
		Info: tensor.Info{Name: name, DType: tensor.F32, Shape: tensor.Shape{int64(len(values))}},
		Open: func() (io.ReaderAt, error) { return bytes.NewReader(b), nil },
	}
}
