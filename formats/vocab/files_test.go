package vocab_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// writeFiles writes the files of a vocabulary, and the config.json that belongs to
// them.
func writeFiles(t testing.TB, v *vocab.Vocab) string {
	t.Helper()
	dir := t.TempDir()
	files, err := v.Files()
	require.NoError(t, err)
	for name, data := range files {
		write(t, dir, name, string(data))
	}
	config := map[string]any{}
	for _, id := range v.ConfigIDs() {
		config[id.Name+"_token_id"] = id.ID
	}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	write(t, dir, "config.json", string(text))
	return dir
}

func TestFilesMakeTheSameGGUF(t *testing.T) {
	lost := 0
	for _, c := range golden(t).Variants {
		t.Run(c.Name, func(t *testing.T) {
			there := func(meta tensor.Meta) (*vocab.Vocab, tensor.Meta) {
				v, err := vocab.FromGGUF(meta)
				require.NoError(t, err)
				sameMeta(t, meta, v.GGUF())
				o := c.options(t)
				o.Size = len(v.Pieces)
				again, err := vocab.OpenDir(writeFiles(t, v), o)
				require.NoError(t, err)
				return v, again.GGUF()
			}
			first := c.open(t).GGUF()
			v, second := there(first)
			lost += len(v.Lost())

			// What was absent is now what llama.cpp takes it for.
			got := without(second, v.Lost()...)
			for i, key := range []string{"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"} {
				if _, ok := first.Get(key); !ok && v.Kind == vocab.SPM {
					id, ok := got.Get(key)
					require.True(t, !ok || id == uint32(i+1))
					got = without(got, key)
				}
			}
			sameMeta(t, without(first, v.Lost()...), got)
			_, third := there(second)
			sameMeta(t, second, third)
		})
	}
	require.Equal(t, 8, lost)
}

func TestFilesOfAnUnknownPre(t *testing.T) {
	c := named(t, "gpt2")
	meta := c.open(t).GGUF()
	for i := range meta {
		if meta[i].Key == "tokenizer.ggml.pre" {
			meta[i].Value = "of-2031"
		}
	}
	v, err := vocab.FromGGUF(meta)
	require.NoError(t, err)
	require.Contains(t, v.Notes[0], `"of-2031"`)
	sameMeta(t, meta, v.GGUF())
	files, err := v.Files()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"vocab.json", "merges.txt", "tokenizer_config.json"}, slices.Collect(maps.Keys(files)))
	_, err = vocab.OpenDir(writeFiles(t, v), c.options(t))
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.Contains(t, hint.Of(err), "GPT2Tokenizer")
}

// Gemma's tokenizer.json has a tab where tokenizer.model has <0x09>.
func TestFilesWithATab(t *testing.T) {
	v, err := vocab.ParseSentencePiece(read(t, storiesModel))
	require.NoError(t, err)
	v.RemoveExtraWhitespaces = false
	tab := slices.IndexFunc(v.Pieces, func(p vocab.Piece) bool { return p.Text == "<0x09>" })
	v.Pieces[tab].Text, v.Pieces[tab].Type = "\t", vocab.Normal
	v, err = vocab.FromGGUF(v.GGUF())
	require.NoError(t, err)
	_, err = vocab.MarshalSentencePiece(v)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "255 byte pieces")
	again, err := vocab.OpenDir(writeFiles(t, v), vocab.Options{Rules: arch.LlamaTokenizers})
	require.NoError(t, err)
	require.Equal(t, "\t", again.Pieces[tab].Text)
	require.NotNil(t, again.Spec)

	v.Pieces[tab].Text = "\n\n"
	require.ErrorIs(t, v.Validate(), tensor.ErrMalformed)
}
