package convert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/ggml"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(append(floats.Codecs(), ggml.Codecs()...)...)

const (
	storiesDir = "../../cmd/nibble/demo/stories260K"
	goldens    = "../../testdata"
)

// checkpoint opens a model directory with its tokenizer.
func checkpoint(t *testing.T, dir string) (*hf.Dir, *arch.Model, *vocab.Vocab) {
	t.Helper()
	d, err := hf.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	m, err := arch.ParseConfig(d.Config())
	require.NoError(t, err)
	v, err := vocab.OpenDir(dir, vocab.Options{Size: int(m.VocabSize), Rules: m.Tokenizers})
	require.NoError(t, err)
	return d, m, v
}

// named is GGUFOptions.General for a model of which only the name is known.
func named(name string) func(iter.Seq[tensor.Info]) tensor.Meta {
	return func(list iter.Seq[tensor.Info]) tensor.Meta {
		meta, _ := new(modelcard.Card).GGUF(name, modelcard.CountParams(list))
		return meta
	}
}

// toFile converts to GGUF and opens the result.
func toFile(t *testing.T, src tensor.Source, m *arch.Model, v *vocab.Vocab, o GGUFOptions, workers int) *gguf.File {
	t.Helper()
	g, err := ToGGUF(src, codecs, m, v, o)
	require.NoError(t, err)
	tensortest.TestSource(t, g.Source)
	path := filepath.Join(t.TempDir(), "out.gguf")
	w, err := gguf.Create(path, false)
	require.NoError(t, err)
	require.NoError(t, pipeline.Run(context.Background(), g.Plan, g.Source, w, pipeline.WithWorkers(workers)))
	f, err := gguf.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// manifest is what the reference converter made, as testdata/README.md tells.
type manifest struct {
	Metadata ordered[struct {
		Type, Element, SHA256 string
		Value                 any
		Length                int
	}]
	Tensors ordered[struct {
		Type   string
		Dims   []int64
		SHA256 string
	}]
}

// ordered is a JSON object that remembers the order of its members.
type ordered[T any] struct {
	names  []string
	values map[string]T
}

func (o *ordered[T]) UnmarshalJSON(text []byte) error {
	o.values = make(map[string]T)
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return err
		}
		o.names = append(o.names, name.(string))
		o.values[name.(string)] = v
	}
	return nil
}

// manifests lists the files that tell everything of what the reference made of a
// checkpoint: where, and the checkpoint's directory.
func manifests(t *testing.T) map[string]string {
	list := make(map[string]string)
	for _, outType := range OutTypes() {
		name := "convert_" + outType + ".json"
		list[filepath.Join(goldens, "stories260K", name)] = storiesDir
		dirs, err := filepath.Glob(filepath.Join(goldens, "*", "*", "config.json"))
		require.NoError(t, err)
		for _, config := range append(dirs, filepath.Join(goldens, "tiny_llama3", "config.json")) {
			path := filepath.Join(filepath.Dir(config), name)
			if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(`"tensors"`)) {
				list[path] = filepath.Dir(config)
			}
		}
	}
	require.GreaterOrEqual(t, len(list), 50)
	return list
}

