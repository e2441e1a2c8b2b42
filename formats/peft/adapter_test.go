package peft

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func open(t testing.TB, dir string) *Adapter {
	t.Helper()
	a, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func names(src tensor.Source) []string {
	var list []string
	for info := range src.All() {
		list = append(list, info.Name)
	}
	return list
}

func put(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
}

// golden returns a copy of the golden adapter, to be broken.
func golden(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "adapter")
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/golden")))
	return dir
}

// store writes tensors of zeros as the adapter's weights.
func store(t testing.TB, dir string, layout ...tensor.Info) {
	t.Helper()
	w, err := safetensors.Create(filepath.Join(dir, WeightsName), true)
	require.NoError(t, err)
	require.NoError(t, w.Begin(tensor.Meta{{Key: "format", Value: "pt"}}, layout))
	for i, info := range layout {
		b, err := w.Body(i)
		require.NoError(t, err)
		_, err = b.WriteAt(make([]byte, info.Size()), 0)
		require.NoError(t, err)
	}
	require.NoError(t, w.Finish())
}

func f32(name string, shape ...int64) tensor.Info {
	return tensor.Info{Name: name, DType: tensor.F32, Shape: shape}
}

func TestOpenGolden(t *testing.T) {
	a := open(t, "testdata/golden")
	tensortest.TestSource(t, a)
	require.Equal(t, tensor.Meta{{Key: "format", Value: "pt"}}, a.Meta())
	require.EqualValues(t, 4, a.Config.R)
	require.Equal(t, 1.5, a.Config.Scaling())
	require.Equal(t, []string{
		"model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.0.self_attn.q_proj.lora_B.weight",
		"model.layers.0.self_attn.v_proj.lora_A.weight", "model.layers.0.self_attn.v_proj.lora_B.weight",
		"model.layers.1.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.q_proj.lora_B.weight",
		"model.layers.1.self_attn.v_proj.lora_A.weight", "model.layers.1.self_attn.v_proj.lora_B.weight",
	}, names(a))
	for name, shape := range map[string]tensor.Shape{
		"model.layers.0.self_attn.q_proj.lora_A.weight": {4, 8}, "model.layers.0.self_attn.q_proj.lora_B.weight": {8, 4},
		"model.layers.1.self_attn.v_proj.lora_B.weight": {4, 4},
	} {
		info, err := a.Info(name)
		require.NoError(t, err)
		require.Equal(t, shape, info.Shape)
		require.Equal(t, tensor.F32, info.DType)
	}
	require.Len(t, names(open(t, "testdata/golden_regex")), 14)
}

