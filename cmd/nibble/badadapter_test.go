package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
)

// single writes a file of tensors, each 2 x 2 but for scalars.
func single(t *testing.T, path string, names ...string) {
	t.Helper()
	var list []tensortest.Tensor
	for _, n := range names {
		list = append(list, tensortest.Float32(n, []int64{2, 2}, []float32{1, 2, 3, 4}))
	}
	w, err := safetensors.Create(path, false)
	require.NoError(t, err)
	tensortest.Copy(t, tensortest.NewSource(t, nil, list...), w)
}

// Adapters that are not what they should be, and flags that do not fit: one clear line before
// anything is written.
func TestBadAdapters(t *testing.T) {
	lora := func(t *testing.T, dir string) string {
		to := filepath.Join(dir, "lora")
		require.NoError(t, os.CopyFS(to, os.DirFS(familyAdapter("qwen2-lora"))))
		return to
	}
	config := func(old, new string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { edit(t, filepath.Join(lora(t, dir), "adapter_config.json"), old, new) }
	}
	mlx := func(old, new string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			require.NoError(t, os.CopyFS(filepath.Join(dir, "lora"), os.DirFS("testdata/mlx")))
			edit(t, filepath.Join(dir, "lora/adapter_config.json"), old, new)
		}
	}
	file := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { single(t, filepath.Join(dir, "lora.safetensors"), names...) }
	}
	only := func(t *testing.T, dir string) { lora(t, dir) }
	down, up := "lora_te_x.lora_down.weight", "lora_te_x.lora_up.weight"
	for name, c := range map[string]badCase{
		"a model":      {nil, []string{"adapter", "inspect", "stories260K"}, exitInput, []string{"stories260K", "where an adapter is needed"}, "an adapter is"},
		"no such file": {nil, []string{"adapter", "rank", "nowhere"}, exitFailed, []string{"nowhere", "does not exist"}, "check the path"},
		"empty adapter": {func(t *testing.T, dir string) {
			put(t, lora(t, dir)+"/adapter_model.safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{}")
		}, []string{"adapter", "inspect", "lora"}, exitInput, []string{"no tensors"}, "gather"},
		"not a rank of its own": {config(`"r": 4`, `"r": 8`), []string{"adapter", "resize", "lora", "out", "--rank", "2"}, exitInput, []string{"its rank is 4, the configuration says 8"}, "does not belong"},
		"a rank of nothing":     {config(`"rank_pattern": {}`, `"rank_pattern": {"q_proj": 0}`), []string{"adapter", "inspect", "lora"}, exitInput, []string{"rank_pattern", "q_proj"}, ""},
		"another method":        {config(`"LORA"`, `"LOHA"`), []string{"adapter", "inspect", "lora"}, exitInput, []string{"LOHA"}, ""},
		"unknown arithmetic":    {config(`"use_qalora": false`, `"use_qalora": true`), []string{"adapter", "resize", "lora", "out", "--rank", "2"}, exitInput, []string{"use_qalora"}, ""},
		"DoRA in a sum":         {config(`"use_dora": false`, `"use_dora": true`), []string{"adapter", "combine", "lora", "--out", "out"}, exitInput, []string{"use_dora"}, ""},
		"no MLX scale":          {mlx(`"scale"`, `"scales"`), []string{"adapter", "inspect", "lora"}, exitInput, []string{"lora_parameters has no scale"}, "default is 20"},
		"whole MLX weights":     {mlx(`"lora",`, `"full",`), []string{"adapter", "inspect", "lora"}, exitInput, []string{"fine_tune_type is full"}, "fuse"},
		"MLX without weights": {func(t *testing.T, dir string) {
			mlx(`"lora",`, `"lora",`)(t, dir)
			require.NoError(t, os.Remove(filepath.Join(dir, "lora/adapters.safetensors")))
		},
			[]string{"adapter", "inspect", "lora"}, exitInput, []string{"no adapters.safetensors"}, "checkpoints"},
		"LoHa":              {file(down, up, "lora_te_y.hada_w1_a"), []string{"adapter", "inspect", "lora.safetensors"}, exitInput, []string{"lora.safetensors", "a LoHa"}, ""},
		"half a pair":       {file(down), []string{"adapter", "inspect", "lora.safetensors"}, exitInput, []string{"there is no x.lora_B.weight"}, ""},
		"alpha is a matrix": {file(down, up, "lora_te_x.alpha"), []string{"adapter", "inspect", "lora.safetensors"}, exitInput, []string{"want one number"}, ""},
		"whose model":       {file(down, up), []string{"adapter", "convert", "lora.safetensors", "d.safetensors", "--to", "diffusers"}, exitInput, []string{"which model of a pipeline"}, "--component"},
		"no such model":     {file(down, up), []string{"adapter", "convert", "lora.safetensors", "d.safetensors", "--component", "vae"}, exitInput, []string{`called "vae"`}, "text_encoder"},
		"several models": {file("unet.a.lora_A.weight", "unet.a.lora_B.weight", "text_encoder.b.lora_A.weight", "text_encoder.b.lora_B.weight"),
			[]string{"adapter", "convert", "lora.safetensors", "out"}, exitInput, []string{"unet", "text_encoder", "a directory for each"}, "one file"},
		"to what":          {only, []string{"adapter", "convert", "lora", "out"}, exitUsage, []string{"what is to become of it"}, "--to"},
		"to nothing known": {only, []string{"adapter", "convert", "lora", "out", "--to", "onnx"}, exitUsage, []string{"onnx"}, "kohya"},
		"wrong extension":  {only, []string{"adapter", "convert", "lora", "out", "--to", "kohya"}, exitUsage, []string{"does not look like it"}, ".safetensors"},
		"GGUF needs base":  {only, []string{"adapter", "convert", "lora", "out.gguf"}, exitUsage, []string{"nibble-tests/qwen2"}, "--base"},
		"GGUF of another":  {only, []string{"adapter", "convert", "lora", "out.gguf", "--base", "stories260K"}, exitInput, []string{"lora"}, "another model"},
		"types of MLX":     {only, []string{"adapter", "convert", "lora", "out", "--to", "mlx", "--outtype", "f16"}, exitUsage, []string{"f16"}, "f32"},
		"onto itself":      {only, []string{"adapter", "convert", "lora", "lora", "--to", "mlx", "--force"}, exitUsage, []string{"the output is the input"}, ""},
		"no size":          {only, []string{"adapter", "resize", "lora", "out"}, exitUsage, []string{"what size"}, "--energy"},
		"no share":         {only, []string{"adapter", "resize", "lora", "out", "--energy", "1.5"}, exitUsage, []string{"1.5"}, ""},
		"no room":          {only, []string{"adapter", "resize", "lora", "out", "--max-size", "10"}, exitUsage, []string{"no room"}, "more"},
		"no adapters":      {nil, []string{"adapter", "combine", "--out", "out"}, exitUsage, []string{"no adapters"}, "usage"},
		"no such method":   {only, []string{"adapter", "combine", "lora", "--out", "out", "--method", "mean"}, exitUsage, []string{`"mean"`}, "cat"},
		"no density":       {only, []string{"adapter", "combine", "lora", "--out", "out", "--method", "peft-ties"}, exitUsage, []string{"--density"}, "default"},
		"idle rank":        {only, []string{"adapter", "combine", "lora", "--out", "out", "--rank", "3"}, exitUsage, []string{"--rank is not for"}, "svd"},
		"weight of slerp":  {only, []string{"adapter", "combine", "lora:0.5", "lora", "--out", "out", "--method", "slerp"}, exitUsage, []string{"takes no weight"}, "t"},
		"three of two":     {only, []string{"adapter", "combine", "lora", "lora", "lora", "--out", "out", "--method", "slerp"}, exitUsage, []string{"at most 2"}, ""},
		"idle lambda":      {only, []string{"adapter", "combine", "lora", "--out", "out", "--lambda", "2"}, exitUsage, []string{"--lambda 2"}, "takes"},
		"not a weight":     {only, []string{"adapter", "combine", "lora:much", "--out", "out"}, exitUsage, []string{"much"}, "weight"},
		"ranks differ": {func(t *testing.T, dir string) {
			ok(t, "adapter", "resize", lora(t, dir), filepath.Join(dir, "less"), "--rank", "2")
		},
			[]string{"adapter", "combine", "lora", "less", "--out", "out", "--method", "peft-linear"}, exitInput, []string{"ranks 4 and 2"}, "svd"},
		"of another model": {only, []string{"adapter", "combine", "lora", "GOLDENS/llama/gqa/adapter_r3", "--out", "out"}, exitInput, []string{"model.layers.0.", "another kind of layer"}, ""},
		"extract of another family": {nil, []string{"adapter", "extract", "--base", "stories260K", "--model", "GOLDENS/families/qwen2", "--out", "out", "--rank", "2"}, exitInput,
			[]string{"qwen2", "llama"}, "fine-tuned from this base"},
		"extract of another size": {nil, []string{"adapter", "extract", "--base", "stories260K", "--model", "GOLDENS/families/llama", "--out", "out", "--rank", "2"}, exitInput,
			[]string{"families/llama", "tensor"}, "fine-tuned from this base"},
		"extract of the same": {nil, []string{"adapter", "extract", "--base", "GOLDENS/families/llama", "--model", "GOLDENS/families/llama", "--out", "out", "--rank", "2"}, exitFailed,
			[]string{"no linear layer differs"}, "diff"},
		"extract without size":    {nil, []string{"adapter", "extract", "--base", "stories260K", "--model", "stories260K", "--out", "out"}, exitUsage, []string{"what size"}, "--rank"},
		"picture of another kind": {only, []string{"adapter", "rank", "lora", "--plot", "r.jpg"}, exitUsage, []string{"r.jpg"}, ".svg"},
		"occupied": {func(t *testing.T, dir string) { put(t, filepath.Join(lora(t, dir), "../out/notes.txt"), "mine") }, []string{"adapter", "resize", "lora", "out", "--rank", "2", "--force"}, exitFailed,
			[]string{"out", "exists"}, "remove"},
	} {
		t.Run(name, c.run)
	}
}