func TestSameAsTheReferenceConverter(t *testing.T) {
	for path, dir := range manifests(t) {
		t.Run(strings.TrimPrefix(path, goldens+"/"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			var want manifest
			require.NoError(t, json.Unmarshal(text, &want))
			d, m, v := checkpoint(t, dir)
			view, err := Canonical(d, m)
			require.NoError(t, err)
			src, err := view.Listed(view, d.Listed())
			require.NoError(t, err)
			card, err := modelcard.Read(dir)
			require.NoError(t, err)
			outType := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "convert_"), ".json")
			f := toFile(t, src, m, v, GGUFOptions{OutType: outType, General: func(list iter.Seq[tensor.Info]) tensor.Meta {
				meta, _ := card.GGUF(filepath.Base(dir), modelcard.CountParams(list))
				return meta
			}}, 2)

			var keys []string
			for _, kv := range f.Meta() {
				keys = append(keys, kv.Key)
				w := want.Metadata.values[kv.Key]
				if w.Type == "array" {
					require.Equal(t, w.SHA256, arrayHash(t, kv.Value), kv.Key)
					continue
				}
				require.Equal(t, w.Type, fmt.Sprintf("%T", kv.Value), kv.Key)
				if n, ok := w.Value.(float64); ok {
					require.InDelta(t, n, number(t, kv.Value), 1e-15, kv.Key)
				} else {
					require.Equal(t, w.Value, kv.Value, kv.Key)
				}
			}
			require.Equal(t, want.Metadata.names, keys)

			var names []string
			for info := range f.All() {
				names = append(names, info.Name)
				w := want.Tensors.values[info.Name]
				dims := slices.Clone(w.Dims)
				slices.Reverse(dims)
				require.Equal(t, dims, []int64(info.Shape), info.Name)
				require.Equal(t, w.Type, info.DType.String(), info.Name)
				sum := sha256.Sum256(tensortest.Bytes(t, f, info.Name))
				require.Equal(t, w.SHA256, hex.EncodeToString(sum[:]), info.Name)
			}
			require.Equal(t, want.Tensors.names, names)
		})
	}
}

func number(t *testing.T, v any) float64 {
	switch v := v.(type) {
	case uint32:
		return float64(v)
	case int32:
		return float64(v)
	case float32:
		return float64(v)
	}
	require.Failf(t, "type", "%T", v)
	return 0
}

