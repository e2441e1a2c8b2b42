package convert

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// FuzzFromGGUF feeds it files that are sound as GGUF and strange as models:
// what it accepts can be written as a checkpoint and as GGUF again.
func FuzzFromGGUF(f *testing.F) {
	// A model as small as can be: inputs of many kilobytes fuzz badly.
	v := &vocab.Vocab{
		Kind: vocab.SPM, BOS: 1, EOS: 2, UNK: 0, SEP: vocab.None, PAD: vocab.None, AddBOS: true, EscapeWhitespaces: true,
		Pieces: []vocab.Piece{{Text: "<unk>", Type: vocab.Unknown}, {Text: "<s>", Type: vocab.Control}, {Text: "</s>", Type: vocab.Control}, {Text: "a", Type: vocab.Normal}},
	}
	for _, rope := range []arch.Rope{
		{Theta: 100, Type: "default"},
		{Theta: 256, Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 64},
	} {
		m := tensortest.TinyLlama(f, func(c *arch.Config) {
			c.HiddenSize, c.IntermediateSize, c.NumHiddenLayers, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim = 2, 1, 1, 1, 1, 2
			c.VocabSize, c.MaxPositionEmbeddings, c.Rope = 4, 512, rope
		})
		g, err := ToGGUF(tensortest.NewModel(f, m, 1), codecs, m, v, GGUFOptions{OutType: "bf16"})
		require.NoError(f, err)
		path := filepath.Join(f.TempDir(), "m.gguf")
		w, err := gguf.Create(path, false)
		require.NoError(f, err)
		require.NoError(f, pipeline.Run(context.Background(), g.Plan, g.Source, w))
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := gguf.Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		c, err := FromGGUF(g, codecs)
		if err != nil {
			return
		}
		text, err := c.ConfigJSON(tensor.BF16)
		require.NoError(t, err)
		again, err := arch.ParseConfig(text)
		require.NoError(t, err)
		require.Equal(t, c.Model.NumHiddenLayers, again.NumHiddenLayers)
		out, err := ToGGUF(c.Source, codecs, c.Model, c.Vocab, GGUFOptions{OutType: "f16"})
		require.NoError(t, err)
		require.NotEmpty(t, out.Plan.Steps)
	})
}
