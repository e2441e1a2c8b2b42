package vocab_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

func TestDescribeDir(t *testing.T) {
	dirs, err := filepath.Glob("../../testdata/families/*/config.json")
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, path := range dirs {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			m, err := arch.ParseConfig(read(t, path))
			require.NoError(t, err)
			v, err := vocab.OpenDir(dir, vocab.Options{Rules: m.Tokenizers, TextOnly: true})
			require.NoError(t, err)
			d := described(t, dir, m.Tokenizers, v)
			require.Equal(t, len(v.Pieces), d.Tokens)
			require.Equal(t, v.ChatTemplate != "", d.ChatTemplate)

			g, err := vocab.DescribeGGUF(v.GGUF())
			require.NoError(t, err)
			require.Equal(t, d, g)
		})
	}
}

func TestDescribeOthers(t *testing.T) {
	unigram := string(read(t, storiesModel)) + "\x12\x02\x18\x01" // trainer_spec once more: model_type 1
	for name, c := range map[string]struct {
		files map[string]string
		want  vocab.Description
	}{
		"tiktoken": {map[string]string{"tokenizer.model": "IQ== 0\nIg== 1\nIw== 2"}, vocab.Description{Type: "tiktoken", Tokens: 3}},
		"Unigram":  {map[string]string{"tokenizer.json": `{"model": {"type": "Unigram", "vocab": [["a", 0], ["b", -1]]}}`}, vocab.Description{Type: "Unigram", Tokens: 2}},
		"old BPE": {map[string]string{
			"tokenizer.json": `{"model": {"vocab": {"a": 0, "b": 7}, "merges": []}, "added_tokens": [{"id": 9, "content": "c"}], "decoder": null}`,
		}, vocab.Description{Type: "byte-level BPE", Tokens: 10}},
		"GPT-2's files": {map[string]string{
			"vocab.json": `{"a": 0, "b": 1}`, "merges.txt": "a b\n", "added_tokens.json": `{"<x>": 3}`, "chat_template.jinja": "x",
		}, vocab.Description{Type: "byte-level BPE", Tokens: 4, ChatTemplate: true}},
		"SentencePiece Unigram": {map[string]string{"tokenizer.model": unigram}, vocab.Description{Type: "SentencePiece unigram", Tokens: 512}},
		// The merges are not looked at.
		"broken at its end": {map[string]string{
			"tokenizer.json": `{"decoder": {"type": "Sequence"}, "model": {"type": "BPE", "byte_fallback": true, "vocab": {"a": 0}, "merges": [3`,
		}, vocab.Description{Type: "SentencePiece BPE", Tokens: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				write(t, dir, file, text)
			}
			d, err := vocab.DescribeDir(dir, arch.Tokenizers{})
			require.NoError(t, err)
			require.Equal(t, &c.want, d)
		})
	}

	d, err := vocab.DescribeGGUF(tensor.Meta{{Key: "tokenizer.ggml.model", Value: "bert"}, {Key: "tokenizer.ggml.tokens", Value: []string{"a"}}})
	require.NoError(t, err)
	require.Equal(t, &vocab.Description{Type: "WordPiece", Tokens: 1}, d)
}

func TestDescribeErrors(t *testing.T) {
	_, err := vocab.DescribeDir(t.TempDir(), arch.Tokenizers{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, text := range []string{"", "[]", "{", `{"model": 3}`, `{"model": {"vocab": {"a": "b"}}}`, `{"model": {"vocab": {"a": 1e99}}}`, `{"model": {"vocab": [1, }`} {
		dir := t.TempDir()
		write(t, dir, "tokenizer.json", text)
		_, err := vocab.DescribeDir(dir, arch.Tokenizers{})
		require.ErrorIs(t, err, tensor.ErrMalformed, text)
		require.ErrorContains(t, err, "tokenizer.json")
	}
	for _, meta := range []tensor.Meta{nil, {{Key: "tokenizer.ggml.model", Value: "llama"}}} {
		_, err := vocab.DescribeGGUF(meta)
		require.ErrorIs(t, err, tensor.ErrMalformed)
	}
}

// BenchmarkDescribe is of a tokenizer.json as large as Llama 3's.
func BenchmarkDescribe(b *testing.B) {
	var tokens, merges strings.Builder
	for i := range 128_000 {
		fmt.Fprintf(&tokens, "%s\"tok%d\": %d", strings.Repeat(",", min(i, 1)), i, i)
	}
	for i := range 280_000 {
		fmt.Fprintf(&merges, "%s\"to k%d\"", strings.Repeat(",", min(i, 1)), i)
	}
	dir := b.TempDir()
	text := `{"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "byte_fallback": false, "vocab": {` + tokens.String() + `}, "merges": [` + merges.String() + `]}}`
	require.NoError(b, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(text), 0o666))
	for b.Loop() {
		_, err := vocab.DescribeDir(dir, arch.LlamaTokenizers)
		require.NoError(b, err)
	}
}