// arrayHash is the hash of an array as GGUF stores its elements.
func arrayHash(t *testing.T, v any) string {
	var b []byte
	switch v := v.(type) {
	case []string:
		for _, s := range v {
			b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
			b = append(b, s...)
		}
	case []float32:
		for _, f := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
	case []uint32:
		for _, n := range v {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
	case []bool:
		for _, n := range v {
			if n {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		}
	case []int32:
		for _, n := range v {
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
		}
	default:
		require.Failf(t, "type", "%T", v)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestThereAndBack(t *testing.T) {
	for _, dir := range []string{storiesDir, goldens + "/tiny_llama3"} {
		d, m, v := checkpoint(t, dir)
		first, err := d.Info("model.embed_tokens.weight")
		require.NoError(t, err)
		outType := map[tensor.DType]string{tensor.F32: "f32", tensor.BF16: "bf16"}[first.DType]
		f := toFile(t, d, m, v, GGUFOptions{OutType: outType, General: named("x")}, 1)
		c, err := FromGGUF(f, codecs)
		require.NoError(t, err)
		tensortest.TestSource(t, c.Source)
		for info := range d.All() {
			_, want, err := codecs.ReadAll(d, info.Name)
			require.NoError(t, err)
			_, got, err := codecs.ReadAll(c.Source, info.Name)
			require.NoError(t, err)
			require.Equal(t, want, got, info.Name)
			if len(info.Shape) > 1 {
				require.Equal(t, tensortest.Bytes(t, d, info.Name), tensortest.Bytes(t, c.Source, info.Name))
			}
		}
		require.Equal(t, len(m.Tensors()), len(slices.Collect(c.Source.All())))

		text, err := c.ConfigJSON(first.DType)
		require.NoError(t, err)
		again, err := arch.ParseConfig(text)
		require.NoError(t, err)
		want := *m.Config
		want.HeadDimGiven = true // as GGUF has it for this family
		require.Equal(t, &want, again.Config)
		back, err := c.Vocab()
		require.NoError(t, err)
		require.Equal(t, v.Pieces, back.Pieces)
		gen, err := c.GenerationConfigJSON()
		require.NoError(t, err)
		require.JSONEq(t, `{"bos_token_id": 1, "eos_token_id": 2}`, string(gen))
	}
}

func TestTheSameModelFromAnotherConverter(t *testing.T) {
	// stories260K.gguf was written by llama.cpp from the original weights, with
	// the tied head written out (its F32 tensors are in the file's own hashes).
	d, _, _ := checkpoint(t, storiesDir)
	text, err := os.ReadFile("testdata/stories260K_gguf.sha256.json")
	require.NoError(t, err)
	var want map[string]string
	require.NoError(t, json.Unmarshal(text, &want))
	_, m, v := checkpoint(t, storiesDir)
	f := toFile(t, d, m, v, GGUFOptions{OutType: "f32", General: named("x")}, 1)
	for info := range f.All() {
		sum := sha256.Sum256(tensortest.Bytes(t, f, info.Name))
		require.Equal(t, want[info.Name], hex.EncodeToString(sum[:]), info.Name)
		delete(want, info.Name)
	}
	sum := sha256.Sum256(tensortest.Bytes(t, f, "token_embd.weight"))
	require.Equal(t, map[string]string{"output.weight": hex.EncodeToString(sum[:])}, want)
}

func TestPermutationsAreInverse(t *testing.T) {
	for _, d := range []int64{2, 4, 6, 64} {
		a, b := toInterleaved(d), toHalfSplit(d)
		for row := range 3 * d {
			require.Equal(t, row, a(b(row)))
			require.Equal(t, row, b(a(row)))
			require.Equal(t, row/d, a(row)/d, "rows stay in their head")
		}
	}
	require.Equal(t, int64(3), toInterleaved(6)(1), "the second row is the first of the second half")
	require.Nil(t, between(arch.HalfSplit, arch.HalfSplit, 4))
}

func TestWorkersDoNotChangeBytes(t *testing.T) {
	d, m, v := checkpoint(t, storiesDir)
	one, many := toFile(t, d, m, v, GGUFOptions{OutType: "q8_0"}, 1), toFile(t, d, m, v, GGUFOptions{OutType: "q8_0"}, 8)
	for info := range one.All() {
		require.Equal(t, tensortest.Bytes(t, one, info.Name), tensortest.Bytes(t, many, info.Name))
	}
}

// without is a source that lacks a tensor, or has one more.
func without(t *testing.T, src tensor.Source, name string, more ...tensor.Info) tensor.Source {
	var entries []tensor.Entry
	for info := range src.All() {
		if info.Name != name {
			entries = append(entries, tensor.Forward(src, info, info.Name))
		}
	}
	for _, info := range more {
		entries = append(entries, tensor.Entry{Info: info})
	}
	out, err := tensor.NewTable(src.Meta(), entries)
	require.NoError(t, err)
	return out
}

func TestToGGUFRefuses(t *testing.T) {
	d, m, v := checkpoint(t, storiesDir)
	few := *v
	few.Pieces = few.Pieces[:500]
	twice := *v
	twice.Pieces = slices.Clone(v.Pieces)
	twice.Pieces[400] = twice.Pieces[401]
	for name, c := range map[string]struct {
		src  tensor.Source
		v    *vocab.Vocab
		o    GGUFOptions
		is   error
		says string
	}{
		"missing":          {without(t, d, "model.norm.weight"), v, GGUFOptions{OutType: "f32"}, tensor.ErrNotFound, "model.norm.weight"},
		"unknown":          {without(t, d, "", tensor.Info{Name: "extra", DType: tensor.U8, Shape: tensor.Shape{1}}), v, GGUFOptions{OutType: "f32"}, tensor.ErrUnsupported, `"extra"`},
		"shape":            {without(t, d, "model.norm.weight", tensor.Info{Name: "model.norm.weight", DType: tensor.F32, Shape: tensor.Shape{65}}), v, GGUFOptions{OutType: "f32"}, tensor.ErrMalformed, "[65], the configuration makes it [64]"},
		"vocabulary":       {d, &few, GGUFOptions{OutType: "f32"}, tensor.ErrMalformed, "500 tokens, the model's vocab_size is 512"},
		"duplicate tokens": {d, &twice, GGUFOptions{OutType: "f32"}, tensor.ErrMalformed, ""},
		"type":             {d, v, GGUFOptions{OutType: "q4_2"}, nil, `"q4_2"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ToGGUF(c.src, codecs, m, c.v, c.o)
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
}

// withMeta is a source with one metadata value changed, or dropped if v is nil.
type withMeta struct {
	tensor.Source
	key string
	v   any
}

func (w withMeta) Meta() tensor.Meta {
	var out tensor.Meta
	for _, kv := range w.Source.Meta() {
		if kv.Key != w.key {
			out = append(out, kv)
		}
	}
	if w.v != nil {
		out = append(out, tensor.KV{Key: w.key, Value: w.v})
	}
	return out
}

func TestFromGGUFRefuses(t *testing.T) {
	d, m, v := checkpoint(t, storiesDir)
	f := toFile(t, d, m, v, GGUFOptions{OutType: "f32"}, 1)
	freqs := without(t, f, "", tensor.Info{Name: "rope_freqs.weight", DType: tensor.F32, Shape: tensor.Shape{4}})
	for name, c := range map[string]struct {
		src  tensor.Source
		is   error
		says string
	}{
		"adapter":       {withMeta{f, "general.type", "adapter"}, tensor.ErrUnsupported, "not a model"},
		"family":        {withMeta{f, "general.architecture", "bert"}, tensor.ErrUnsupported, `"bert"`},
		"no family":     {withMeta{f, "general.architecture", nil}, tensor.ErrUnsupported, `""`},
		"no layers":     {withMeta{f, "llama.block_count", nil}, tensor.ErrMalformed, "llama.block_count"},
		"layers":        {withMeta{f, "llama.block_count", uint32(6)}, tensor.ErrNotFound, "blk.5"},
		"too many":      {withMeta{f, "llama.block_count", uint32(4)}, tensor.ErrUnsupported, "blk.4"},
		"text":          {withMeta{f, "llama.embedding_length", "64"}, tensor.ErrMalformed, "want a number"},
		"impossible":    {withMeta{f, "llama.embedding_length", int32(-64)}, tensor.ErrMalformed, "hidden_size is -64"},
		"huge":          {withMeta{f, "llama.embedding_length", uint64(math.MaxUint64)}, tensor.ErrMalformed, "hidden_size"},
		"shape":         {withMeta{f, "llama.feed_forward_length", uint32(171)}, tensor.ErrMalformed, "[172, 64], the configuration makes it [171, 64]"},
		"vocabulary":    {withMeta{f, "llama.vocab_size", uint32(511)}, tensor.ErrMalformed, "512 rows"},
		"rotary":        {withMeta{f, "llama.rope.dimension_count", uint32(4)}, tensor.ErrUnsupported, "4 of the 8 elements"},
		"scaling":       {withMeta{f, "llama.rope.scaling.type", "mrope"}, tensor.ErrUnsupported, `"mrope"`},
		"base":          {withMeta{f, "llama.rope.freq_base", uint32(3)}, tensor.ErrMalformed, "want a float32"},
		"unknown":       {without(t, f, "", tensor.Info{Name: "extra", DType: tensor.U8, Shape: tensor.Shape{1}}), tensor.ErrUnsupported, `"extra"`},
		"no tokenizer":  {withMeta{f, "tokenizer.ggml.model", nil}, tensor.ErrMalformed, "no tokenizer.ggml.model"},
		"strange freqs": {strangeFreqs(t, freqs), tensor.ErrUnsupported, "no rotary scaling that is known"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FromGGUF(c.src, codecs)
			if err == nil {
				_, err = got.ConfigJSON(tensor.F32)
			}
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func strangeFreqs(t *testing.T, src tensor.Source) tensor.Source {
	entries := []tensor.Entry{floatEntry("rope_freqs.weight", []float32{1, 2, 3, 4})}
	for info := range src.All() {
		if info.Name != "rope_freqs.weight" {
			entries = append(entries, tensor.Forward(src, info, info.Name))
		}
	}
	out, err := tensor.NewTable(src.Meta(), entries)
	require.NoError(t, err)
	return out
}

func TestLinearScaling(t *testing.T) {
	d, m, v := checkpoint(t, storiesDir)
	scaled := *m.Config
	scaled.Rope = arch.Rope{Type: "linear", Theta: 10000, Factor: 2.5}
	sm, err := arch.New(m.Family, &scaled)
	require.NoError(t, err)
	c, err := FromGGUF(toFile(t, d, sm, v, GGUFOptions{OutType: "f16"}, 1), codecs)
	require.NoError(t, err)
	require.Equal(t, scaled.Rope, c.Model.Rope)
	text, err := c.ConfigJSON(tensor.F16)
	require.NoError(t, err)
	again, err := arch.ParseConfig(text)
	require.NoError(t, err)
	require.Equal(t, scaled.Rope, again.Rope)
}
