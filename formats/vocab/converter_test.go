package vocab_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

const storiesModel = "testdata/stories260K.tokenizer.model"

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

func decode[T any](t testing.TB, text []byte) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}

type object = map[string]json.RawMessage

// rules are those of the families by their names.
var rules = map[string]arch.Tokenizers{
	"llama": arch.LlamaTokenizers, "mistral": arch.LlamaTokenizers, "mixtral": arch.LlamaTokenizers, "qwen2": arch.QwenTokenizers, "qwen3": arch.QwenTokenizers,
	"qwen2moe": arch.ByteLevelTokenizers, "qwen3moe": arch.ByteLevelTokenizers, "gpt2": arch.ByteLevelTokenizers,
	"gemma": arch.GemmaTokenizers, "gemma2": arch.Gemma2Tokenizers, "gemma3": arch.Gemma3Tokenizers, "phi3": arch.Phi3Tokenizers,
}

// variant is one directory of testdata/converter.json.gz and the tokenizer.* keys
// that llama.cpp's converter makes of it.
type variant struct {
	Name, Arch, Pre string
	Files           map[string]json.RawMessage
	Keys            [][3]json.RawMessage
}

type converterGolden struct {
	Llama    object
	Variants []variant
}

var goldens = map[string]converterGolden{}

func golden(t testing.TB) converterGolden {
	t.Helper()
	const path = "testdata/converter.json.gz"
	if g, ok := goldens[path]; ok {
		return g
	}
	z, err := gzip.NewReader(bytes.NewReader(read(t, path)))
	require.NoError(t, err)
	data, err := io.ReadAll(z)
	require.NoError(t, err)
	g := decode[converterGolden](t, data)
	require.Greater(t, len(g.Variants), 60)
	goldens[path] = g
	return g
}

func named(t testing.TB, name string) variant {
	t.Helper()
	for _, v := range golden(t).Variants {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no directory %q", name)
	return variant{}
}

// tokenizerJSON is one of the tokenizers with a change.
func tokenizerJSON(t testing.TB, text []byte) []byte {
	t.Helper()
	spec := decode[struct {
		Base   string
		Change object
	}](t, text)
	base := maps.Clone(golden(t).Llama)
	if spec.Base != "llama" {
		base = decode[object](t, read(t, "../../testdata/tokenizers/"+spec.Base+"/tokenizer.json"))
	}
	model := decode[object](t, base["model"])
	for key, value := range spec.Change {
		switch key {
		case "model":
			maps.Copy(model, decode[object](t, value))
		case "add":
			add := decode[object](t, value)
			vocabulary := decode[map[string]int](t, model["vocab"])
			maps.Copy(vocabulary, decode[map[string]int](t, add["vocab"]))
			model["vocab"], _ = json.Marshal(vocabulary)
			model["merges"], _ = json.Marshal(append(decode[[]json.RawMessage](t, model["merges"]), decode[[]json.RawMessage](t, add["merges"])...))
		default:
			base[key] = value
		}
	}
	base["model"], _ = json.Marshal(model)
	out, err := json.Marshal(base)
	require.NoError(t, err)
	return out
}

// dir writes the variant's directory.
func (v variant) dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range v.Files {
		switch {
		case name == "tokenizer.model":
			text = read(t, storiesModel)
		case name == "tokenizer.json":
			text = tokenizerJSON(t, text)
		case text[0] == '"':
			text = []byte(decode[string](t, text))
		}
		write(t, dir, name, string(text))
	}
	return dir
}

// options are what OpenDir is told of the variant.
func (v variant) options(t testing.TB) vocab.Options {
	size := decode[struct {
		Size int `json:"vocab_size"`
	}](t, v.Files["config.json"]).Size
	return vocab.Options{Size: size, Rules: rules[v.Arch], Pre: v.Pre}
}

