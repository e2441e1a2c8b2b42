package vocab_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
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

// variant is one directory of testdata/converter.json and the tokenizer.* keys
// that llama.cpp's converter made of it.
type variant struct {
	Files map[string]json.RawMessage
	Keys  [][3]json.RawMessage
}

func variants(t testing.TB) map[string]variant {
	t.Helper()
	var raw map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(read(t, "testdata/converter.json"), &raw))
	delete(raw, "made_by")
	out := map[string]variant{}
	for name, text := range raw {
		var v variant
		require.NoError(t, json.Unmarshal(text, &v))
		out[name] = v
	}
	require.Len(t, out, 4)
	return out
}

// dir writes the variant's directory.
func (v variant) dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "tokenizer.model", string(read(t, storiesModel)))
	for name, text := range v.Files {
		write(t, dir, name, string(text))
	}
	return dir
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

// meta is what the converter wrote, in Go's types.
func (v variant) meta(t testing.TB) tensor.Meta {
	t.Helper()
	var m tensor.Meta
	for _, kv := range v.Keys {
		var key, typ string
		require.NoError(t, json.Unmarshal(kv[0], &key))
		require.NoError(t, json.Unmarshal(kv[1], &typ))
		var value any
		switch typ {
		case "STRING":
			value = decode[string](t, kv[2])
		case "BOOL":
			value = decode[bool](t, kv[2])
		case "UINT32":
			value = decode[uint32](t, kv[2])
		case "ARRAY STRING":
			value = decode[[]string](t, kv[2])
		case "ARRAY FLOAT32":
			value = decode[[]float32](t, kv[2])
		case "ARRAY INT32":
			value = decode[[]int32](t, kv[2])
		default:
			t.Fatalf("%s has type %s", key, typ)
		}
		m = append(m, tensor.KV{Key: key, Value: value})
	}
	return m
}

func decode[T any](t testing.TB, text []byte) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}

// same is require.Equal with a failure that can be read.
func same(t testing.TB, want, got *vocab.Vocab) {
	t.Helper()
	require.Len(t, got.Pieces, len(want.Pieces))
	for i, p := range want.Pieces {
		require.Equal(t, p, got.Pieces[i], i)
	}
	a, b := *want, *got
	a.Pieces, b.Pieces = nil, nil
	require.Equal(t, a, b)
}

func without(m tensor.Meta, key string) tensor.Meta {
	var out tensor.Meta
	for _, kv := range m {
		if kv.Key != key {
			out = append(out, kv)
		}
	}
	return out
}

func TestGGUFIsWhatTheConverterWrites(t *testing.T) {
	for name, c := range variants(t) {
		t.Run(name, func(t *testing.T) {
			size := 512
			if name == "added" {
				size = 524
			}
			v, err := vocab.OpenDir(c.dir(t), size)
			require.NoError(t, err)
			want := c.meta(t)
			switch name {
			case "tokenizer_json":
				want = without(want, "tokenizer.ggml.add_sep_token")
			case "bare":
				want = append(want,
					tensor.KV{Key: "tokenizer.ggml.add_bos_token", Value: true},
					tensor.KV{Key: "tokenizer.ggml.add_eos_token", Value: false})
			}
			require.Equal(t, want, v.GGUF())
			for _, kv := range v.GGUF() {
				require.True(t, vocab.IsGGUFKey(kv.Key), kv.Key)
			}
		})
	}
}

func TestFromGGUFAndBack(t *testing.T) {
	for name, c := range variants(t) {
		t.Run(name, func(t *testing.T) {
			v, err := vocab.OpenDir(c.dir(t), 0)
			require.NoError(t, err)
			again, err := vocab.FromGGUF(v.GGUF())
			require.NoError(t, err)
			require.Equal(t, v.GGUF(), again.GGUF())
			require.True(t, again.Legacy)
			again.Legacy = v.Legacy
			if name == "added" {
				require.Equal(t, "tool_use", again.ChatTemplates[0].Name)
				again.ChatTemplates[0].Name = "tool use"
			}
			same(t, v, again)
		})
	}
}

func TestFilesOfGGUF(t *testing.T) {
	for name, c := range variants(t) {
		t.Run(name, func(t *testing.T) {
			v, err := vocab.FromGGUF(c.meta(t))
			require.NoError(t, err)
			files, err := v.Files()
			require.NoError(t, err)
			dir := t.TempDir()
			for name, data := range files {
				write(t, dir, name, string(data))
			}
			if name == "tokenizer_json" || name == "added" {
				write(t, dir, "tokenizer.json", "{}") // <unk> is declared there
			}
			again, err := vocab.OpenDir(dir, len(v.Pieces))
			require.NoError(t, err)
			if name == "added" {
				// The converter keeps the ▁ of added_tokens.json, not that of
				// added_tokens_decoder.
				require.Equal(t, "▁▁two", v.Pieces[513].Text)
				v.Pieces[513].Text = "  two"
			}
			same(t, v, again)
		})
	}
}

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
		"gpt2":            {set(ggml+"model", "gpt2"), tensor.ErrUnsupported, `"gpt2"`},
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
		"two unknown":     {edit(ggml+"token_type", func(v any) { v.([]int32)[1] = 2 }), tensor.ErrMalformed, "second unknown"},
		"bos too big":     {set(ggml+"bos_token_id", uint32(512)), tensor.ErrMalformed, "bos_token_id is 512 in a vocabulary of 512"},
		"bos as string":   {set(ggml+"bos_token_id", "1"), tensor.ErrMalformed, "bos_token_id is a string"},
		"add_bos":         {set(ggml+"add_bos_token", int8(1)), tensor.ErrMalformed, "add_bos_token is a int8; want bool"},
		"template":        {set("tokenizer.chat_template", true), tensor.ErrMalformed, "chat_template is a bool"},
		"named template":  {set("tokenizer.chat_templates", []string{"rag"}), tensor.ErrMalformed, "no tokenizer.chat_template.rag"},
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

