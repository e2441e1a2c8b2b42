package tensortest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

// NewModel returns a Source of random F32 tensors for a model: matrices with
// standard deviation 0.3, vectors around 1 (norms) or 0 (biases).
func NewModel(t testing.TB, m *arch.Model, seed uint64) tensor.Source {
	t.Helper()
	var list []Tensor
	for i, x := range m.Tensors() {
		w := Normal(x.Name, x.Dims, 0.3, seed+uint64(i))
		if x.Part == "weight" && len(x.Dims) == 1 {
			values := Floats(t, NewSource(t, nil, w), x.Name)
			for j := range values {
				values[j]++
			}
			w = Float32(x.Name, x.Dims, values)
		}
		list = append(list, w)
	}
	return NewSource(t, tensor.Meta{{Key: "format", Value: "pt"}}, list...)
}

// TinyLlama returns a small Llama with grouped-query attention and odd sizes.
// change may adjust it.
func TinyLlama(t testing.TB, change func(c *arch.Config)) *arch.Model {
	t.Helper()
	return TinyModel(t, "llama", change)
}

// TinyModel returns a small model of a family with everything that the family
// can have: odd sizes, grouped-query attention, experts, windows of a few
// tokens. change may adjust it.
func TinyModel(t testing.TB, family string, change func(c *arch.Config)) *arch.Model {
	t.Helper()
	c := &arch.Config{
		HiddenSize: 18, IntermediateSize: 23, NumHiddenLayers: 3, NumAttentionHeads: 6, NumKeyValueHeads: 2,
		HeadDim: 4, VocabSize: 37, MaxPositionEmbeddings: 2048, NormEps: 1e-5, Rope: arch.Rope{Theta: 100, Type: "default"},
	}
	switch family {
	case "mistral":
		c.SlidingWindow = 4
	case "mixtral":
		c.NumExperts, c.NumExpertsPerTok, c.MoEIntermediateSize = 5, 2, c.IntermediateSize
	case "qwen2moe", "qwen3moe":
		c.NumExperts, c.NumExpertsPerTok, c.MoEIntermediateSize, c.DecoderSparseStep = 5, 2, 7, 1
		c.NormTopKProb = family == "qwen3moe"
	case "gemma2":
		c.QueryPreAttnScalar, c.AttnLogitSoftcapping, c.FinalLogitSoftcapping, c.SlidingWindow = 6, 1.5, 2, 4
	case "gemma3":
		c.QueryPreAttnScalar, c.SlidingWindow, c.WindowPattern, c.LocalTheta = 6, 4, 3, 10
	case "phi3":
		c.HeadDim, c.PartialRotaryFactor = 8, 0.5
		c.Rope = arch.Rope{Theta: 100, Type: "longrope", OriginalMaxPositionEmbeddings: 64, ShortFactor: []float64{1, 1.5}, LongFactor: []float64{2, 4}}
	case "gpt2":
		c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim, c.HiddenSize, c.MaxPositionEmbeddings, c.TieWordEmbeddings = 3, 3, 6, 18, 40, true
	}
	if family == "qwen2moe" {
		c.SharedExpertIntermediateSize = 5
	}
	if strings.HasPrefix(family, "gemma") {
		c.TieWordEmbeddings = true
	}
	if change != nil {
		change(c)
	}
	f := arch.ByName(family)
	require.NotNil(t, f, family)
	m, err := arch.New(f, c)
	require.NoError(t, err)
	return m
}
