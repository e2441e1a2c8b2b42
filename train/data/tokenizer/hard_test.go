package tokenizer_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// hard is testdata/hard.json.gz: for each text and way of splitting it the
// beginning of the digest of its tokens.
type hard struct {
	Texts [][]byte
	Sets  map[string]map[string][]string
}

func readHard(t testing.TB) hard {
	t.Helper()
	var h hard
	require.NoError(t, json.Unmarshal(unpack(t, "testdata/hard.json.gz"), &h))
	require.Greater(t, len(h.Texts), 350)
	return h
}

func digest(ids []int32) string {
	var list []byte
	for i, id := range ids {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, int64(id), 10)
	}
	return short(list)
}

func short(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:8]
}

// check compares the tokens of all texts with what a peer made of them.
func (h hard) check(t *testing.T, want []string, encode func(text string) []int32) {
	t.Helper()
	require.Len(t, want, len(h.Texts))
	for i, text := range h.Texts {
		require.Equal(t, want[i], digest(encode(string(text))), "text %d: %q: %v", i, text, encode(string(text)))
	}
}

// SentencePiece's own tokens, and in parts the same.
func TestHardSentencePiece(t *testing.T) {
	h := readHard(t)
	for _, name := range []string{"nfkc", "probable", "rules", "joined-rules", "mistral-v3"} {
		t.Run(name, func(t *testing.T) {
			tok := open(t, name)
			h.check(t, h.Sets[name]["spm"], tok.Encode)
			for i, text := range h.Texts {
				h.properties(t, tok, string(text))
				decoded := tok.Decode(tok.Encode(string(text)))
				require.Equal(t, h.Sets[name]["spm decoded"][i], short([]byte(decoded)), "%q: %q", text, decoded)
			}
		})
	}
}

// properties checks what holds for any text: where tokens end in it, and that it
// does not matter in which parts it comes.
func (hard) properties(t *testing.T, tok *tokenizer.Tokenizer, text string) {
	t.Helper()
	want := tok.Encode(text)
	ids, ends := tok.EncodeOffsets(text)
	require.Equal(t, want, ids, "%q", text)
	last := 0
	for _, end := range ends {
		require.True(t, end >= last && end <= len(text), "%q: %v", text, ends)
		last = end
	}
	parts := []int32{}
	require.NoError(t, tok.EncodeReader(iotest.OneByteReader(strings.NewReader(text)), func(ids []int32) error {
		parts = append(parts, ids...)
		return nil
	}))
	require.Equal(t, want, parts, "%q", text)
	d := tok.NewDecoder()
	var b strings.Builder
	for _, id := range want {
		b.WriteString(d.Next(id))
	}
	b.WriteString(d.Flush())
	require.Equal(t, tok.Decode(want), b.String(), "%q", text)
	require.True(t, utf8.ValidString(b.String()))
}

// The tokenizer.json that is written for a model of probabilities is the one that
// transformers makes of it.
func TestHardConverted(t *testing.T) {
	h := readHard(t)
	for _, name := range []string{"nfkc", "probable", "rules"} {
		t.Run(name, func(t *testing.T) {
			files, err := openVocab(t, name).Files()
			require.NoError(t, err)
			spec, _, err := bpe.Parse(files["tokenizer.json"])
			require.NoError(t, err)
			tok, err := bpe.New(spec)
			require.NoError(t, err)
			h.check(t, h.Sets[name]["hf"], func(text string) []int32 { return tok.Encode(text, true) })
			for i, text := range h.Texts {
				decoded := tok.Decode(tok.Encode(string(text), true), false)
				require.Equal(t, h.Sets[name]["hf decoded"][i], short([]byte(decoded)), "%q: %q", text, decoded)
				ids, ends := tok.EncodeOffsets(string(text), true)
				require.Equal(t, tok.Encode(string(text), true), ids)
				require.Len(t, ends, len(ids))
			}
		})
	}
}

// openJSON opens a directory with nothing but a tokenizer.json.
func openJSON(t testing.TB, data []byte) *tokenizer.Tokenizer {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o644))
	v, err := vocab.OpenDir(dir, vocab.Options{TextOnly: true, Rules: arch.LlamaTokenizers})
	require.NoError(t, err)
	tok, err := tokenizer.New(v)
	require.NoError(t, err)
	return tok
}

