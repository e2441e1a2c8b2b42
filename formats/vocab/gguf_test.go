package vocab_test

import (
	"testing"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// stories260K.gguf, of an older converter, has its keys in another order, no
// pre, and -1 for tokens that do not exist.
func TestOldGGUF(t *testing.T) {
	model, err := vocab.ParseSentencePiece(read(t, storiesModel))
	require.NoError(t, err)
	meta := model.GGUF()
	get := func(key string) tensor.KV {
		value, ok := meta.Get("tokenizer.ggml." + key)
		require.True(t, ok, key)
		return tensor.KV{Key: "tokenizer.ggml." + key, Value: value}
	}
	none := uint32(4294967295)
	old := tensor.Meta{
		get("tokens"), get("scores"), get("token_type"), get("model"),
		{Key: "tokenizer.ggml.unknown_token_id", Value: uint32(0)},
		{Key: "tokenizer.ggml.bos_token_id", Value: uint32(1)},
		{Key: "tokenizer.ggml.eos_token_id", Value: uint32(2)},
		{Key: "tokenizer.ggml.seperator_token_id", Value: none},
		{Key: "tokenizer.ggml.padding_token_id", Value: none},
	}
	v, err := vocab.FromGGUF(old)
	require.NoError(t, err)
	require.Equal(t, []int32{1, 2, 0, vocab.None, vocab.None}, []int32{v.BOS, v.EOS, v.UNK, v.SEP, v.PAD})
	require.True(t, v.AddBOS)
	require.False(t, v.AddEOS)
	require.True(t, v.AddSpacePrefix)
	require.Equal(t, model.Pieces, v.Pieces)

	old[7].Value, old[8].Value = uint32(5), int32(-1)
	v, err = vocab.FromGGUF(old)
	require.NoError(t, err)
	require.Equal(t, int32(5), v.SEP)
	require.Equal(t, vocab.None, v.PAD)
}

func TestFromGGUFErrors(t *testing.T) {
	model, err := vocab.ParseSentencePiece(read(t, storiesModel))
	require.NoError(t, err)
	const ggml = "tokenizer.ggml."
	set := func(key string, value any) func(tensor.Meta) tensor.Meta {
		return func(m tensor.Meta) tensor.Meta {
			return append(without(m, key), tensor.KV{Key: key, Value: value})
		}
	}
	drop := func(key string) func(tensor.Meta) tensor.Meta {
		return func(m tensor.Meta) tensor.Meta { return without(m, key) }
	}
	edit := func(key string, change func(any)) func(tensor.Meta) tensor.Meta {
		return func(m tensor.Meta) tensor.Meta {
			value, _ := m.Get(key)
			change(value)
			return m
		}
	}
	for name, c := range map[string]struct {
		change func(tensor.Meta) tensor.Meta
		is     error
		says   string
	}{
		"no model":        {drop(ggml + "model"), tensor.ErrMalformed, "no tokenizer.ggml.model"},
		"model type":      {set(ggml+"model", uint32(1)), tensor.ErrMalformed, "tokenizer.ggml.model is a uint32; want string"},
		"bert":            {set(ggml+"model", "bert"), tensor.ErrUnsupported, `tokenizer.ggml.model is "bert"`},
		"no merges":       {set(ggml+"model", "gpt2"), tensor.ErrMalformed, "no tokenizer.ggml.merges"},
		"t5":              {set(ggml+"precompiled_charsmap", []uint8{1}), tensor.ErrUnsupported, "precompiled_charsmap"},
		"no tokens":       {drop(ggml + "tokens"), tensor.ErrMalformed, "no tokenizer.ggml.tokens"},
		"no scores":       {drop(ggml + "scores"), tensor.ErrMalformed, "no tokenizer.ggml.scores"},
		"no types":        {drop(ggml + "token_type"), tensor.ErrMalformed, "no tokenizer.ggml.token_type"},
		"empty":           {set(ggml+"tokens", []string{}), tensor.ErrMalformed, "0 tokenizer.ggml.tokens"},
		"few scores":      {set(ggml+"scores", []float32{1}), tensor.ErrMalformed, "512 tokenizer.ggml.tokens with 1 scores and 512 token_types"},
		"types as string": {set(ggml+"token_type", []string{"a"}), tensor.ErrMalformed, "want []int32"},
		"type 0":          {edit(ggml+"token_type", func(v any) { v.([]int32)[300] = 0 }), tensor.ErrMalformed, "piece 300"},
		"type -1":         {edit(ggml+"token_type", func(v any) { v.([]int32)[300] = -1 }), tensor.ErrMalformed, "piece 300"},
		"type 7":          {edit(ggml+"token_type", func(v any) { v.([]int32)[300] = 7 }), tensor.ErrMalformed, "has type 7"},
		"same text":       {edit(ggml+"tokens", func(v any) { v.([]string)[300] = v.([]string)[299] }), tensor.ErrMalformed, "is already piece 299"},
		"not UTF-8":       {edit(ggml+"tokens", func(v any) { v.([]string)[300] = "\xff" }), tensor.ErrMalformed, "piece 300"},
		"byte missing":    {edit(ggml+"token_type", func(v any) { v.([]int32)[4] = 1 }), tensor.ErrMalformed, "255 byte pieces"},
		"byte misspelt":   {edit(ggml+"tokens", func(v any) { v.([]string)[4] = "<0xzz>" }), tensor.ErrMalformed, `byte piece "<0xzz>"`},
		"two unknown": {func(m tensor.Meta) tensor.Meta {
			types, _ := m.Get(ggml + "token_type")
			types.([]int32)[1] = 2
			return without(m, ggml+"unknown_token_id")
		}, tensor.ErrMalformed, "second unknown"},
		"bos too big":    {set(ggml+"bos_token_id", uint32(512)), tensor.ErrMalformed, "bos_token_id is 512 in a vocabulary of 512"},
		"bos as string":  {set(ggml+"bos_token_id", "1"), tensor.ErrMalformed, "bos_token_id is a string"},
		"add_bos":        {set(ggml+"add_bos_token", int8(1)), tensor.ErrMalformed, "add_bos_token is a int8; want bool"},
		"template":       {set("tokenizer.chat_template", true), tensor.ErrMalformed, "chat_template is a bool"},
		"named template": {set("tokenizer.chat_templates", []string{"rag"}), tensor.ErrMalformed, "no tokenizer.chat_template.rag"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := vocab.FromGGUF(c.change(model.GGUF()))
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Nil(t, v)
		})
	}
}