func TestOpenDirSettings(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		check func(*testing.T, *vocab.Vocab)
	}{
		"tokenizer.model alone": {nil, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, []int32{1, 2, vocab.None}, []int32{v.BOS, v.EOS, v.PAD})
			require.True(t, v.AddBOS)
			require.False(t, v.AddEOS)
			require.False(t, v.Legacy)
			require.Empty(t, v.ChatTemplate)
		}},
		"objects and null": {map[string]string{
			"tokenizer_config.json": `{"bos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false}, "eos_token": "<s>", "pad_token": null,
				"add_bos_token": false, "add_eos_token": true, "legacy": true, "unknown_key": [{}], "chat_template": null, "add_prefix_space": null}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, []int32{2, 1}, []int32{v.BOS, v.EOS})
			require.False(t, v.AddBOS)
			require.True(t, v.AddEOS)
			require.True(t, v.Legacy)
			require.True(t, v.AddSpacePrefix)
		}},
		"special_tokens_map": {map[string]string{
			"tokenizer_config.json":   `{"eos_token": "</s>"}`,
			"special_tokens_map.json": `{"bos_token": "</s>", "eos_token": "<s>", "pad_token": {"content": "<s>"}}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, []int32{2, 2, 1}, []int32{v.BOS, v.EOS, v.PAD})
		}},
		"ids": {map[string]string{
			"tokenizer_config.json":  `{"pad_token": "<nowhere>", "eos_token": "<nowhere>"}`,
			"config.json":            `{"bos_token_id": 7, "eos_token_id": [9, 8], "pad_token_id": -1}`,
			"generation_config.json": `{"bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 5, "unk_token_id": 512}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, []int32{7, 9, 5, vocab.None}, []int32{v.BOS, v.EOS, v.PAD, v.UNK})
		}},
		"template file": {map[string]string{
			"chat_template.jinja": "one\n", "chat_template.json": `{"chat_template": "no"}`,
			"additional_chat_templates/rag.jinja": "two", "additional_chat_templates/notes.txt": "no",
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, "one\n", v.ChatTemplate)
			require.Equal(t, []vocab.ChatTemplate{{Name: "rag", Template: "two"}}, v.ChatTemplates)
		}},
		"template JSON": {map[string]string{"chat_template.json": `{"chat_template": "three"}`}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, "three", v.ChatTemplate)
		}},
		"template in the configuration": {map[string]string{
			"tokenizer_config.json": `{"chat_template": "four"}`, "chat_template.jinja": "no",
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, "four", v.ChatTemplate)
		}},
		"added without a size": {map[string]string{
			"added_tokens.json":     `{"<pad>": 513, "far": 515, "farther": 16000000}`,
			"tokenizer_config.json": `{"added_tokens_decoder": {"512": {"content": "word▁word"}, "3": {"content": "<0x00>"}}}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, []vocab.Piece{
				{Text: "word word", Score: -1000, Type: vocab.UserDefined, Added: true},
				{Text: "<pad>", Score: -1000, Type: vocab.Control, Added: true},
			}, v.Pieces[512:])
		}},
		"white space beside a special token": {map[string]string{
			"tokenizer_config.json": `{"added_tokens_decoder": {"300": {"content": "<|x|>", "special": true, "lstrip": true, "rstrip": true}}}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.True(t, v.Pieces[300].LStrip && v.Pieces[300].RStrip)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := variant{}.dir(t)
			for file, text := range c.files {
				write(t, dir, file, text)
			}
			v, err := vocab.OpenDir(dir, 0)
			require.NoError(t, err)
			c.check(t, v)
		})
	}
}

func TestOpenDirErrors(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		size  int
		is    error
		says  string
	}{
		"nothing":            {map[string]string{"tokenizer.model": ""}, 0, fs.ErrNotExist, "no tokenizer.model"},
		"tokenizer.json":     {map[string]string{"tokenizer.model": "", "tokenizer.json": "{}"}, 0, tensor.ErrUnsupported, "tokenizer.json without tokenizer.model"},
		"broken model":       {map[string]string{"tokenizer.model": "\x0a\xff"}, 0, tensor.ErrMalformed, "tokenizer.model"},
		"wrong model":        {nil, 100, tensor.ErrMalformed, "tokenizer.model has 512 pieces and the model a vocabulary of 100"},
		"negative size":      {nil, -1, nil, "-1"},
		"not JSON":           {map[string]string{"tokenizer_config.json": "{"}, 0, tensor.ErrMalformed, "tokenizer_config.json"},
		"twice":              {map[string]string{"added_tokens.json": `{"a": 1, "a": 2}`}, 0, tensor.ErrMalformed, "added_tokens.json"},
		"token is a number":  {map[string]string{"tokenizer_config.json": `{"bos_token": 3}`}, 0, tensor.ErrMalformed, "bos_token"},
		"id is a string":     {map[string]string{"config.json": `{"bos_token_id": "3"}`}, 0, tensor.ErrMalformed, "config.json"},
		"ids are strings":    {map[string]string{"config.json": `{"bos_token_id": ["3"]}`}, 0, tensor.ErrMalformed, "config.json"},
		"flag is a string":   {map[string]string{"tokenizer_config.json": `{"add_bos_token": "yes"}`}, 0, tensor.ErrMalformed, "add_bos_token"},
		"template":           {map[string]string{"tokenizer_config.json": `{"chat_template": {"a": 1}}`}, 0, tensor.ErrMalformed, "chat_template"},
		"two templates":      {map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "a", "template": ""}, {"name": "a", "template": ""}]}`}, 0, tensor.ErrMalformed, `two chat templates named "a"`},
		"added id":           {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"x": {"content": "y"}}}`}, 0, tensor.ErrMalformed, `the id "x"`},
		"added negative":     {map[string]string{"added_tokens.json": `{"y": -3}`}, 0, tensor.ErrMalformed, `"y" has the id -3`},
		"added twice":        {map[string]string{"added_tokens.json": `{"<s>": 512}`}, 0, tensor.ErrMalformed, `piece 512: malformed input: "<s>" is already piece 1`},
		"added empty":        {map[string]string{"added_tokens.json": `{"": 512}`}, 0, tensor.ErrMalformed, "piece 512"},
		"added far away":     {map[string]string{"added_tokens.json": `{"y": 9000000000000000000}`}, 513, nil, ""},
		"whole word":         {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"512": {"content": "y", "single_word": true}}}`}, 0, tensor.ErrUnsupported, "whole word"},
		"strips white space": {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"512": {"content": "y", "rstrip": true}}}`}, 0, tensor.ErrUnsupported, "white space"},
		"no bos": {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"1": {"content": "<1>"}, "2": {"content": "<2>"}}, "add_bos_token": true, "add_eos_token": true}`,
			"tokenizer.model": strings.ReplaceAll(string(read(t, storiesModel)), "<s>", "[s]")}, 0, tensor.ErrMalformed, "bos token is to be added"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := variant{}.dir(t)
			for file, text := range c.files {
				write(t, dir, file, text)
				if text == "" {
					require.NoError(t, os.Remove(filepath.Join(dir, file)))
				}
			}
			v, err := vocab.OpenDir(dir, c.size)
			if c.says == "" {
				require.NoError(t, err)
				require.Len(t, v.Pieces, 513)
				return
			}
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, dir)
			}
			require.Nil(t, v)
		})
	}

	t.Run("a folder", func(t *testing.T) {
		dir := variant{}.dir(t)
		require.NoError(t, os.Mkdir(filepath.Join(dir, "added_tokens.json"), 0o755))
		_, err := vocab.OpenDir(dir, 0)
		require.ErrorContains(t, err, "added_tokens.json: not a file")
	})
	t.Run("too big", func(t *testing.T) {
		dir := variant{}.dir(t)
		require.NoError(t, os.Truncate(filepath.Join(dir, "tokenizer.model"), 1<<30))
		_, err := vocab.OpenDir(dir, 0)
		require.ErrorIs(t, err, tensor.ErrMalformed)
	})
	t.Run("hint", func(t *testing.T) {
		_, err := vocab.OpenDir(t.TempDir(), 0)
		require.Contains(t, hint.Of(err), "copy tokenizer.model")
	})
}

func FuzzOpenDir(f *testing.F) {
	for _, v := range variants(f) {
		config, added := v.Files["tokenizer_config.json"], v.Files["added_tokens.json"]
		f.Add([]byte(config), []byte(added), []byte(v.Files["config.json"]), 524)
	}
	model := read(f, storiesModel)
	f.Fuzz(func(t *testing.T, config, added, ids []byte, size int) {
		dir := t.TempDir()
		write(t, dir, "tokenizer.model", string(model))
		write(t, dir, "tokenizer_config.json", string(config))
		write(t, dir, "added_tokens.json", string(added))
		write(t, dir, "config.json", string(ids))
		v, err := vocab.OpenDir(dir, min(size, 4096))
		if err != nil || len(v.Pieces) > 4096 {
			return
		}
		require.NoError(t, v.Validate())
		again, err := vocab.FromGGUF(v.GGUF())
		require.NoError(t, err)
		require.Equal(t, len(v.Pieces), len(again.Pieces))
		_, err = v.Files()
		require.NoError(t, err)
	})
}
