package model

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/gguf/ggml"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/tensor/scaled"
	"github.com/seed18967229/nibble/train/stream"
)

// everyCodec is what a base can be stored in.
var everyCodec = tensor.NewCodecs(slices.Concat(floats.Codecs(), nf4.Codecs(), scaled.Codecs(), ggml.Codecs())...)

// stored returns src with the weights of linear layers, embeddings and head in another
// dtype.
func stored(t *testing.T, a *arch.Model, src tensor.Source, d tensor.DType) tensor.Source {
	t.Helper()
	var linear []string
	for _, x := range a.Tensors() {
		if x.Linear {
			linear = append(linear, x.Name)
		}
	}
	switch d {
	case tensor.NF4, tensor.FP4, tensor.INT8:
		o := bnb.Options{Type: d, Linear: linear, PerExpert: true}
		if d != tensor.INT8 {
			o.BlockSize, o.DoubleQuant = 64, true
		}
		out, _, err := bnb.Through(src, codecs, o)
		require.NoError(t, err)
		return out
	}
	enc, err := everyCodec.Encoder(d)
	require.NoError(t, err)
	var list []tensortest.Tensor
	for _, x := range a.Tensors() {
		values := tensortest.Floats(t, src, x.Name)
		if len(x.Dims) == 1 {
			list = append(list, tensortest.Float32(x.Name, x.Dims, values))
			continue
		}
		info := tensor.Info{Name: x.Name, DType: d, Shape: x.Dims}
		b := make([]byte, info.Size())
		enc.Encode(b, values)
		list = append(list, tensortest.Tensor{Info: info, Data: b})
	}
	return tensortest.NewSource(t, nil, list...)
}

// decoded returns src with all weights as float32.
func decoded(t *testing.T, src tensor.Source) tensor.Source {
	t.Helper()
	var list []tensortest.Tensor
	for info := range src.All() {
		_, v, err := everyCodec.ReadAll(src, info.Name)
		require.NoError(t, err)
		list = append(list, tensortest.Float32(info.Name, info.Shape, v))
	}
	return tensortest.NewSource(t, nil, list...)
}

// gradsOver returns the gradient of every adapter, and that of what goes into the first
// block, over a base.
func gradsOver(t *testing.T, s *setup, src tensor.Source, b *Batch) (loss float64, grads [][]float32) {
	t.Helper()
	for _, p := range s.params() {
		clear(p.Grad)
	}
	st, err := stream.New(src, everyCodec, s.arch, stream.Options{})
	require.NoError(t, err)
	defer st.Close()
	m := New(s.arch, s.train, 64)
	x := make([]float32, len(b.Tokens)*m.Hidden())
	require.NoError(t, m.Embed(x, b.Tokens, b.Pos, st))
	var bounds [][]float32
	each := func(l int, f func(block *Block) error) {
		lease, err := st.Lease(context.Background(), l)
		require.NoError(t, err)
		defer lease.Release()
		block, err := m.Block(l, lease)
		require.NoError(t, err)
		require.NoError(t, f(block))
	}
	for l := range int(s.arch.NumHiddenLayers) {
		bounds = append(bounds, slices.Clone(x))
		each(l, func(block *Block) error { return block.Forward(x, b, nil, nil) })
	}
	sums, err := m.Loss([][]float32{x}, []*Batch{b}, st, true, 1)
	require.NoError(t, err)
	for l := len(bounds) - 1; l >= 0; l-- {
		each(l, func(block *Block) error { return block.Backward(x, bounds[l], b, nil, nil) })
	}
	for _, p := range s.params() {
		grads = append(grads, slices.Clone(p.Grad))
	}
	return sums[0], append(grads, x)
}

// TestGradientsThroughQuantizedBases compares the loss and every gradient over a base
// in some encoding with those over the same numbers as float32. For many tokens they are
// the same bits; for few, whose products some encodings make as dot products of their
// codes, they are close.
func TestGradientsThroughQuantizedBases(t *testing.T) {
	plain := []tensor.DType{tensor.BF16, tensor.F16, tensor.NF4, tensor.FP4, tensor.INT8, tensor.Q8_0, tensor.Q4_K, tensor.Q4_0}
	for family, dtypes := range map[string][]tensor.DType{
		"llama":    everyBlock(),
		"gemma2":   plain,
		"gpt2":     plain,
		"phi3":     {tensor.BF16, tensor.NF4, tensor.Q6_K},
		"qwen2moe": plain,
	} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			a := tensortest.TinyModel(t, family, func(c *arch.Config) {
				// Whole super-blocks of 256 in every row.
				c.NumHiddenLayers, c.HiddenSize, c.IntermediateSize, c.NumAttentionHeads, c.HeadDim = 1, 256, 256, 4, 64
				c.VocabSize, c.MaxPositionEmbeddings = 64, 64
				if family == "gpt2" {
					c.NumKeyValueHeads = 4
				}
				if c.Rope.Type == "longrope" {
					c.Rope.ShortFactor, c.Rope.LongFactor = make([]float64, 16), make([]float64, 16)
					for i := range c.Rope.ShortFactor {
						c.Rope.ShortFactor[i], c.Rope.LongFactor[i] = 1, 2
					}
				}
				if c.NumExperts > 0 {
					c.NumExperts, c.MoEIntermediateSize, c.SharedExpertIntermediateSize = 3, 256, 256
				}
			})
			s := setupOf(t, a)
			s.src = smaller(t, a, s.src)
			s.adapt(t, 2, 0.7, a.LinearModules()...)
			batch := func(longest int) *Batch {
				b := &Batch{}
				for _, n := range []int{longest, longest - 3} {
					var tokens []int32
					for j := range n {
						tokens = append(tokens, int32((11*j+n)%64))
					}
					b.Add(tokens, 0)
				}
				return b
			}
			batches := map[bool]*Batch{false: batch(7), true: batch(40)} // many or not
			for _, d := range dtypes {
				quantized := stored(t, a, s.src, d)
				dense := decoded(t, quantized)
				for many, b := range batches {
					want, wantGrads := gradsOver(t, s, dense, b)
					got, gotGrads := gradsOver(t, s, quantized, b)
					if many {
						require.Equal(t, want, got, "%v", d)
						require.Equal(t, wantGrads, gotGrads, "%v", d)
						continue
					}
					require.InEpsilon(t, want, got, 1e-6, "%v", d)
					for i := range wantGrads {
						close32(t, wantGrads[i], gotGrads[i], 2e-5, d.String())
					}
				}
			}
		})
	}
}

// everyBlock returns every dtype that weights can be encoded to.
func everyBlock() (out []tensor.DType) {
	for d := range everyCodec {
		_, err := everyCodec.Encoder(d)
		if err == nil && d != tensor.F64 || d == tensor.NF4 || d == tensor.FP4 || d == tensor.INT8 {
			out = append(out, d)
		}
	}
	slices.Sort(out)
	return out
}

// smaller returns a model's weights with matrices so small that wide rows do not
// drown everything.
func smaller(t *testing.T, a *arch.Model, src tensor.Source) tensor.Source {
	t.Helper()
	var list []tensortest.Tensor
	for _, x := range a.Tensors() {
		values := tensortest.Floats(t, src, x.Name)
		if len(x.Dims) > 1 && !strings.Contains(x.Name, "embed") {
			for i := range values {
				values[i] /= 4
			}
		}
		list = append(list, tensortest.Float32(x.Name, x.Dims, values))
	}
	return tensortest.NewSource(t, nil, list...)
}