func TestEmptyPieceInGGUF(t *testing.T) {
	model, err := vocab.ParseSentencePiece(read(t, storiesModel))
	require.NoError(t, err)
	meta := model.GGUF()
	tokens, _ := meta.Get("tokenizer.ggml.tokens")
	tokens.([]string)[300] = ""
	v, err := vocab.FromGGUF(meta)
	require.NoError(t, err)
	require.Equal(t, "[EMPTY_300]", v.Pieces[300].Text)
}

// An old converter wrote the holes of Phi 3's vocabulary as unknown tokens.
func TestHolesThatAreUnknown(t *testing.T) {
	model, err := vocab.ParseSentencePiece(read(t, storiesModel))
	require.NoError(t, err)
	meta := model.GGUF()
	tokens, _ := meta.Get("tokenizer.ggml.tokens")
	types, _ := meta.Get("tokenizer.ggml.token_type")
	for _, typ := range []int32{2, 3} {
		tokens.([]string)[300], types.([]int32)[300], types.([]int32)[0] = "[PAD300]", 2, typ
		v, err := vocab.FromGGUF(meta)
		require.NoError(t, err)
		require.Equal(t, []vocab.Type{vocab.Unknown, vocab.Unused}, []vocab.Type{v.Pieces[0].Type, v.Pieces[300].Type})
		sameMeta(t, meta, v.GGUF())
	}
}
