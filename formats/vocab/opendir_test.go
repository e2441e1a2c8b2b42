package vocab_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// modelDir is a directory with nothing but a tokenizer.model.
func modelDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "tokenizer.model", string(read(t, storiesModel)))
	return dir
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
			require.Equal(t, []int32{2, 1, 1}, []int32{v.BOS, v.EOS, v.PAD}) // the map counts for more, as in transformers
		}},
		"ids": {map[string]string{
			"tokenizer_config.json":  `{"pad_token": "<nowhere>", "eos_token": "<nowhere>"}`,
			"config.json":            `{"bos_token_id": 7, "eos_token_id": [9, 8], "pad_token_id": -1}`,
			"generation_config.json": `{"bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 5, "unk_token_id": 512}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, []int32{7, 9, 5, 0}, []int32{v.BOS, v.EOS, v.PAD, v.UNK})
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
				{Text: "<pad>", Score: -1000, Type: vocab.UserDefined, Added: true},
			}, v.Pieces[512:])
		}},
		"values of other types": {map[string]string{
			"tokenizer_config.json": `{"add_bos_token": "yes", "add_eos_token": 1, "legacy": "no", "chat_template": {"a": 1}, "pad_token": {"content": "<s>"}}`,
			"config.json":           `{"sep_token_id": "3", "mask_token_id": ["3"], "text_config": 7}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.True(t, v.AddBOS)
			require.False(t, v.AddEOS)
			require.Equal(t, []int32{1, vocab.None}, []int32{v.PAD, v.SEP})
			require.Empty(t, v.ChatTemplate)
			require.Contains(t, v.Notes[0], "chat_template of tokenizer_config.json is an object")
		}},
		"templates of one name": {map[string]string{
			"tokenizer_config.json": `{"chat_template": [{"name": "a", "template": "1"}, {"name": "default", "template": "2"}, {"name": "b", "template": "3"}, {"name": "a", "template": "4"}]}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, "2", v.ChatTemplate)
			require.Equal(t, []vocab.ChatTemplate{{Name: "b", Template: "3"}, {Name: "a", Template: "4"}}, v.ChatTemplates)
		}},
		"no bos": {map[string]string{
			"tokenizer_config.json": `{"added_tokens_decoder": {"1": {"content": "<1>"}, "2": {"content": "<2>"}}, "add_bos_token": true, "add_eos_token": true}`,
			"tokenizer.model":       strings.ReplaceAll(string(read(t, storiesModel)), "<s>", "[s]"),
		}, func(t *testing.T, v *vocab.Vocab) {
			require.Equal(t, vocab.None, v.BOS)
			require.False(t, v.AddBOS)
			require.True(t, v.AddEOS)
		}},
		"fewer rows than pieces": {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"600": {"content": "<x>"}}}`}, func(t *testing.T, v *vocab.Vocab) {
			require.Len(t, v.Pieces, 512)
			require.Contains(t, v.Notes[0], `added token "<x>" has the id 600, and the vocabulary has 512 tokens: left out`)
		}},
		"white space beside a special token": {map[string]string{
			"tokenizer_config.json": `{"added_tokens_decoder": {"300": {"content": "<|x|>", "special": true, "lstrip": true, "rstrip": true}}}`,
		}, func(t *testing.T, v *vocab.Vocab) {
			require.True(t, v.Pieces[300].LStrip && v.Pieces[300].RStrip)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := modelDir(t)
			for file, text := range c.files {
				write(t, dir, file, text)
			}
			v, err := vocab.OpenDir(dir, vocab.Options{})
			require.NoError(t, err)
			c.check(t, v)
		})
	}
}

func TestOpenDirErrors(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		o     vocab.Options
		is    error
		says  string
	}{
		"nothing":            {map[string]string{"tokenizer.model": ""}, vocab.Options{}, fs.ErrNotExist, "no tokenizer.model"},
		"tokenizer.json":     {map[string]string{"tokenizer.model": "", "tokenizer.json": "{}"}, vocab.Options{Rules: arch.Gemma2Tokenizers}, tensor.ErrUnsupported, "this family's tokenizer comes as tokenizer.model, and there is tokenizer.json"},
		"broken model":       {map[string]string{"tokenizer.model": "\x0a\xff"}, vocab.Options{}, tensor.ErrMalformed, "tokenizer.model"},
		"wrong model":        {nil, vocab.Options{Size: 100}, tensor.ErrMalformed, "byte fallback with 97 byte pieces; want 256"},
		"far too many rows":  {nil, vocab.Options{Size: 16_000_000}, tensor.ErrMalformed, "512 tokens in a vocabulary of 16000000"},
		"negative size":      {nil, vocab.Options{Size: -1}, nil, "-1"},
		"not JSON":           {map[string]string{"tokenizer_config.json": "{"}, vocab.Options{}, tensor.ErrMalformed, "tokenizer_config.json"},
		"twice":              {map[string]string{"added_tokens.json": `{"a": 1, "a": 2}`}, vocab.Options{}, tensor.ErrMalformed, "added_tokens.json"},
		"token is a number":  {map[string]string{"tokenizer_config.json": `{"bos_token": 3}`}, vocab.Options{}, tensor.ErrMalformed, "bos_token"},
		"added id":           {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"x": {"content": "y"}}}`}, vocab.Options{}, tensor.ErrMalformed, `the id "x"`},
		"added negative":     {map[string]string{"added_tokens.json": `{"y": -3}`}, vocab.Options{}, tensor.ErrMalformed, `"y" has the id -3`},
		"added twice":        {map[string]string{"added_tokens.json": `{"<s>": 512}`}, vocab.Options{}, tensor.ErrMalformed, `piece 512: malformed input: "<s>" is already piece 1`},
		"added empty":        {map[string]string{"added_tokens.json": `{"": 512}`}, vocab.Options{}, tensor.ErrMalformed, "piece 512"},
		"added far away":     {map[string]string{"added_tokens.json": `{"y": 9000000000000000000}`}, vocab.Options{Size: 513}, nil, ""},
		"whole word":         {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"512": {"content": "y", "single_word": true}}}`}, vocab.Options{}, tensor.ErrUnsupported, "whole word"},
		"strips white space": {map[string]string{"tokenizer_config.json": `{"added_tokens_decoder": {"512": {"content": "<y>", "lstrip": true}}}`}, vocab.Options{}, tensor.ErrUnsupported, "white space"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := modelDir(t)
			for file, text := range c.files {
				write(t, dir, file, text)
				if text == "" {
					require.NoError(t, os.Remove(filepath.Join(dir, file)))
				}
			}
			v, err := vocab.OpenDir(dir, c.o)
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
		dir := modelDir(t)
		require.NoError(t, os.Mkdir(filepath.Join(dir, "added_tokens.json"), 0o755))
		_, err := vocab.OpenDir(dir, vocab.Options{})
		require.ErrorContains(t, err, "added_tokens.json: not a file")
	})
	t.Run("too big", func(t *testing.T) {
		dir := modelDir(t)
		require.NoError(t, os.Truncate(filepath.Join(dir, "tokenizer.model"), 1<<30))
		_, err := vocab.OpenDir(dir, vocab.Options{})
		require.ErrorIs(t, err, tensor.ErrMalformed)
	})
	t.Run("hint", func(t *testing.T) {
		_, err := vocab.OpenDir(t.TempDir(), vocab.Options{})
		require.Contains(t, hint.Of(err), "copy the tokenizer files")
	})
}
