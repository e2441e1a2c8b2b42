package tokenizer_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// directory is a model directory of testdata/transformers.json.gz.
type directory struct {
	Name, Arch string
	Files      map[string]json.RawMessage
	Texts      []string
	Rows       []struct {
		IDs, Full []int32
		Decoded   *string
	}
}

func unpack(t testing.TB, path string) []byte {
	t.Helper()
	packed, err := os.ReadFile(path)
	require.NoError(t, err)
	r, err := gzip.NewReader(bytes.NewReader(packed))
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return data
}

func directories(t testing.TB) []directory {
	t.Helper()
	var file struct {
		Texts       []string
		Directories []directory
	}
	require.NoError(t, json.Unmarshal(unpack(t, "testdata/transformers.json.gz"), &file))
	require.Len(t, file.Directories, 8)
	for i := range file.Directories {
		d := &file.Directories[i]
		d.Texts = slices.Concat(file.Texts, d.Texts)
		require.Len(t, d.Rows, len(d.Texts))
		require.Greater(t, len(d.Texts), 130)
	}
	return file.Directories
}

// open reads the directory's tokenizer.
func (d *directory) open(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	dir := "../../../testdata/tokenizers/" + d.Name
	if len(d.Files) > 0 {
		dir = t.TempDir()
		for name, text := range d.Files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
		}
	}
	if len(d.Files) > 0 && d.Name != "tokenizer.json alone" {
		model, err := os.ReadFile("testdata/stories260K.model")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.model"), model, 0o644))
	}
	rules := map[string]arch.Tokenizers{
		"gpt2": arch.ByteLevelTokenizers, "llama": arch.LlamaTokenizers, "mistral": arch.LlamaTokenizers, "qwen2": arch.QwenTokenizers,
		"gemma2": arch.Gemma2Tokenizers, "phi3": arch.Phi3Tokenizers,
	}
	v, err := vocab.OpenDir(dir, vocab.Options{Rules: rules[d.Arch]})
	require.NoError(t, err)
	tok, err := tokenizer.New(v)
	require.NoError(t, err)
	return tok
}

func TestDirectoriesAreLikeTransformers(t *testing.T) {
	for _, d := range directories(t) {
		t.Run(d.Name, func(t *testing.T) {
			tok := d.open(t)
			v := tok.Vocab()
			for i, text := range d.Texts {
				row := d.Rows[i]
				got := tok.EncodeWith(text, tokenizer.Options{ParseSpecial: true})
				if d.Name == "mistral" && (strings.HasPrefix(text, " ") || strings.HasPrefix(text, vocab.Space)) {
					continue // SentencePiece puts a space in front of one, transformers does not
				}
				require.Equal(t, row.IDs, got, "%q", text)
				if row.Full != nil {
					require.Equal(t, row.Full, tok.EncodeWith(text, tokenizer.Options{ParseSpecial: true, BOS: v.AddBOS, EOS: v.AddEOS}), "%q", text)
				}
				decoded := text
				if row.Decoded != nil {
					decoded = *row.Decoded
				}
				if v.Spec != nil || !slices.Contains(row.IDs, v.UNK) { // which SentencePiece has a text for
					require.Equal(t, decoded, tok.Decode(row.IDs), "%q", text)
				}
				ids, ends := tok.EncodeOffsets(text)
				require.Equal(t, tok.Encode(text), ids, "%q", text)
				require.Len(t, ends, len(ids))
				require.True(t, slices.IsSorted(ends))
				if n := len(ends); n > 0 && !strings.ContainsAny(text, "[<") { // tokens that take white space along
					require.Equal(t, len(text), ends[n-1], "%q", text)
				}
			}
		})
	}
}

