package vocab_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// ranks is a tiktoken file of the bytes and some more tokens, n in all.
func ranks(n int) string {
	var b strings.Builder
	line := func(id int, token string) {
		fmt.Fprintf(&b, "%s %d\n", base64.StdEncoding.EncodeToString([]byte(token)), id)
	}
	for i := range 256 {
		line(i, string([]byte{byte(i)}))
	}
	for i, token := range []string{"ab", "bc", "abc", " a", "12", "123"} {
		line(256+i, token)
	}
	for i := 262; i < n; i++ {
		line(i, fmt.Sprintf("%06x", i))
	}
	return b.String()
}

func TestTikToken(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		check func(*testing.T, *vocab.Vocab, *bpe.Tokenizer)
	}{
		"unknown": {map[string]string{"tokenizer.model": ranks(262)}, func(t *testing.T, v *vocab.Vocab, tok *bpe.Tokenizer) {
			require.Len(t, v.Pieces, 262)
			require.Equal(t, []int32{258, 259, 256, 'd'}, tok.Encode("abc a"+"abd", false)) // abc, " a" before "ab"
			require.Contains(t, v.Notes[0], "262 tokens, as none that is known")
			require.Equal(t, vocab.None, v.BOS)
		}},
		"listed": {map[string]string{
			"tiktoken.model":        ranks(262),
			"tokenizer_config.json": `{"additional_special_tokens": ["<|z|>", {"content": "<|a|>"}], "eos_token": "<|a|>"}`,
		}, func(t *testing.T, v *vocab.Vocab, tok *bpe.Tokenizer) {
			require.Equal(t, []int32{262, 263}, tok.Encode("<|z|><|a|>", true))
			require.Equal(t, int32(263), v.EOS)
		}},
		"decoder": {map[string]string{
			"tokenizer.model":       ranks(262),
			"tokenizer_config.json": `{"added_tokens_decoder": {"262": {"content": "<|z|>", "special": true}}, "additional_special_tokens": ["<|z|>"]}`,
		}, func(t *testing.T, v *vocab.Vocab, tok *bpe.Tokenizer) {
			require.Equal(t, []int32{262}, tok.Encode("<|z|>", true))
			require.Len(t, v.Pieces, 263)
		}},
		"Llama 3": {map[string]string{"tokenizer.model": ranks(128000), "config.json": `{}`}, func(t *testing.T, v *vocab.Vocab, tok *bpe.Tokenizer) {
			require.Len(t, v.Pieces, 128256)
			require.Equal(t, []int32{128000, 128001}, []int32{v.BOS, v.EOS})
			require.True(t, v.AddBOS)
			require.Equal(t, []int32{128000, 128006, 128009, 128004, 128255}, tok.Encode("<|begin_of_text|><|start_header_id|><|eot_id|><|reserved_special_token_2|><|reserved_special_token_250|>", true))
			require.Equal(t, []int32{128000, '1'}, tok.Process(tok.Encode("1", true)))
			require.Equal(t, []int32{261, '4'}, tok.Encode("1234", true))
		}},
		"Llama 3.1": {map[string]string{"tokenizer.model": ranks(128000), "config.json": `{"rope_scaling": {"rope_type": "llama3"}}`}, func(t *testing.T, v *vocab.Vocab, tok *bpe.Tokenizer) {
			require.Len(t, v.Pieces, 128256)
			require.Equal(t, []int32{128004, 128008, 128009, 128010, 128005, 128011, 128255},
				tok.Encode("<|finetune_right_pad_id|><|eom_id|><|eot_id|><|python_tag|><|reserved_special_token_2|><|reserved_special_token_3|><|reserved_special_token_247|>", true))
		}},
		"Qwen": {map[string]string{"qwen.tiktoken": ranks(151643), "config.json": `{"model_type": "qwen"}`}, func(t *testing.T, v *vocab.Vocab, tok *bpe.Tokenizer) {
			require.Len(t, v.Pieces, 151851)
			require.Equal(t, []int32{151643, 151644, 151645, 151646, 151850}, tok.Encode("<|endoftext|><|im_start|><|im_end|><|extra_0|><|extra_204|>", true))
			require.Equal(t, int32(151643), v.EOS)
			require.Equal(t, []int32{'1', '2', '3'}, tok.Encode("123", true)) // each digit alone
			require.Equal(t, []int32{0xc3, 0xa9}, tok.Encode("e\u0301", true))
		}},
		"cl100k": {map[string]string{"x.tiktoken": ranks(100256)}, func(t *testing.T, v *vocab.Vocab, tok *bpe.Tokenizer) {
			require.Len(t, v.Pieces, 100277)
			require.Equal(t, []int32{100257, 100276}, tok.Encode("<|endoftext|><|endofprompt|>", true))
			require.Equal(t, vocab.Unused, v.Pieces[100256].Type)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				write(t, dir, file, text)
			}
			v, err := vocab.OpenDir(dir, vocab.Options{TextOnly: true, Rules: arch.LlamaTokenizers})
			require.NoError(t, err)
			require.Equal(t, vocab.BPE, v.Kind)
			tok, err := bpe.New(v.Spec)
			require.NoError(t, err)
			c.check(t, v, tok)
		})
	}
}

