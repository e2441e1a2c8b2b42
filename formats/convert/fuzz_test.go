package convert

import (
	"bytes"
	"context"
	"io"
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

// tinyVocab is a tokenizer of n pieces.
func tinyVocab(n int) *vocab.Vocab {
	v := &vocab.Vocab{
		Kind: vocab.SPM, BOS: 1, EOS: 2, UNK: 0, SEP: vocab.None, PAD: vocab.None, AddBOS: true, EscapeWhitespaces: true,
		Pieces: []vocab.Piece{{Text: "<unk>", Type: vocab.Unknown}, {Text: "<s>", Type: vocab.Control}, {Text: "</s>", Type: vocab.Control}},
	}
	for i := len(v.Pieces); i < n; i++ {
		v.Pieces = append(v.Pieces, vocab.Piece{Text: string(rune('a' + i)), Type: vocab.Normal})
	}
	return v
}

// tinyModels returns a model of each family as small as can be: inputs of many
// kilobytes fuzz badly.
func tinyModels(t testing.TB) []*arch.Model {
	var out []*arch.Model
	for _, f := range arch.Families() {
		out = append(out, tensortest.TinyModel(t, f.Name, func(c *arch.Config) {
			if f.Name != "phi3" {
				c.HiddenSize, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim = 2, 1, 1, 2
			}
			c.NumHiddenLayers, c.IntermediateSize, c.VocabSize, c.MaxPositionEmbeddings = 1, 3, 4, 128
			if c.NumExperts > 0 {
				c.NumExperts, c.NumExpertsPerTok = 2, 1
			}
			if f.Name == "mixtral" {
				c.MoEIntermediateSize = c.IntermediateSize
			}
		}))
	}
	return append(out, tensortest.TinyLlama(t, func(c *arch.Config) {
		c.HiddenSize, c.IntermediateSize, c.NumHiddenLayers, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim = 2, 1, 1, 1, 1, 2
		c.VocabSize, c.MaxPositionEmbeddings = 4, 512
		c.Rope = arch.Rope{Theta: 256, Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 64}
	}))
}

// ggufOf returns the bytes of the GGUF file that a plan makes.
func ggufOf(t testing.TB, g *GGUF) []byte {
	path := filepath.Join(t.TempDir(), "m.gguf")
	w, err := gguf.Create(path, false)
	require.NoError(t, err)
	require.NoError(t, pipeline.Run(context.Background(), g.Plan, g.Source, w))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// FuzzFromGGUF feeds it files that are sound as GGUF and strange as models: what
// it accepts can be written as a checkpoint and as GGUF again, every number of it.
func FuzzFromGGUF(f *testing.F) {
	for _, m := range tinyModels(f) {
		g, err := ToGGUF(tensortest.NewModel(f, m, 1), codecs, m, tinyVocab(4), GGUFOptions{OutType: "bf16"})
		require.NoError(f, err)
		f.Add(ggufOf(f, g))
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
		v, err := c.Vocab()
		if err != nil {
			return
		}
		text, err := c.ConfigJSON(tensor.BF16)
		require.NoError(t, err)
		again, err := arch.ParseConfig(text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, c.Model.NumHiddenLayers, again.NumHiddenLayers)
		if _, _, err := c.OwnTypes(codecs); err != nil {
			return // what is in the tensors cannot be decoded
		}
		for info := range c.All() {
			_, rows, err := codecs.OpenFrom(c, info.Name)
			if err != nil {
				return
			}
			require.NoError(t, rows.ReadRows(make([]float32, info.Shape.Cols()), info.Shape.Rows()-1), info.Name)
		}
		out, err := ToGGUF(c.Source, codecs, c.Model, v, GGUFOptions{OutType: "f16"})
		require.NoError(t, err)
		require.NotEmpty(t, out.Plan.Steps)
		_, err = Retype(g, codecs, c.Model, "f32")
		require.NoError(t, err)
	})
}

// FuzzAdapterFromGGUF does the same with adapters of one model.
func FuzzAdapterFromGGUF(f *testing.F) {
	var models []*arch.Model
	for i, m := range tinyModels(f) {
		models = append(models, m)
		var list []tensortest.Tensor
		for _, x := range m.Block(0) {
			if x.Part != "weight" || len(x.Dims) != 2 {
				continue
			}
			list = append(list, tensortest.Normal(x.Module()+hfSuffixA, tensor.Shape{2, int64(x.In())}, 1, 1),
				tensortest.Normal(x.Module()+hfSuffixB, tensor.Shape{int64(x.Out()), 2}, 1, 2))
		}
		g, err := AdapterToGGUF(tensortest.NewSource(f, nil, list...), codecs, m, AdapterScale{Rank: 2, Alpha: 3}, GGUFOptions{OutType: "auto"})
		require.NoError(f, err, m.Name)
		f.Add(uint8(i), ggufOf(f, g))
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		m := models[int(i)%len(models)]
		g, err := gguf.Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		DescribeAdapter(g)
		src, scale, err := AdapterFromGGUF(g, codecs, m)
		if err != nil {
			return
		}
		for info := range src.All() {
			_, _, err := codecs.ReadAll(src, info.Name)
			require.NoError(t, err)
		}
		if _, err := AdapterToGGUF(src, codecs, m, scale, GGUFOptions{OutType: "f32"}); err != nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported) // a pair that lacks A or B
		}
	})
}

// FuzzCanonical feeds it tensors of any names and shapes: it neither loses nor
// invents bytes.
func FuzzCanonical(f *testing.F) {
	models := tinyModels(f)
	for i, m := range models {
		for _, x := range m.Tensors() {
			f.Add(uint8(i), x.Name, x.Dims[0], int64(len(x.Dims)))
		}
	}
	f.Add(uint8(1), "model.layers.0.mlp.experts.gate_up_proj", int64(2), int64(3))
	f.Add(uint8(1), "visual.patch_embed.proj.weight", int64(2), int64(3))
	f.Fuzz(func(t *testing.T, i uint8, name string, rows, n int64) {
		info := tensor.Info{Name: name, DType: tensor.BF16}
		for range min(4, max(0, n)) {
			info.Shape = append(info.Shape, min(64, max(0, rows)))
		}
		src, err := tensor.NewTable(nil, []tensor.Entry{{Info: info, Open: func() (io.ReaderAt, error) { return bytes.NewReader(make([]byte, info.Size())), nil }}})
		if err != nil {
			return
		}
		v, err := Canonical(src, models[int(i)%len(models)])
		if err != nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			return
		}
		var size int64
		for x := range v.All() {
			size += x.Size()
			require.Equal(t, []string{name}, v.Origin(x.Name).From)
			require.Len(t, tensortest.Bytes(t, v, x.Name), int(x.Size()))
		}
		if len(v.Dropped) == 0 {
			require.Equal(t, info.Size(), size)
		} else {
			require.Zero(t, size)
		}
	})
}