func TestReadersOfDirectories(t *testing.T) {
	for _, d := range directories(t) {
		t.Run(d.Name, func(t *testing.T) {
			tok := d.open(t)
			text := strings.Repeat(strings.Join(d.Texts, "\nLine "), 12)
			want := tok.Encode(text)
			for kind, r := range map[string]io.Reader{
				"at once":   strings.NewReader(text),
				"by halves": iotest.HalfReader(strings.NewReader(text)),
				"with EOF":  iotest.DataErrReader(strings.NewReader(text)),
			} {
				var got []int32
				parts := 0
				require.NoError(t, tok.EncodeReader(r, func(ids []int32) error {
					got = append(got, ids...)
					parts++
					return nil
				}))
				require.True(t, slices.Equal(want, got), "%s: %d and %d tokens", kind, len(want), len(got))
				if d.Name != "tokenizer.json alone" { // which changes the beginning of a text
					require.Greater(t, parts, 1)
				}
			}
		})
	}
}

// By the scores that GGUF gets for a tokenizer.json with byte fallback,
// SentencePiece's algorithm, which is llama.cpp's, makes the tokens of transformers.
func TestScoresOfMerges(t *testing.T) {
	for _, d := range directories(t) {
		if d.Name != "tokenizer.json alone" {
			continue
		}
		words := d.open(t)
		v, err := vocab.FromGGUF(words.Vocab().GGUF())
		require.NoError(t, err)
		require.Nil(t, v.Spec)
		tok, err := tokenizer.New(v)
		require.NoError(t, err)
		equal := 0
		for _, text := range append(d.Texts, english(t)) {
			if strings.Contains(text, "Word") || strings.Contains(text, "name") || strings.Contains(text, "<|im_end|>") {
				continue // added tokens: GGUF has no flags for some, and the last is not special there
			}
			require.Equal(t, words.Encode(text), tok.Encode(text), "%q", text)
			equal++
		}
		require.Greater(t, equal, 100)
	}
}

// The same of random vocabularies, whose tokens are made of others in every way
// that there is.
func TestScoresOfRandomMerges(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for range 200 {
		v := randomMerges(t, r)
		words, err := tokenizer.New(v)
		require.NoError(t, err)
		again, err := vocab.FromGGUF(v.GGUF())
		require.NoError(t, err)
		tok, err := tokenizer.New(again)
		require.NoError(t, err)
		for range 20 {
			var text strings.Builder
			for range 1 + r.IntN(30) {
				text.WriteByte("abcdefgh"[r.IntN(8)])
			}
			require.Equal(t, words.Encode(text.String()), tok.Encode(text.String()), "%q %v", text.String(), v.Spec.Model.Merges)
		}
	}
}

// randomMerges returns a vocabulary with byte fallback in which no token is part
// of two that overlap: each has every letter at most once.
func randomMerges(t *testing.T, r *rand.Rand) *vocab.Vocab {
	t.Helper()
	ids := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2}
	for b := range 256 {
		ids[fmt.Sprintf("<0x%02X>", b)] = len(ids)
	}
	var tokens []string
	for _, c := range "abcdefgh" {
		tokens = append(tokens, string(c))
	}
	for len(tokens) < 60 {
		text := tokens[r.IntN(len(tokens))] + tokens[r.IntN(len(tokens))]
		letters := map[rune]bool{}
		for _, c := range text {
			letters[c] = true
		}
		if len(letters) == len(text) && !slices.Contains(tokens, text) {
			tokens = append(tokens, text)
		}
	}
	var merges [][2]string
	for i, text := range tokens {
		ids[text] = len(ids)
		for k := 1; k < len(text); k++ {
			if left, right := text[:k], text[k:]; i >= 8 && slices.Contains(tokens, left) && slices.Contains(tokens, right) {
				merges = append(merges, [2]string{left, right})
			}
		}
	}
	file, err := json.Marshal(map[string]any{
		"decoder": map[string]any{"type": "Sequence", "decoders": []any{map[string]any{"type": "ByteFallback"}, map[string]any{"type": "Fuse"}}},
		"model":   map[string]any{"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>", "vocab": ids, "merges": merges},
	})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), file, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(`{"add_prefix_space": false}`), 0o644))
	v, err := vocab.OpenDir(dir, vocab.Options{Rules: arch.LlamaTokenizers})
	require.NoError(t, err)
	require.Empty(t, v.Notes)
	return v
}

