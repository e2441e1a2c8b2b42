package convert

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
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
	// OutType is one of OutTypes. "auto" is bf16 if the first matrix is BF16,
	// else f16.
	OutType string

	// Name is the model's name, from which general.name is made.
	Name string
}

// ropeFreqs is the tensor that holds the factors of llama3's rotary scaling.
const ropeFreqs = "rope_freqs.weight"

// ToGGUF plans the GGUF file of a model in checkpoint form. The plan is to be
// run on the Source it returns: src under GGUF's names, with the rows of rotary
// projections in GGUF's order.
//
// Every tensor of src must belong to the model and every tensor of the model
// must be there; the vocabulary must have a token for each row of the
// embeddings.
func ToGGUF(src tensor.Source, codecs tensor.Codecs, m *arch.Model, v *vocab.Vocab, o GGUFOptions) (tensor.Source, *pipeline.Plan, error) {
	if int64(len(v.Pieces)) != m.VocabSize {
		return nil, nil, hint.Add(fmt.Errorf("%w: the tokenizer has %d tokens, the model's vocab_size is %d", tensor.ErrMalformed, len(v.Pieces), m.VocabSize),
			"the tokenizer files do not belong to this model")
	}
	if err := v.Validate(); err != nil {
		return nil, nil, err
	}
	list, err := match(src, m, func(t arch.Tensor) string { return t.Name })
	if err != nil {
		return nil, nil, err
	}
	outType, err := o.dtype(list)
	if err != nil {
		return nil, nil, err
	}
	meta, err := metadata(m, outType, o.Name)
	if err != nil {
		return nil, nil, err
	}
	plan := &pipeline.Plan{Meta: append(meta, v.GGUF()...)}

	var entries []tensor.Entry
	if m.Rope.Type == "llama3" {
		e := floatEntry(ropeFreqs, m.Rope.Factors(m.HeadDim))
		entries = append(entries, e)
		step := pipeline.Copy(e.Info, ropeFreqs)
		step.Action = "make"
		plan.Steps = append(plan.Steps, step)
	}
	for _, t := range list {
		e := tensor.Forward(src, t.info, t.GGUFName)
		order := between(m.Rotary, m.GGUFRotary, m.HeadDim)
		permuted := t.RotaryHeads != nil && order != nil
		if permuted {
			e = reorder(src, codecs, t.info, t.GGUFName, order)
		}
		entries = append(entries, e)
		out := e.Info
		out.DType = storedAs(e.Info, outType)
		step := pipeline.Copy(e.Info, t.GGUFName)
		if out.DType != e.Info.DType {
			if step, err = pipeline.Cast(codecs, t.GGUFName, out); err != nil {
				return nil, nil, err
			}
		}
		if permuted {
			step.Action = strings.TrimPrefix(step.Action+"+permute", "copy+")
		}
		plan.Steps = append(plan.Steps, step)
	}
	view, err := tensor.NewTable(nil, entries)
	return view, plan, err
}

// matched is a tensor of a model and what the source has of it.
type matched struct {
	arch.Tensor
	info tensor.Info
}

// match pairs the tensors of a model with those that a source has under the
// names that name gives. extra are names that it may have besides.
func match(src tensor.Source, m *arch.Model, name func(arch.Tensor) string, extra ...string) ([]matched, error) {
	var out []matched
	known := make(map[string]bool)
	for _, n := range extra {
		known[n] = true
	}
	for _, t := range m.Tensors() {
		info, err := src.Info(name(t))
		if err != nil {
			return nil, fmt.Errorf("%w: the %s family needs it", err, m.Name)
		}
		if !info.Shape.Equal(t.Dims) {
			return nil, fmt.Errorf("tensor %q: %w: shape %v, the configuration makes it %v", info.Name, tensor.ErrMalformed, info.Shape, tensor.Shape(t.Dims))
		}
		known[info.Name] = true
		out = append(out, matched{t, info})
	}
	for info := range src.All() {
		if !known[info.Name] {
			return nil, fmt.Errorf("tensor %q: %w: the %s family has none of that name", info.Name, tensor.ErrUnsupported, m.Name)
		}
	}
	return out, nil
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
			if len(t.Dims) >= 2 {
				if t.info.DType == tensor.BF16 {
					return tensor.BF16, nil
				}
				break
			}
		}
		return tensor.F16, nil
	}
	return 0, fmt.Errorf("no output type %q (there are: %s)", o.OutType, strings.Join(OutTypes(), ", "))
}

// storedAs is the type rule of the reference: vectors stay F32, and so do all
// biases; rows that do not divide into blocks are stored as F16.
func storedAs(info tensor.Info, outType tensor.DType) tensor.DType {
	if len(info.Shape) <= 1 {
		return tensor.F32
	}
	if block, _ := outType.Block(); info.Shape.Cols()%block != 0 {
		return tensor.F16
	}
	return outType
}