func TestCanonicalNames(t *testing.T) {
	dir := golden(t)
	for stored, want := range map[string]string{
		"base_model.model.m.q.lora_A.weight":                              "m.q.lora_A.weight",
		"base_model.model.m.q.lora_A.default.weight":                      "m.q.lora_A.weight",
		"base_model.model.m.q.lora_B.default.bias":                        "m.q.lora_B.bias",
		"base_model.model.e.lora_embedding_A":                             "e.lora_embedding_A",
		"base_model.model.e.lora_embedding_A.default":                     "e.lora_embedding_A",
		"base_model.model.m.q.lora_magnitude_vector.default":              "m.q.lora_magnitude_vector",
		"base_model.model.lm_head.weight":                                 "lm_head.weight",
		"base_model.model.lm_head.modules_to_save.default.weight":         "lm_head.weight",
		"module._orig_mod.base_model.model.m.q.lora_A.weight":             "m.q.lora_A.weight",
		"_fsdp_wrapped_module.base_model.model.m.q.lora_A.weight":         "m.q.lora_A.weight",
		"base_model.model.e.token_adapter.trainable_tokens_delta.default": "e.token_adapter.trainable_tokens_delta",
		"base_model.model.experts.base_layer.lora_A.weight":               "experts.base_layer.lora_A.weight",
		"base_model.model.default.q.lora_A.weight":                        "default.q.lora_A.weight",
		"base_model.model.default.q.lora_A.default.weight":                "default.q.lora_A.weight",
		"m.q.lora_A.weight":                                               "m.q.lora_A.weight",
		"base_model.model.e.token_adapter.trainable_tokens_delta":         "e.token_adapter.trainable_tokens_delta",
	} {
		store(t, dir, f32(stored, 2, 3))
		require.Equal(t, []string{want}, names(open(t, dir)), "%s", stored)
	}
	store(t, dir, f32("base_model.model.lm_head.original_module.weight", 2, 3), f32("base_model.model.lm_head.modules_to_save.default.weight", 2, 3))
	require.Equal(t, []string{"lm_head.weight"}, names(open(t, dir)), "the base's own is left out")
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		kind  error
		want  string
		hint  string
	}{
		{"no directory", func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) }, os.ErrNotExist, "no such file", ""},
		{"a file", func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			put(t, filepath.Dir(dir), "adapter", nil)
		}, tensor.ErrMalformed, "not a directory", ""},
		{"no config", func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, ConfigName))) },
			tensor.ErrMalformed, "no adapter_config.json", "save_pretrained"},
		{"one level down", func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, "mine"), 0o777))
			require.NoError(t, os.Rename(filepath.Join(dir, ConfigName), filepath.Join(dir, "mine", ConfigName)))
		}, tensor.ErrMalformed, "no adapter_config.json", "/adapter/mine"},
		{"config is a directory", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, ConfigName)))
			require.NoError(t, os.Mkdir(filepath.Join(dir, ConfigName), 0o777))
		}, tensor.ErrMalformed, "not a regular file", ""},
		{"config too large", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, ConfigName), maxConfig+1))
		}, tensor.ErrMalformed, "limit", ""},
		{"config broken", func(t *testing.T, dir string) { put(t, dir, ConfigName, []byte(`{"r":`)) }, tensor.ErrMalformed, ConfigName + ": ", ""},
		{"config of another kind", func(t *testing.T, dir string) {
			put(t, dir, ConfigName, []byte(`{"peft_type":"IA3","r":1,"lora_alpha":1}`))
		}, tensor.ErrUnsupported, `"IA3"`, ""},
		{"no weights", func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, WeightsName))) },
			tensor.ErrMalformed, "no adapter_model.safetensors", "weights"},
		{"pickle", func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(filepath.Join(dir, WeightsName), filepath.Join(dir, "adapter_model.bin")))
		}, tensor.ErrMalformed, "adapter_model.bin: malformed input: not a PyTorch checkpoint", ""},
		{"weights are a directory", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, WeightsName)))
			require.NoError(t, os.Mkdir(filepath.Join(dir, WeightsName), 0o777))
		}, tensor.ErrMalformed, "not a regular file", ""},
		{"weights truncated", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, WeightsName), 1000))
		}, tensor.ErrMalformed, "truncated", "again"},
		{"no tensors", func(t *testing.T, dir string) { store(t, dir) }, tensor.ErrMalformed, "no tensors", "gather"},
		{"an empty tensor", func(t *testing.T, dir string) { store(t, dir, f32("base_model.model.q.lora_A.weight", 0)) },
			tensor.ErrMalformed, `tensor "q.lora_A.weight": malformed input: it is empty`, "gather"},
		{"one tensor spelled twice", func(t *testing.T, dir string) {
			store(t, dir, f32("base_model.model.q.lora_A.weight", 1), f32("base_model.model.q.lora_A.default.weight", 1))
		}, tensor.ErrMalformed, `tensor "q.lora_A.weight"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := golden(t)
			c.spoil(t, dir)
			_, err := Open(dir)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.want)
			require.True(t, strings.HasPrefix(err.Error(), dir) || strings.HasPrefix(err.Error(), "malformed input: "+dir), "%v", err)
			require.Contains(t, hint.Of(err), c.hint)
		})
	}
}

// TestPickled reads what PEFT wrote with safe_serialization=False.
func TestPickled(t *testing.T) {
	want, got := open(t, "testdata/golden"), open(t, "testdata/golden_pickled")
	require.Equal(t, "testdata/golden_pickled/adapter_model.bin", got.Path())
	require.Equal(t, want.Config, got.Config)
	require.ElementsMatch(t, names(want), names(got))
	for info := range want.All() {
		require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name), info.Name)
	}
	tensortest.TestSource(t, got)
}

// TestWriteSameBytesAsPEFT reads what PEFT wrote and writes it again.
func TestWriteSameBytesAsPEFT(t *testing.T) {
	for _, name := range []string{"golden", "golden_regex"} {
		a := open(t, filepath.Join("testdata", name))
		a.Config.InferenceMode = false
		dir := t.TempDir()
		require.NoError(t, Write(context.Background(), dir, a.Config, a, false))
		require.False(t, a.Config.InferenceMode, "what is given is not changed")
		require.Equal(t, []string{ConfigName, WeightsName}, tensortest.Files(t, dir))
		for _, file := range []string{ConfigName, WeightsName} {
			require.Equal(t, string(read(t, filepath.Join("testdata", name, file))), string(read(t, filepath.Join(dir, file))), "%s", file)
		}
	}
}

func TestWriteConvertsToF32(t *testing.T) {
	src := tensortest.NewSource(t, nil,
		tensortest.Tensor{Info: tensor.Info{Name: "q.lora_B.weight", DType: tensor.BF16, Shape: tensor.Shape{2, 1}}, Data: []byte{0x80, 0x3f, 0x00, 0xc0}},
		tensortest.Float32("q.lora_A.weight", tensor.Shape{1, 3}, []float32{1, 2, 3}),
	)
	dir := t.TempDir()
	require.NoError(t, Write(context.Background(), dir, NewConfig(), src, false))
	a := open(t, dir)
	require.Equal(t, []string{"q.lora_A.weight", "q.lora_B.weight"}, names(a))
	require.Equal(t, []float32{1, -2}, tensortest.Floats(t, a, "q.lora_B.weight"))
	require.Equal(t, []float32{1, 2, 3}, tensortest.Floats(t, a, "q.lora_A.weight"))
	f, err := safetensors.Open(filepath.Join(dir, WeightsName))
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, []string{"base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"}, names(f))
}

func TestWriteErrors(t *testing.T) {
	src := tensortest.NewSource(t, nil, tensortest.Normal("q.lora_A.weight", tensor.Shape{4, 8}, 1, 1))
	ctx := context.Background()
	dir := t.TempDir()
	bad := NewConfig()
	bad.R = 0
	require.ErrorContains(t, Write(ctx, dir, bad, src, false), "r is 0")
	require.ErrorContains(t, Write(ctx, dir, NewConfig(), tensortest.NewSource(t, nil), false), "no tensors")
	c64 := tensortest.NewSource(t, nil, tensortest.Tensor{Info: tensor.Info{Name: "q", DType: tensor.C64, Shape: tensor.Shape{1}}, Data: make([]byte, 8)})
	require.ErrorIs(t, Write(ctx, dir, NewConfig(), c64, false), tensor.ErrUnsupported)
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, Write(stopped, dir, NewConfig(), src, false), context.Canceled)
	require.Error(t, Write(ctx, filepath.Join(dir, "none"), NewConfig(), src, false))
	require.Empty(t, tensortest.Files(t, dir), "no failure leaves a file")

	for _, there := range []string{ConfigName, WeightsName} {
		dir := t.TempDir()
		put(t, dir, there, []byte("old"))
		require.ErrorIs(t, Write(ctx, dir, NewConfig(), src, false), fsx.ErrExists)
		require.Equal(t, []string{there}, tensortest.Files(t, dir))
		require.Equal(t, "old", string(read(t, filepath.Join(dir, there))))

		require.ErrorIs(t, Write(stopped, dir, NewConfig(), src, true), context.Canceled)
		require.Equal(t, "old", string(read(t, filepath.Join(dir, there))), "the old file stays until the new one is whole")

		require.NoError(t, Write(ctx, dir, NewConfig(), src, true))
		require.Equal(t, []string{"q.lora_A.weight"}, names(open(t, dir)))
	}
}
