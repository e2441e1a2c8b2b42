package convert

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/python"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// Checkpoint is a GGUF model seen in checkpoint form.
type Checkpoint struct {
	// View has the tensors under their checkpoint names and in the checkpoint's
	// layout, the experts of a stack each on its own. Stored bytes are moved
	// where the layout allows it, and decoded to F32 where it does not.
	*View

	Model *arch.Model

	// Vocab returns the tokenizer. Large ones take longer to read than all else,
	// and what only looks at tensors needs none: it is read when first asked for.
	Vocab func() (*vocab.Vocab, error)

	// Widened names the tensors that GGUF keeps in F32 whatever the checkpoint
	// had them as.
	Widened map[string]bool

	// Readme is a README.md that says who made the model, under which licence
	// and from what, nil if the file does not say.
	Readme []byte

	meta      tensor.Meta
	generated []arch.Generated
	sampling  []hf.Field
	notes     []string
}

// FromGGUF returns the checkpoint form of a GGUF model. It reads the metadata
// and, if there are any, the tensors of rotary factors.
func FromGGUF(g tensor.Source, codecs tensor.Codecs) (*Checkpoint, error) {
	meta := g.Meta()
	if kind, ok := tensor.Lookup[string](meta, gguf.KeyType); ok && kind != "model" {
		return nil, fmt.Errorf("%w: general.type is %q, not a model", tensor.ErrUnsupported, kind)
	}
	m, generated, err := configOf(g, codecs)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{
		Model: m, Vocab: sync.OnceValues(func() (*vocab.Vocab, error) { return vocab.FromGGUF(meta) }),
		Widened: make(map[string]bool), View: &View{Origins: make(map[string]Origin)}, meta: meta, generated: generated,
	}
	entries, err := c.entries(g, codecs, generated)
	if err != nil {
		return nil, err
	}
	c.Source, err = tensor.NewTable(tensor.Meta{{Key: "format", Value: "pt"}}, entries)
	if err != nil {
		return nil, err
	}
	var cardNotes, samplingNotes []string
	c.Readme, cardNotes = modelcard.FromGGUF(meta, modelcard.CountParams(g.All()))
	c.sampling, samplingNotes = modelcard.Sampling(meta)
	c.notes = slices.Concat(cardNotes, samplingNotes)
	return c, nil
}

// entries returns the tensors of the model, in its order, as views of those of
// the file. None may be missing, and none of the file unused.
func (c *Checkpoint) entries(g tensor.Source, codecs tensor.Codecs, generated []arch.Generated) ([]tensor.Entry, error) {
	m := c.Model
	known := make(map[string]bool)
	order := between(m.GGUFRotary, m.Rotary, m.HeadDim)
	var out []tensor.Entry
	for _, t := range m.Tensors() {
		info, err := g.Info(t.GGUFName)
		if err != nil {
			return nil, missing(err, m)
		}
		known[info.Name] = true
		stacked := int64(0)
		if t.Expert >= 0 {
			stacked = m.NumExperts
		}
		// ggml's writer drops leading dimensions of 1.
		dims := t.GGUFDims(stacked)
		if len(dims) == 2 && dims[0] == 1 && len(info.Shape) == 1 {
			info.Shape = append(tensor.Shape{1}, info.Shape...)
		}
		if err := checkShape(info, dims); err != nil {
			return nil, err
		}
		c.Widened[t.Name] = len(t.Dims) == 1 || t.Wide
		var e tensor.Entry
		change := ""
		switch {
		case t.Expert >= 0:
			part := tensor.Info{Name: t.Name, DType: info.DType, Shape: t.Dims}
			e, change = slice(g, info.Name, part, int64(t.Expert)*part.Size()), unstack
		case t.PlusOne:
			e, change = minusOne(g, codecs, info, t.Name), takeOne
		case t.Transposed:
			e, change = transposed(g, codecs, info, t.Name), transpose
		case t.RotaryHeads != nil && order != nil:
			e, change = reorder(g, codecs, info, t.Name, order), permute
		default:
			e = tensor.Forward(g, info, t.Name)
		}
		out = append(out, e)
		c.Origins[t.Name] = Origin{[]string{info.Name}, change}
	}
	for info := range g.All() {
		if isGenerated(generated, info.Name) {
			c.Dropped = append(c.Dropped, pipeline.Drop{Name: info.Name, Reason: "config.json says it"})
		} else if !known[info.Name] {
			return nil, fmt.Errorf("tensor %q: %w: the %s family has none of that name", info.Name, tensor.ErrUnsupported, m.Name)
		}
	}
	return out, nil
}

func isGenerated(list []arch.Generated, name string) bool {
	return slices.ContainsFunc(list, func(g arch.Generated) bool { return g.Name == name })
}

// values gives metadata to arch.
type values struct{ tensor.Meta }

