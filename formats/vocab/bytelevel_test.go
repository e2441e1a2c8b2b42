package vocab_test

import (
	"encoding/json"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// tokenizerDir is a copy of one of testdata/tokenizers with other files, and other
// members of tokenizer.json where that is an object.
func tokenizerDir(t testing.TB, base string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	from := "../../testdata/tokenizers/" + base
	entries, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, e := range entries {
		write(t, dir, e.Name(), string(read(t, from+"/"+e.Name())))
	}
	for name, text := range files {
		if name != "tokenizer.json" {
			write(t, dir, name, text)
			continue
		}
		file := decode[object](t, read(t, from+"/tokenizer.json"))
		change := decode[object](t, []byte(text))
		if model := change["model"]; len(model) > 0 && model[0] == '{' {
			merged := decode[object](t, file["model"])
			maps.Copy(merged, decode[object](t, model))
			change["model"], _ = json.Marshal(merged)
		}
		maps.Copy(file, change)
		out, err := json.Marshal(file)
		require.NoError(t, err)
		write(t, dir, name, string(out))
	}
	return dir
}

func TestPreByStructure(t *testing.T) {
	for base, want := range map[string]string{"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2"} {
		t.Run(base, func(t *testing.T) {
			v, err := vocab.OpenDir(tokenizerDir(t, base, nil), vocab.Options{})
			require.NoError(t, err)
			require.Equal(t, want, v.Pre)
			require.Len(t, v.Notes, 1)
			require.Contains(t, v.Notes[0], want)
			pre, _ := v.GGUF().Get("tokenizer.ggml.pre")
			require.Equal(t, want, pre)
		})
	}
}

func TestPreOption(t *testing.T) {
	odd := tokenizerDir(t, "llama3", map[string]string{"tokenizer.json": `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated", "invert": false}}`})
	_, err := vocab.OpenDir(odd, vocab.Options{})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, odd)
	require.Contains(t, hint.Of(err), "--pre")

	v, err := vocab.OpenDir(odd, vocab.Options{Pre: "smollm"})
	require.NoError(t, err)
	require.Equal(t, "smollm", v.Pre)
	require.Empty(t, v.Notes)

	v, err = vocab.OpenDir(odd, vocab.Options{TextOnly: true})
	require.NoError(t, err)
	require.Empty(t, v.Pre)
	require.NotNil(t, v.Spec)

	_, err = vocab.OpenDir(odd, vocab.Options{Pre: "smolm"})
	require.ErrorContains(t, err, `unknown pre-tokenizer "smolm"`)
	require.Contains(t, hint.Of(err), "smollm")
}

func TestByteLevelSizes(t *testing.T) {
	dir := tokenizerDir(t, "llama3", map[string]string{"config.json": `{"bos_token_id": 500, "pad_token_id": 504}`})
	v, err := vocab.OpenDir(dir, vocab.Options{Size: 510})
	require.NoError(t, err)
	require.Len(t, v.Pieces, 510)
	require.Equal(t, vocab.Piece{Text: "[PAD505]", Type: vocab.Unused}, v.Pieces[505])
	require.Equal(t, "<|eot_id|>", v.Pieces[504].Text)
	require.True(t, v.AddBOS)

	v, err = vocab.OpenDir(dir, vocab.Options{Size: 490, Pre: "llama-bpe"})
	require.NoError(t, err)
	require.Len(t, v.Pieces, 490)
	require.Equal(t, []int32{vocab.None, vocab.None, vocab.None}, []int32{v.BOS, v.EOS, v.PAD})
	require.False(t, v.AddBOS)
	require.Contains(t, v.Notes[0], "ids up to 504 and the model a vocabulary of 490")
	require.Less(t, len(v.Merges), 244)
	require.Len(t, v.Spec.Model.Merges, len(v.Merges))
	_, err = vocab.FromGGUF(v.GGUF())
	require.NoError(t, err)

	_, err = vocab.OpenDir(dir, vocab.Options{Size: 1_000_000})
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "505 tokens in a vocabulary of 1000000")
}

