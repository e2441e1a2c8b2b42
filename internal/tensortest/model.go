package tensortest

import (
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
	c := &arch.Config{
		ModelType: "llama", HiddenSize: 18, IntermediateSize: 23, NumHiddenLayers: 3, NumAttentionHeads: 6, NumKeyValueHeads: 2,
		HeadDim: 4, VocabSize: 37, RMSNormEps: 1e-5, Rope: arch.Rope{Theta: 100, Type: "default"},
	}
	if change != nil {
		change(c)
	}
	m, err := arch.New(c)
	require.NoError(t, err)
	return m
}