func TestTikTokenErrors(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		is   error
		says string
	}{
		"base 64":  {"YQ== 0\nY 1\n", tensor.ErrMalformed, `tokenizer.model:2: malformed input: want a token in base 64 and its rank, found "Y 1"`},
		"no rank":  {"YQ== 0\nYg==\n", tensor.ErrMalformed, "tokenizer.model:2"},
		"negative": {"YQ== 0\nYg== -1\n", tensor.ErrMalformed, "tokenizer.model:2"},
		"large":    {"YQ== 0\nYg== 16777216\n", tensor.ErrMalformed, "rank 16777216; at most"},
		"token":    {"YQ== 0\nYQ== 1\n", tensor.ErrMalformed, "the token of rank 0 is that of rank 1 too"},
		"rank":     {"YQ== 0\nYg== 0\n", tensor.ErrMalformed, "a second token of rank 0"},
		"empty":    {"YQ== 0\n 1\n", tensor.ErrMalformed, "tokenizer.model:2"},
		"long":     {"YQ== 0\n" + base64.StdEncoding.EncodeToString(make([]byte, 513)) + " 1\n", tensor.ErrUnsupported, "a token of 513 bytes"},
		"holes":    {"YQ== 0\nYg== 16777215\n", tensor.ErrMalformed, "2 tokens in a vocabulary of 16777216"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "tokenizer.model", c.text)
			_, err := vocab.OpenDir(dir, vocab.Options{TextOnly: true})
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// A tokenizer.json whose model is not BPE is there to split text, and is not written
// to GGUF.
func TestOtherModels(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		kind  vocab.Kind
		types []vocab.Type
	}{
		"unigram": {`{"added_tokens": [{"id": 1, "content": "</s>", "special": true}, {"id": 4, "content": "<x>"}],
			"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [], "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
			"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["</s>", 0], ["▁", -2], ["a", -1.5]]}}`, vocab.Unigram,
			[]vocab.Type{vocab.Unknown, vocab.Control, vocab.Normal, vocab.Normal, vocab.UserDefined}},
		"word piece": {`{"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1, "##b": 2}}}`, vocab.WordPiece,
			[]vocab.Type{vocab.Unknown, vocab.Normal, vocab.Normal, vocab.Control}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "tokenizer.json", c.text)
			write(t, dir, "tokenizer_config.json", `{"eos_token": "</s>"}`)
			o := vocab.Options{Rules: arch.LlamaTokenizers}
			_, err := vocab.OpenDir(dir, o)
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			require.ErrorContains(t, err, "for GGUF")
			o.TextOnly = true
			v, err := vocab.OpenDir(dir, o)
			require.NoError(t, err)
			require.Equal(t, c.kind, v.Kind)
			for i, p := range v.Pieces {
				require.Equal(t, c.types[i], p.Type, p.Text)
			}
			require.Equal(t, c.kind == vocab.Unigram, v.AddEOS)
			require.False(t, v.AddBOS)
			o.Size = 2
			_, err = vocab.OpenDir(dir, o)
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			require.ErrorContains(t, err, "a vocabulary of 2")
		})
	}
}

// What GGUF says of a model of probabilities is what its SentencePiece model says.
func TestUnigramMetadata(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "tokenizer.model", string(read(t, "../../train/data/tokenizer/testdata/rules.model")))
	v, err := vocab.OpenDir(dir, vocab.Options{Rules: arch.LlamaTokenizers})
	require.NoError(t, err)
	require.Equal(t, vocab.Unigram, v.Kind)
	require.NotEmpty(t, v.Charsmap)
	require.Contains(t, v.Notes[0], `"t5"`)
	meta := v.GGUF()
	again, err := vocab.FromGGUF(meta)
	require.NoError(t, err)
	require.Equal(t, meta, again.GGUF())
	require.Equal(t, v.Charsmap, again.Charsmap)
	require.Equal(t, []any{v.BOS, v.EOS, v.UNK, v.AddBOS, v.AddEOS, v.AddSpacePrefix, v.RemoveExtraWhitespaces},
		[]any{again.BOS, again.EOS, again.UNK, again.AddBOS, again.AddEOS, again.AddSpacePrefix, again.RemoveExtraWhitespaces})
	require.Empty(t, again.Lost())

	// And that of the files that are written of it.
	files, err := again.Files()
	require.NoError(t, err)
	dir = t.TempDir()
	for name, text := range files {
		write(t, dir, name, string(text))
	}
	third, err := vocab.OpenDir(dir, vocab.Options{Rules: arch.LlamaTokenizers})
	require.NoError(t, err)
	padded := append(meta[:len(meta):len(meta)], tensor.KV{Key: "tokenizer.ggml.padding_token_id", Value: uint32(0)}) // as llama.cpp has it
	require.ElementsMatch(t, padded, third.GGUF())

	for name, value := range map[string]any{"text": "x", "short": []uint8{1}, "no NUL": []int8{4, 0, 0, 0, 1, 1, 1, 1, 65}} {
		bad := meta
		bad = append(tensor.Meta(nil), bad...)
		for i := range bad {
			if bad[i].Key == "tokenizer.ggml.precompiled_charsmap" {
				bad[i].Value = value
			}
		}
		_, err := vocab.FromGGUF(bad)
		require.ErrorIs(t, err, tensor.ErrMalformed, name)
	}
}