// metadata returns everything but the tokenizer, in the reference's order.
func metadata(m *arch.Model, outType tensor.DType, name string) (tensor.Meta, error) {
	ft, ok := gguf.FileTypeOf(outType)
	if !ok {
		return nil, fmt.Errorf("%w: a GGUF file of %v", tensor.ErrUnsupported, outType)
	}
	u32 := func(v int64) uint32 { return uint32(v) } // arch keeps them small
	p := m.Name + "."
	meta := tensor.Meta{
		{Key: gguf.KeyArchitecture, Value: m.Name},
		{Key: gguf.KeyType, Value: "model"},
		{Key: gguf.KeyName, Value: title(name)},
		{Key: keySizeLabel, Value: sizeLabel(m.Params())},
		{Key: p + keyBlockCount, Value: u32(m.NumHiddenLayers)},
		{Key: p + keyContextLength, Value: u32(m.MaxPositionEmbeddings)},
		{Key: p + keyEmbeddingLength, Value: u32(m.HiddenSize)},
		{Key: p + keyFeedForwardLength, Value: u32(m.IntermediateSize)},
		{Key: p + keyHeadCount, Value: u32(m.NumAttentionHeads)},
		{Key: p + keyHeadCountKV, Value: u32(m.NumKeyValueHeads)},
	}
	if m.Rope.Type == "linear" {
		meta = append(meta,
			tensor.KV{Key: p + keyRopeScalingType, Value: "linear"},
			tensor.KV{Key: p + keyRopeScalingFactor, Value: float32(m.Rope.Factor)})
	}
	return append(meta, tensor.Meta{
		{Key: p + keyRopeFreqBase, Value: float32(m.Rope.Theta)},
		{Key: p + keyRMSEpsilon, Value: float32(m.RMSNormEps)},
		{Key: p + keyKeyLength, Value: u32(m.HeadDim)},
		{Key: p + keyValueLength, Value: u32(m.HeadDim)},
		{Key: gguf.KeyFileType, Value: uint32(ft)},
		{Key: p + keyVocabSize, Value: u32(m.VocabSize)},
		{Key: p + keyRopeDimensionCount, Value: u32(m.HeadDim)},
		{Key: gguf.KeyQuantizationVersion, Value: gguf.QuantizationVersion},
	}...), nil
}

// The keys of a model's hyperparameters (gguf-py/gguf/constants.py), but the
// first behind "<architecture>.".
const (
	keySizeLabel          = "general.size_label"
	keyBlockCount         = "block_count"
	keyContextLength      = "context_length"
	keyEmbeddingLength    = "embedding_length"
	keyFeedForwardLength  = "feed_forward_length"
	keyHeadCount          = "attention.head_count"
	keyHeadCountKV        = "attention.head_count_kv"
	keyRopeScalingType    = "rope.scaling.type"
	keyRopeScalingFactor  = "rope.scaling.factor"
	keyRopeFreqBase       = "rope.freq_base"
	keyRMSEpsilon         = "attention.layer_norm_rms_epsilon"
	keyKeyLength          = "attention.key_length"
	keyValueLength        = "attention.value_length"
	keyVocabSize          = "vocab_size"
	keyRopeDimensionCount = "rope.dimension_count"
)

var version = regexp.MustCompile(`^(v\d+(\.\d+)*|\d.*)$`)

// title makes general.name of a model's name as the reference does: dashes
// become spaces, and words in lower case get a capital letter after everything
// that is not one.
func title(name string) string {
	words := strings.Fields(strings.ReplaceAll(name, "-", " "))
	for i, w := range words {
		if w == strings.ToLower(w) && w != strings.ToUpper(w) && !version.MatchString(w) {
			words[i] = capitals(w)
		}
	}
	return strings.Join(words, " ")
}

var word = regexp.MustCompile(`\p{L}+`)

func capitals(s string) string {
	return word.ReplaceAllStringFunc(s, func(w string) string {
		r := []rune(w)
		return strings.ToUpper(string(r[0])) + string(r[1:])
	})
}

// sizeLabel writes a number of parameters with at least two digits: "260K",
// "1.2B", "70B" (model_weight_count_rounded_notation in gguf-py).
func sizeLabel(params int64) string {
	v, unit := float64(params)*1e-3, "K"
	for _, u := range []struct {
		above float64
		unit  string
	}{{1e6, "M"}, {1e9, "B"}, {1e12, "T"}} {
		if float64(params) > u.above {
			v, unit = float64(params)/u.above, u.unit
		}
	}
	digits := strings.TrimLeft(strconv.FormatFloat(math.RoundToEven(v), 'f', 0, 64), "0")
	return strconv.FormatFloat(v, 'f', max(2-len(digits), 0), 64) + unit
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