// Text without a piece that cannot be written in one part with the rest.
func TestReaderErrorsOfWords(t *testing.T) {
	var alone *tokenizer.Tokenizer
	for _, d := range directories(t) {
		if d.Name == "tokenizer.json alone" {
			alone = d.open(t)
		}
	}
	broken := errors.New("broken")
	none := func([]int32) error { return nil }
	require.ErrorIs(t, alone.EncodeReader(iotest.ErrReader(broken), none), broken)
	require.ErrorIs(t, alone.EncodeReader(strings.NewReader("a"), func([]int32) error { return broken }), broken)
	require.NoError(t, alone.EncodeReader(strings.NewReader(""), func([]int32) error { return broken }))

	// It has a space put in front of the text, so that it cannot be split.
	err := alone.EncodeReader(io.LimitReader(zeros{}, 65<<20), none)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "67108864 bytes of text behind offset 0")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestUnknownPreTokenizer(t *testing.T) {
	v := gpt2(t)
	meta := v.GGUF()
	for i := range meta {
		if meta[i].Key == "tokenizer.ggml.pre" {
			meta[i].Value = "of-2031"
		}
	}
	v, err := vocab.FromGGUF(meta)
	require.NoError(t, err)
	require.Contains(t, v.Notes[0], "of-2031")
	_, err = tokenizer.New(v)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "of-2031")
	require.Contains(t, hint.Of(err), "tokenizer.json")
}

func FuzzDirectories(f *testing.F) {
	f.Add("It's 1234 e\u0301 <|endoftext|>\r\n\n  x", 3)
	f.Add(" <|user|> \u3000\xff</s> [R] [INST]日本\nz", 1)
	var toks []*tokenizer.Tokenizer
	var names []string
	for _, d := range directories(f) {
		toks = append(toks, d.open(f))
		names = append(names, d.Name)
	}
	f.Fuzz(func(t *testing.T, text string, n int) {
		for i, tok := range toks {
			ids, ends := tok.EncodeOffsets(text)
			require.Equal(t, tok.Encode(text), ids)
			require.Len(t, ends, len(ids))
			require.True(t, slices.IsSorted(ends))
			require.True(t, len(ends) == 0 || ends[len(ends)-1] <= len(text))
			var got []int32
			long := strings.Repeat(text+"\n", 1+min(max(n, 0), 50))
			require.NoError(t, tok.EncodeReader(iotest.HalfReader(strings.NewReader(long)), func(ids []int32) error {
				got = append(got, ids...)
				return nil
			}))
			require.True(t, slices.Equal(tok.Encode(long), got))
			special := tok.EncodeWith(text, tokenizer.Options{ParseSpecial: true})
			require.True(t, utf8.ValidString(tok.Decode(special)))
			if (names[i] == "gpt2" || names[i] == "llama3") && utf8.ValidString(text) {
				require.Equal(t, text, tok.Decode(ids))
			}
			d := tok.NewDecoder()
			var parts strings.Builder
			for _, id := range special {
				parts.WriteString(d.Next(id))
			}
			require.Equal(t, tok.Decode(special), parts.String()+d.Flush())
		}
	})
}

func BenchmarkDirectories(b *testing.B) {
	text := english(b)
	for _, d := range directories(b) {
		tok := d.open(b)
		b.Run(d.Name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text)
			}
		})
	}
}

func BenchmarkGPT2(b *testing.B) {
	text := english(b)
	tok, err := tokenizer.New(gpt2(b))
	require.NoError(b, err)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			tok.Encode(text)
		}
	})
	b.Run("offsets", func(b *testing.B) { // without the memory of words
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			tok.EncodeOffsets(text)
		}
	})
	ids := tok.Encode(text)
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			tok.Decode(ids)
		}
	})
}