// configOf reads the hyperparameters and what follows from tensors: biases, a
// head of its own, rotary factors.
func configOf(g tensor.Source, codecs tensor.Codecs) (*arch.Model, []arch.Generated, error) {
	meta := g.Meta()
	name, _ := tensor.Lookup[string](meta, gguf.KeyArchitecture)
	experts, _ := tensor.Lookup[uint32](meta, name+".expert_count")
	family, err := arch.ByGGUF(name, int64(experts))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", tensor.ErrUnsupported, err)
	}
	var rows int64
	if e, err := g.Info("token_embd.weight"); err == nil {
		rows = e.Shape.Rows()
	}
	m, err := arch.FromGGUF(family, values{meta}, func(tensorName string) bool { return tensor.Has(g, tensorName) }, rows)
	switch {
	case errors.Is(err, arch.ErrUnsupported):
		return nil, nil, fmt.Errorf("metadata: %w: %w", tensor.ErrUnsupported, err)
	case err != nil:
		return nil, nil, fmt.Errorf("metadata: %w: %w", tensor.ErrMalformed, err)
	}
	var generated []arch.Generated
	for info := range g.All() {
		if !strings.HasPrefix(info.Name, "rope_") || info.Shape.Elems() > m.HeadDim || m.Recover == nil {
			continue
		}
		_, factors, err := codecs.ReadAll(g, info.Name)
		if err != nil {
			return nil, nil, err
		}
		generated = append(generated, arch.Generated{Name: info.Name, Values: factors})
	}
	if m.Recover != nil && !m.Recover(m.Config, generated) {
		return nil, nil, hint.Add(fmt.Errorf("tensor %q: %w: its factors are of no rotary scaling that is known", generated[0].Name, tensor.ErrUnsupported),
			"use the checkpoint that the GGUF file was made from")
	}
	return m, generated, nil
}

// Notes lists what the file held that the checkpoint form has no place for, and
// what a checkpoint usually has that the file did not hold.
func (c *Checkpoint) Notes() ([]string, error) {
	v, err := c.Vocab()
	if err != nil {
		return nil, err
	}
	out := slices.Clone(v.Notes)
	m := c.Model
	if m.Rope.Type == "llama3" {
		out = append(out, fmt.Sprintf("rope_scaling: recovered from the factors in %s, which it reproduces bit for bit", c.generated[0].Name))
	}
	if v.Kind == vocab.SPM && v.AddSpacePrefix {
		out = append(out, "tokenizer: a space goes before a text and after each special token (legacy: true), as in llama.cpp; GGUF does not say if the original differs")
	}
	lost := v.Lost()
	for _, kv := range c.meta {
		switch {
		case strings.HasPrefix(kv.Key, m.GGUF+"."), vocab.IsGGUFKey(kv.Key), modelcard.Covers(kv.Key):
		case slices.Contains([]string{gguf.KeyArchitecture, gguf.KeyType, gguf.KeyFileType, gguf.KeyQuantizationVersion, gguf.KeyAlignment}, kv.Key):
		default:
			lost = append(lost, kv.Key)
		}
	}
	if len(lost) > 0 {
		out = append(out, "metadata without a place in a checkpoint: "+strings.Join(lost, ", "))
	}
	return append(out, c.notes...), nil
}

// ConfigJSON returns the text of config.json, with the keys of transformers 4,
// which transformers 5 reads as well. dtype is torch_dtype.
func (c *Checkpoint) ConfigJSON(dtype tensor.DType) ([]byte, error) {
	v, err := c.Vocab()
	if err != nil {
		return nil, err
	}
	list := append(c.Model.Members(), arch.Member{Name: "torch_dtype", Value: TorchDType(dtype)},
		arch.Member{Name: "bos_token_id", Value: id(v.BOS)}, arch.Member{Name: "eos_token_id", Value: id(v.EOS)},
		// What transformers takes where it is missing may be no token of the model.
		arch.Member{Name: "pad_token_id", Value: id(v.PAD)})
	for _, t := range v.ConfigIDs() {
		x := arch.Member{Name: t.Name + "_token_id", Value: t.ID}
		if !slices.ContainsFunc(list, func(y arch.Member) bool { return y.Name == x.Name }) {
			list = append(list, x)
		}
	}
	var b bytes.Buffer
	enc := jsontext.NewEncoder(&b, jsontext.WithIndent("  "))
	// Numbers that are not whole by nature stay so: transformers 5 refuses 6 for 6.0.
	floats := json.WithMarshalers(json.MarshalToFunc(func(enc *jsontext.Encoder, v float64) error {
		return enc.WriteValue(python.AppendFloat(nil, v))
	}))
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return nil, err
	}
	for _, x := range list {
		if err := enc.WriteToken(jsontext.String(x.Name)); err != nil {
			return nil, err
		}
		if err := json.MarshalEncode(enc, x.Value, floats, json.Deterministic(true)); err != nil {
			return nil, fmt.Errorf("%s: %w", x.Name, err)
		}
	}
	err = enc.WriteToken(jsontext.EndObject)
	return b.Bytes(), err
}

// GenerationConfigJSON returns the text of generation_config.json: the special
// tokens, and how tokens are to be drawn if the file says so.
func (c *Checkpoint) GenerationConfigJSON() ([]byte, error) {
	v, err := c.Vocab()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(struct {
		BOS *int32 `json:"bos_token_id,omitempty"`
		EOS *int32 `json:"eos_token_id,omitempty"`
	}{id(v.BOS), id(v.EOS)}, jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	return hf.Edit(text, c.sampling, nil)
}

func id(n int32) *int32 {
	if n == vocab.None {
		return nil
	}
	return &n
}

// TorchDType returns torch's name of a plain floating-point DType.
func TorchDType(d tensor.DType) string {
	switch d {
	case tensor.F64:
		return "float64"
	case tensor.F16:
		return "float16"
	case tensor.BF16:
		return "bfloat16"
	}
	return "float32"
}