func (v variant) open(t testing.TB) *vocab.Vocab {
	t.Helper()
	out, err := vocab.OpenDir(v.dir(t), v.options(t))
	require.NoError(t, err)
	return out
}

// meta is what the converter wrote, in Go's types.
func (v variant) meta(t testing.TB) tensor.Meta {
	t.Helper()
	var m tensor.Meta
	pads := 0
	for _, kv := range v.Keys {
		key, typ := decode[string](t, kv[0]), decode[string](t, kv[1])
		var value any
		switch typ {
		case "STRING":
			value = decode[string](t, kv[2])
		case "BOOL":
			value = decode[bool](t, kv[2])
		case "UINT32":
			value = decode[uint32](t, kv[2])
		case "ARRAY STRING":
			if key == "tokenizer.ggml.tokens" {
				list := decode[[]json.RawMessage](t, kv[2])
				pads = decode[int](t, list[len(list)-1])
				tokens := make([]string, 0, len(list)+pads)
				for _, s := range list[:len(list)-1] {
					tokens = append(tokens, decode[string](t, s))
				}
				for range pads {
					tokens = append(tokens, fmt.Sprintf("[PAD%d]", len(tokens)))
				}
				value = tokens
				break
			}
			value = decode[[]string](t, kv[2])
		case "ARRAY FLOAT32":
			value = append(decode[[]float32](t, kv[2]), slices.Repeat([]float32{-10000}, pads)...)
		case "ARRAY INT32":
			value = append(decode[[]int32](t, kv[2]), slices.Repeat([]int32{5}, pads)...)
		default:
			t.Fatalf("%s has type %s", key, typ)
		}
		m = append(m, tensor.KV{Key: key, Value: value})
	}
	return m
}

// sameMeta is require.Equal with a failure that can be read.
func sameMeta(t testing.TB, want, got tensor.Meta) {
	t.Helper()
	var wantKeys, gotKeys []string
	for _, kv := range want {
		wantKeys = append(wantKeys, kv.Key)
	}
	for _, kv := range got {
		gotKeys = append(gotKeys, kv.Key)
	}
	require.Equal(t, wantKeys, gotKeys)
	for i, kv := range want {
		switch w := kv.Value.(type) {
		case []string:
			sameList(t, kv.Key, w, got[i].Value)
		case []float32:
			sameList(t, kv.Key, w, got[i].Value)
		case []int32:
			sameList(t, kv.Key, w, got[i].Value)
		default:
			require.Equal(t, kv.Value, got[i].Value, kv.Key)
		}
	}
}

func sameList[T comparable](t testing.TB, key string, want []T, got any) {
	t.Helper()
	list, ok := got.([]T)
	require.True(t, ok, "%s is %T", key, got)
	if slices.Equal(want, list) {
		return
	}
	require.Len(t, list, len(want), key)
	for i := range want {
		require.Equal(t, want[i], list[i], "%s[%d]", key, i)
	}
}

func without(m tensor.Meta, keys ...string) tensor.Meta {
	var out tensor.Meta
	for _, kv := range m {
		if !slices.Contains(keys, kv.Key) {
			out = append(out, kv)
		}
	}
	return out
}

func TestGGUFIsWhatTheConverterWrites(t *testing.T) {
	for _, c := range golden(t).Variants {
		t.Run(c.Name, func(t *testing.T) {
			v := c.open(t)
			want, got := c.meta(t), v.GGUF()
			if names, ok := tensor.Lookup[[]string](got, "tokenizer.chat_templates"); ok {
				slices.Sort(names) // which have no order there
			}
			if strings.HasPrefix(c.Name, "byte fallback") {
				// The exception: scores.
				want, got = without(want, "tokenizer.ggml.scores"), without(got, "tokenizer.ggml.scores")
			}
			sameMeta(t, want, got)
			for _, kv := range got {
				require.True(t, vocab.IsGGUFKey(kv.Key), kv.Key)
			}
		})
	}
}
