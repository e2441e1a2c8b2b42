package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// makeAdapter writes an adapter of random numbers for modules of a model.
func makeAdapter(t *testing.T, m *model, set func(c *peft.Config), modules ...string) string {
	t.Helper()
	c := peft.NewConfig()
	c.R, c.LoraAlpha, c.TargetModules.Names = 2, 3, modules
	set(c)
	var list []tensortest.Tensor
	for i, module := range modules {
		seed := uint64(10 * i)
		out, in := m.arch.VocabSize, m.arch.HiddenSize
		if info, err := m.view.Info(module + ".weight"); err == nil {
			out, in = info.Shape[0], info.Shape[1]
		}
		a, b := ".lora_A.weight", ".lora_B.weight"
		if module+".weight" == m.arch.NameOf(arch.Embedding) {
			a, b, out, in = ".lora_embedding_A", ".lora_embedding_B", in, out
		}
		list = append(list, tensortest.Normal(module+a, tensor.Shape{c.R, in}, 0.3, seed+1), tensortest.Normal(module+b, tensor.Shape{out, c.R}, 0.3, seed+2))
		if c.UseDoRA {
			list = append(list, tensortest.Normal(module+".lora_magnitude_vector", tensor.Shape{out}, 1, seed+3))
		}
	}
	dir := t.TempDir()
	require.NoError(t, peft.Write(t.Context(), dir, c, tensortest.NewSource(t, nil, list...), false))
	return dir
}

// TestMergeBasesAndOutputs merges into bases of every kind, and writes files of
// every kind: what is decoded first is what the same numbers in F32 give.
func TestMergeBasesAndOutputs(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base := filepath.Join(goldens, "families", "qwen3")
	m, err := openModel(base)
	require.NoError(t, err)
	defer m.Close()
	require.True(t, m.arch.TieWordEmbeddings)
	embed := strings.TrimSuffix(m.arch.NameOf(arch.Embedding), ".weight")
	adapters := map[string]string{
		"dora": makeAdapter(t, m, func(c *peft.Config) { c.UseDoRA = true }, "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", embed),
		"head": makeAdapter(t, m, func(*peft.Config) {}, "lm_head", "model.layers.0.mlp.up_proj"),
	}
	ok(t, "quantize", base, at("nf4"), "--type", "nf4")
	ok(t, "dequantize", at("nf4"), at("nf4-f32"), "--dtype", "f32")
	ok(t, "convert", base, at("q8.gguf"), "--outtype", "q8_0")
	ok(t, "convert", at("q8.gguf"), at("q8-f32"), "--outtype", "f32")
	for name, adapter := range adapters {
		for _, b := range []struct{ base, plain string }{{at("nf4"), at("nf4-f32")}, {at("q8.gguf"), at("q8-f32")}} {
			merged := func(base, out string, more ...string) string {
				out = at(name + "-" + filepath.Base(base) + out)
				ok(t, append([]string{"merge", "--base", base, "--adapter", adapter, "--out", out, "--dtype", "f32"}, more...)...)
				return out
			}
			require.Equal(t, tensors(t, merged(b.plain, "-dir")), tensors(t, merged(b.base, "-dir")), "%s into %s", name, b.base)
			untied := merged(b.base, "-untied", "--untie")
			require.Contains(t, tensors(t, untied), "lm_head.weight")
			straight := merged(b.base, "-untied.gguf", "--untie")
			again := at(name + "-" + filepath.Base(b.base) + "-converted.gguf")
			ok(t, "convert", untied, again, "--outtype", "f32")
			require.Equal(t, tensors(t, again), tensors(t, straight), "%s into %s, GGUF", name, b.base)
			require.Contains(t, tensors(t, straight), "output.weight")
		}
	}
}

// TestMoreTokensIntoGGUF makes a model of a vocabulary that the adapter has grown.
func TestMoreTokensIntoGGUF(t *testing.T) {
	base := filepath.Join(goldens, "families", "qwen3")
	m, err := openModel(base)
	require.NoError(t, err)
	defer m.Close()
	tokens := m.arch.VocabSize + 3
	c := peft.NewConfig()
	c.R, c.LoraAlpha, c.TargetModules.Names = 1, 2, []string{"q_proj"}
	var list []tensortest.Tensor
	for l := range m.arch.NumHiddenLayers {
		module := "model.layers." + string(rune('0'+l)) + ".self_attn.q_proj"
		w, err := m.view.Info(module + ".weight")
		require.NoError(t, err)
		list = append(list, tensortest.Normal(module+".lora_A.weight", tensor.Shape{1, w.Shape[1]}, 1, 1), tensortest.Normal(module+".lora_B.weight", tensor.Shape{w.Shape[0], 1}, 1, 2))
	}
	rows := tensortest.Normal("model.embed_tokens.weight", tensor.Shape{tokens, m.arch.HiddenSize}, 1, 3)
	adapter := t.TempDir()
	require.NoError(t, peft.Write(t.Context(), adapter, c, tensortest.NewSource(t, nil, append(list, rows)...), false))

	out := filepath.Join(t.TempDir(), "out.gguf")
	var r mergeResult
	okJSON(t, &r, "merge", "--base", base, "--adapter", adapter, "--out", out, "--dtype", "f32")
	require.Len(t, r.Deltas, len(list)/2+1, "rows are read in another order, and all are counted")
	require.Equal(t, len(r.Deltas), r.Changed)
	got, err := openModel(out)
	require.NoError(t, err)
	defer got.Close()
	require.Equal(t, tokens, got.arch.VocabSize)
	require.True(t, got.arch.TieWordEmbeddings)
	require.Equal(t, floatsOf(t, tensortest.NewSource(t, nil, rows), embedding), floatsOf(t, got.view, embedding))
	v, err := got.openVocab(vocab.Options{})
	require.NoError(t, err)
	require.Len(t, v.Pieces, int(tokens))
}
