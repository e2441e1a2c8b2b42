package tokenizer_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// gpt2 is the real tokenizer of GPT-2, from vocab.json and merges.txt.
func gpt2(t testing.TB) *vocab.Vocab {
	t.Helper()
	planes := unpack(t, "../../../testdata/tokenizers/gpt2.merges.gz")
	const merges = 50000
	require.Len(t, planes, 4*merges)
	id := func(side, i int) int { return int(planes[2*side*merges+i]) | int(planes[(2*side+1)*merges+i])<<8 }

	var tokens []string
	for pass := range 2 { // first the bytes that are characters themselves
		for b := range 256 {
			c := bpe.Chars(string([]byte{byte(b)}))
			if own := c == string(rune(b)); own == (pass == 0) {
				tokens = append(tokens, c)
			}
		}
	}
	var file strings.Builder
	file.WriteString("#version: 0.2\n")
	for i := range merges {
		left, right := tokens[id(0, i)], tokens[id(1, i)]
		tokens = append(tokens, left+right)
		file.WriteString(left + " " + right + "\n")
	}
	tokens = append(tokens, "<|endoftext|>")
	ids := make(map[string]int, len(tokens))
	for i, s := range tokens {
		ids[s] = i
	}
	require.Len(t, ids, 50257)
	text, err := json.Marshal(ids)
	require.NoError(t, err)

	dir := t.TempDir()
	for name, data := range map[string]string{
		"vocab.json": string(text), "merges.txt": file.String(), "config.json": `{"model_type": "gpt2", "bos_token_id": 50256, "eos_token_id": 50256}`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644))
	}
	v, err := vocab.OpenDir(dir, vocab.Options{Size: 50257, Rules: arch.ByteLevelTokenizers})
	require.NoError(t, err)
	return v
}

// The name of GPT-2's pre-tokenizer is told by llama.cpp's digest, and from the
// metadata alone text is split as llama.cpp's own test wants it
// (models/ggml-vocab-gpt-2.gguf.inp and .out).
func TestGPT2(t *testing.T) {
	v := gpt2(t)
	require.Equal(t, "gpt-2", v.Pre)
	require.Empty(t, v.Notes)
	require.Equal(t, int32(50256), v.EOS)

	fromGGUF, err := vocab.FromGGUF(v.GGUF())
	require.NoError(t, err)
	for _, v := range []*vocab.Vocab{v, fromGGUF} {
		tok, err := tokenizer.New(v)
		require.NoError(t, err)
		texts, want := vectors(t, "testdata/gpt-2")
		require.Greater(t, len(texts), 45)
		for i, text := range texts {
			require.Equal(t, want[i], tok.Encode(text), "%q", text)
			require.Equal(t, text, tok.Decode(want[i]))
		}
	}
}

// vectors reads the files of llama.cpp's test-tokenizer-0.
func vectors(t testing.TB, path string) (texts []string, ids [][]int32) {
	t.Helper()
	in, err := os.ReadFile(path + ".inp")
	require.NoError(t, err)
	out, err := os.ReadFile(path + ".out")
	require.NoError(t, err)
	texts = strings.Split(string(in), "\n__ggml_vocab_test__\n")
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\n"), "\n") {
		row := []int32{}
		for _, s := range strings.Fields(line) {
			id, err := strconv.Atoi(s)
			require.NoError(t, err)
			row = append(row, int32(id))
		}
		ids = append(ids, row)
	}
	if len(texts) == len(ids)+1 {
		texts = texts[:len(ids)]
	}
	require.Len(t, ids, len(texts))
	return texts, ids
}
