package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Checkpoint is a GGUF model seen in checkpoint form.
type Checkpoint struct {
	// Source has the tensors under their checkpoint names, with the rows of
	// rotary projections in the checkpoint's order. Stored bytes are moved,
	// never changed.
	Source tensor.Source

	Model *arch.Model
	Vocab *vocab.Vocab

	// Notes list what the file held that the checkpoint form has no place for,
	// and what a checkpoint usually has that the file did not hold.
	Notes []string
}

// FromGGUF returns the checkpoint form of a GGUF model. It reads the metadata
// and, if there is one, the tensor of rotary factors.
func FromGGUF(g tensor.Source, codecs tensor.Codecs) (*Checkpoint, error) {
	meta := g.Meta()
	if kind, ok := tensor.Lookup[string](meta, gguf.KeyType); ok && kind != "model" {
		return nil, fmt.Errorf("%w: general.type is %q, not a model", tensor.ErrUnsupported, kind)
	}
	m, err := configOf(g, codecs)
	if err != nil {
		return nil, err
	}
	v, err := vocab.FromGGUF(meta)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Model: m, Vocab: v}
	list, err := match(g, m, func(t arch.Tensor) string { return t.GGUFName }, ropeFreqs)
	if err != nil {
		return nil, err
	}
	var entries []tensor.Entry
	order := between(m.GGUFRotary, m.Rotary, m.HeadDim)
	for _, t := range list {
		if t.RotaryHeads != nil && order != nil {
			entries = append(entries, reorder(g, codecs, t.info, t.Name, order))
		} else {
			entries = append(entries, tensor.Forward(g, t.info, t.Name))
		}
	}
	c.Source, err = tensor.NewTable(tensor.Meta{{Key: "format", Value: "pt"}}, entries)
	c.Notes = notes(meta, m)
	return c, err
}

// reader collects what is wrong with the metadata of an architecture.
type reader struct {
	meta tensor.Meta
	arch string
	errs []error
}

// number returns an integer of any width, or def if the key is absent.
func (r *reader) number(key string, def int64) int64 {
	v, ok := r.meta.Get(r.arch + "." + key)
	if !ok {
		if def < 0 {
			r.errs = append(r.errs, fmt.Errorf("metadata %q: %w: it is missing", r.arch+"."+key, tensor.ErrMalformed))
		}
		return max(def, 0)
	}
	switch v := v.(type) {
	case uint32:
		return int64(v)
	case int32:
		return int64(v)
	case uint64:
		return int64(min(v, 1<<62))
	case int64:
		return v
	case uint16:
		return int64(v)
	}
	r.errs = append(r.errs, fmt.Errorf("metadata %q: %w: a %T, want a number", r.arch+"."+key, tensor.ErrMalformed, v))
	return 0
}

// float returns a float32 as the decimal that it was before it was rounded.
func (r *reader) float(key string, def float64) float64 {
	v, ok := r.meta.Get(r.arch + "." + key)
	if !ok {
		return def
	}
	f, ok := v.(float32)
	if !ok {
		r.errs = append(r.errs, fmt.Errorf("metadata %q: %w: a %T, want a float32", r.arch+"."+key, tensor.ErrMalformed, v))
		return def
	}
	return shortest(f)
}

// shortest returns the float64 with the fewest digits that rounds to f: 1e-05
// and not 9.999999747378752e-06.
func shortest(f float32) float64 {
	d, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', -1, 32), 64)
	if err != nil {
		return float64(f)
	}
	return d
}

// configOf reads the hyperparameters. What GGUF says by the presence of a
// tensor is read off that: biases, a head of its own.
func configOf(g tensor.Source, codecs tensor.Codecs) (*arch.Model, error) {
	name, _ := tensor.Lookup[string](g.Meta(), gguf.KeyArchitecture)
	family, err := arch.ByGGUF(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrUnsupported, err)
	}
	r := &reader{meta: g.Meta(), arch: family.Name}
	c := &arch.Config{
		Architectures:         []string{family.Class},
		ModelType:             family.ModelType,
		HiddenAct:             family.Activation,
		NumHiddenLayers:       r.number(keyBlockCount, -1),
		MaxPositionEmbeddings: r.number(keyContextLength, -1),
		HiddenSize:            r.number(keyEmbeddingLength, -1),
		IntermediateSize:      r.number(keyFeedForwardLength, -1),
		NumAttentionHeads:     r.number(keyHeadCount, -1),
		NumKeyValueHeads:      r.number(keyHeadCountKV, 0),
		HeadDim:               r.number(keyKeyLength, 0),
		RMSNormEps:            r.float(keyRMSEpsilon, 1e-5),
		TieWordEmbeddings:     !tensor.Has(g, "output.weight"),
		AttentionBias:         tensor.Has(g, "blk.0.attn_q.bias"),
		MLPBias:               tensor.Has(g, "blk.0.ffn_up.bias"),
		Rope:                  arch.Rope{Type: "default", Theta: r.float(keyRopeFreqBase, 10000)},
	}
	if e, err := g.Info("token_embd.weight"); err == nil {
		c.VocabSize = e.Shape.Rows()
	}
	if n := r.number(keyVocabSize, 0); n != 0 && n != c.VocabSize {
		r.errs = append(r.errs, fmt.Errorf("metadata %q is %d, but token_embd.weight has %d rows: %w", r.arch+"."+keyVocabSize, n, c.VocabSize, tensor.ErrMalformed))
	}
	if err := r.scaling(&c.Rope); err != nil {
		r.errs = append(r.errs, err)
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	m, err := arch.New(c)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w: %w", tensor.ErrMalformed, err)
	}
	for _, key := range []string{keyRopeDimensionCount, keyValueLength} {
		if n := r.number(key, m.HeadDim); n != m.HeadDim {
			return nil, fmt.Errorf("metadata %q is %d, the heads have %d elements: %w", r.arch+"."+key, n, m.HeadDim, tensor.ErrUnsupported)
		}
	}
	return m, llama3Factors(g, codecs, m)
}