func TestByteLevelErrors(t *testing.T) {
	deep := strings.Repeat(`{"type": "Sequence", "normalizers": [`, 2000) + strings.Repeat("]}", 2000)
	for name, c := range map[string]struct {
		base, text string // members of tokenizer.json
		files      map[string]string
		is         error
		says       string
	}{
		"unigram":           {"gpt2", `{"model": {"type": "Word"}}`, nil, tensor.ErrUnsupported, `a model of type "Word"`},
		"no model":          {"gpt2", `{"model": null}`, nil, tensor.ErrUnsupported, `a model of type ""`},
		"vocab is a list":   {"gpt2", `{"model": {"vocab": []}}`, nil, tensor.ErrMalformed, "unexpected ["},
		"ids are text":      {"gpt2", `{"model": {"vocab": {"a": "1"}}}`, nil, tensor.ErrMalformed, "unexpected string"},
		"id out of range":   {"gpt2", `{"model": {"vocab": {"a": 4000000000}}}`, nil, tensor.ErrMalformed, "has the id 4000000000"},
		"id twice":          {"gpt2", `{"model": {"vocab": {"a": 1, "b": 1}, "merges": []}}`, nil, tensor.ErrMalformed, `tokens "a" and "b" both have the id 1`},
		"merge of nothing":  {"gpt2", `{"model": {"merges": ["a zzzz"]}}`, nil, tensor.ErrMalformed, `the second is not in the vocabulary`},
		"merge of three":    {"gpt2", `{"model": {"merges": ["a b c"]}}`, nil, tensor.ErrMalformed, "merge 0"},
		"merge is a number": {"gpt2", `{"model": {"merges": [1]}}`, nil, tensor.ErrMalformed, "merge 0"},
		"deep normalizer":   {"gpt2", `{"normalizer": ` + deep + `}`, nil, tensor.ErrUnsupported, "normalizer"},
		"long pattern":      {"gpt2", `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "` + strings.Repeat("(a|b)*", 1<<18) + `"}, "behavior": "Isolated", "invert": false}}`, nil, tensor.ErrUnsupported, "pre_tokenizer"},
		"broken pattern":    {"gpt2", `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated", "invert": false}}`, nil, tensor.ErrMalformed, "pre_tokenizer"},
		"unknown part":      {"gpt2", `{"pre_tokenizer": {"type": "Mystery"}}`, nil, tensor.ErrUnsupported, "Mystery"},
		"added is text":     {"gpt2", `{"added_tokens": "x"}`, nil, tensor.ErrMalformed, "unexpected string"},
		"added id":          {"gpt2", `{}`, map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"-1": {"content": "x"}}}`}, tensor.ErrMalformed, `the id "-1"`},
		"same text": {"gpt2", `{}`, map[string]string{"tokenizer_config.json": `{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"500": {"content": "<|endoftext|>", "special": true},
			"501": {"content": "x▁y", "normalized": true}, "502": {"content": "x y", "normalized": true}}}`}, tensor.ErrMalformed, `"x y" is already piece 501`},
		"not JSON":      {"", "{", nil, tensor.ErrMalformed, "tokenizer.json"},
		"a list":        {"", "[]", nil, tensor.ErrMalformed, "tokenizer.json"},
		"twice":         {"", `{"model": {}, "model": {}}`, nil, tensor.ErrMalformed, "tokenizer.json"},
		"deep nesting":  {"", strings.Repeat("[", 1<<20), nil, tensor.ErrMalformed, "tokenizer.json"},
		"vocab.json":    {"", "", map[string]string{"vocab.json": `{"a": 1.5}`, "merges.txt": "", "tokenizer_config.json": `{"tokenizer_class": "GPT2Tokenizer"}`}, tensor.ErrMalformed, "vocab.json"},
		"no merges.txt": {"", "", map[string]string{"vocab.json": `{"a": 1}`, "tokenizer_config.json": `{"tokenizer_class": "GPT2Tokenizer"}`}, os.ErrNotExist, "merges.txt"},
		"merges.txt":    {"", "", map[string]string{"vocab.json": `{"a": 1}`, "merges.txt": "#version\na b c\n", "tokenizer_config.json": `{"tokenizer_class": "GPT2Tokenizer"}`}, tensor.ErrMalformed, "merges.txt:2"},
		"no class":      {"", "", map[string]string{"vocab.json": `{"a": 1}`, "merges.txt": ""}, tensor.ErrUnsupported, "vocab.json without tokenizer.json"},
		"tekken.json":   {"", "", map[string]string{"tekken.json": `{}`}, tensor.ErrUnsupported, "tekken.json"},
	} {
		t.Run(name, func(t *testing.T) {
			var dir string
			if c.base != "" {
				dir = tokenizerDir(t, c.base, map[string]string{"tokenizer.json": c.text})
			} else if dir = t.TempDir(); c.text != "" {
				write(t, dir, "tokenizer.json", c.text)
			}
			for file, text := range c.files {
				write(t, dir, file, text)
			}
			v, err := vocab.OpenDir(dir, vocab.Options{Rules: arch.ByteLevelTokenizers, Pre: "gpt-2"})
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, dir)
			require.Less(t, len(err.Error()), 600)
			require.Nil(t, v)
		})
	}
}