func TestHardWordPiece(t *testing.T) {
	h := readHard(t)
	spec, _, err := bpe.Parse(unpack(t, "testdata/wordpiece.json.gz"))
	require.NoError(t, err)
	tok, err := bpe.New(spec)
	require.NoError(t, err)
	h.check(t, h.Sets["wordpiece"]["hf"], func(text string) []int32 { return tok.Encode(text, true) })
	for i, text := range h.Texts {
		decoded := tok.Decode(tok.Encode(string(text), true), false)
		require.Equal(t, h.Sets["wordpiece"]["hf decoded"][i], short([]byte(decoded)), "%q: %q", text, decoded)
	}
	require.Equal(t, []int32{2, 3}, tok.Process(nil))
	whole := openJSON(t, unpack(t, "testdata/wordpiece.json.gz"))
	require.Equal(t, vocab.WordPiece, whole.Vocab().Kind)
	h.check(t, h.Sets["wordpiece"]["hf"], func(text string) []int32 {
		return whole.EncodeWith(text, tokenizer.Options{ParseSpecial: true})
	})
	for _, text := range h.Texts {
		h.properties(t, whole, string(text))
	}
	again, err := spec.Marshal()
	require.NoError(t, err)
	other, _, err := bpe.Parse(again)
	require.NoError(t, err)
	require.Equal(t, spec.Model, other.Model)
	require.Equal(t, spec.Normalizer, other.Normalizer)
}

// A tiktoken file alone in a directory.
func TestHardTikToken(t *testing.T) {
	h := readHard(t)
	data, err := os.ReadFile("testdata/tiktoken.model")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.model"), data, 0o644))
	v, err := vocab.OpenDir(dir, vocab.Options{Rules: arch.LlamaTokenizers, TextOnly: true})
	require.NoError(t, err)
	tok, err := tokenizer.New(v)
	require.NoError(t, err)
	h.check(t, h.Sets["tiktoken"]["hf"], tok.Encode)
	for _, text := range h.Texts {
		h.properties(t, tok, string(text))
		require.Equal(t, strings.ToValidUTF8(string(text), "\uFFFD") == string(text), tok.Decode(tok.Encode(string(text))) == string(text), "%q", text)
	}
}

func TestHardGPT2(t *testing.T) {
	h := readHard(t)
	tok, err := tokenizer.New(gpt2(t))
	require.NoError(t, err)
	h.check(t, h.Sets["gpt-2"]["hf"], func(text string) []int32 { return tok.EncodeWith(text, tokenizer.Options{ParseSpecial: false}) })
	for _, text := range h.Texts {
		h.properties(t, tok, string(text))
		require.Equal(t, strings.ToValidUTF8(string(text), "\uFFFD") == string(text), tok.Decode(tok.Encode(string(text))) == string(text), "%q", text)
	}
}

// What holds for the texts of the corpus holds for any.
func FuzzHard(f *testing.F) {
	var toks []*tokenizer.Tokenizer
	for _, name := range []string{"nfkc", "probable", "rules", "joined-rules"} {
		tok := open(f, name)
		toks = append(toks, tok)
		files, err := tok.Vocab().Files()
		require.NoError(f, err)
		if data := files["tokenizer.json"]; data != nil {
			toks = append(toks, openJSON(f, data))
		}
	}
	toks = append(toks, openJSON(f, unpack(f, "testdata/wordpiece.json.gz")))
	h := readHard(f)
	for i, text := range h.Texts {
		if i%8 == 0 {
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range toks {
			h.properties(t, tok, text)
		}
	})
}

// BenchmarkKinds encodes English text by every way of splitting it.
func BenchmarkKinds(b *testing.B) {
	text := english(b)
	tik := b.TempDir()
	data, err := os.ReadFile("testdata/tiktoken.model")
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(filepath.Join(tik, "tokenizer.model"), data, 0o644))
	v, err := vocab.OpenDir(tik, vocab.Options{TextOnly: true})
	require.NoError(b, err)
	files, err := openVocab(b, "nfkc").Files()
	require.NoError(b, err)
	for name, make := range map[string]func() (*tokenizer.Tokenizer, error){
		"bytes/gpt-2":        func() (*tokenizer.Tokenizer, error) { return tokenizer.New(gpt2(b)) },
		"bytes/tiktoken":     func() (*tokenizer.Tokenizer, error) { return tokenizer.New(v) },
		"joined/mistral":     func() (*tokenizer.Tokenizer, error) { return open(b, "mistral-v3"), nil },
		"probable/nfkc":      func() (*tokenizer.Tokenizer, error) { return open(b, "nfkc"), nil },
		"probable/nfkc json": func() (*tokenizer.Tokenizer, error) { return openJSON(b, files["tokenizer.json"]), nil },
		"longest/wordpiece":  func() (*tokenizer.Tokenizer, error) { return openJSON(b, unpack(b, "testdata/wordpiece.json.gz")), nil },
	} {
		b.Run(name, func(b *testing.B) {
			tok, err := make()
			require.NoError(b, err)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text)
			}
		})
	}
}