// scaling reads the rotary scaling that has keys of its own.
func (r *reader) scaling(rope *arch.Rope) error {
	kind, ok := tensor.Lookup[string](r.meta, r.arch+"."+keyRopeScalingType)
	if !ok || kind == "none" {
		return nil
	}
	if kind != "linear" {
		return fmt.Errorf("metadata %q: %w: rotary scaling %q", r.arch+"."+keyRopeScalingType, tensor.ErrUnsupported, kind)
	}
	rope.Type, rope.Factor = kind, r.float(keyRopeScalingFactor, 1)
	return nil
}

// llama3Factors explains rope_freqs.weight. GGUF stores the factors of llama3
// scaling and not what they were computed from; those are found by trying what
// Meta has published, and believed only if they give the same factors bit for
// bit.
func llama3Factors(g tensor.Source, codecs tensor.Codecs, m *arch.Model) error {
	if !tensor.Has(g, ropeFreqs) {
		return nil
	}
	_, factors, err := codecs.ReadAll(g, ropeFreqs)
	if err != nil {
		return err
	}
	try := func(factor float64, old int64) bool {
		r := arch.Rope{Type: "llama3", Theta: m.Rope.Theta, Factor: factor, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: old}
		if !slices.Equal(r.Factors(m.HeadDim), factors) {
			return false
		}
		m.Rope = r
		return true
	}
	// The factor itself stands at the low end of the frequencies.
	if n := len(factors); n > 0 {
		for old := int64(1 << 5); old <= 1<<20; old *= 2 {
			if try(float64(factors[n-1]), old) {
				return nil
			}
		}
	}
	return hint.Add(fmt.Errorf("tensor %q: %w: its factors are of no rotary scaling that is known", ropeFreqs, tensor.ErrUnsupported),
		"use the checkpoint that the GGUF file was made from")
}

// notes lists what does not go both ways.
func notes(meta tensor.Meta, m *arch.Model) []string {
	out := []string{"generation settings: GGUF does not hold them; bos and eos are all that generation_config.json gets"}
	if m.Rope.Type == "llama3" {
		out = append(out, fmt.Sprintf("rope_scaling: recovered from the factors in %s, which it reproduces bit for bit", ropeFreqs))
	}
	var lost []string
	for _, kv := range meta {
		switch {
		case strings.HasPrefix(kv.Key, m.Name+"."), vocab.IsGGUFKey(kv.Key):
		case slices.Contains([]string{gguf.KeyArchitecture, gguf.KeyType, gguf.KeyName, gguf.KeyFileType, gguf.KeyQuantizationVersion, gguf.KeyAlignment, keySizeLabel}, kv.Key):
		default:
			lost = append(lost, kv.Key)
		}
	}
	if len(lost) > 0 {
		out = append(out, "metadata without a place in a checkpoint: "+strings.Join(lost, ", "))
	}
	return out
}

// ConfigJSON returns the text of config.json, with the keys of transformers 4,
// which transformers 5 reads as well. dtype is torch_dtype.
func (c *Checkpoint) ConfigJSON(dtype tensor.DType) ([]byte, error) {
	m, v := c.Model, c.Vocab
	rope := json.RawMessage("null")
	switch m.Rope.Type {
	case "linear":
		rope, _ = json.Marshal(map[string]any{"rope_type": "linear", "factor": m.Rope.Factor})
	case "llama3":
		rope, _ = json.Marshal(map[string]any{
			"rope_type": "llama3", "factor": m.Rope.Factor, "low_freq_factor": m.Rope.LowFreqFactor,
			"high_freq_factor": m.Rope.HighFreqFactor, "original_max_position_embeddings": m.Rope.OriginalMaxPositionEmbeddings,
		})
	}
	return indented(struct {
		*arch.Config
		RopeTheta   float64         `json:"rope_theta"`
		RopeScaling json.RawMessage `json:"rope_scaling"`
		TorchDType  string          `json:"torch_dtype"`
		BOS         *int32          `json:"bos_token_id"`
		EOS         *int32          `json:"eos_token_id"`
	}{m.Config, m.Rope.Theta, rope, TorchDType(dtype), id(v.BOS), id(v.EOS)})
}

// GenerationConfigJSON returns the text of generation_config.json: the special
// tokens and nothing else.
func (c *Checkpoint) GenerationConfigJSON() ([]byte, error) {
	return indented(struct {
		BOS *int32 `json:"bos_token_id,omitempty"`
		EOS *int32 `json:"eos_token_id,omitempty"`
	}{id(c.Vocab.BOS), id(c.Vocab.EOS)})
}

func id(n int32) *int32 {
	if n == vocab.None {
		return nil
	}
	return &n
}

func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
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
