package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// copyFamily copies a checkpoint of testdata/families into a workspace.
func copyFamily(t *testing.T, dir, name string) string {
	t.Helper()
	to := filepath.Join(dir, name)
	require.NoError(t, os.CopyFS(to, os.DirFS(family(name))))
	return to
}

// editHeader replaces a name in a file of tensors by one of the same length.
func editHeader(t *testing.T, path, old, new string) {
	t.Helper()
	require.Len(t, new, len(old))
	text := readFile(t, path)
	require.Contains(t, text, old)
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(text, old, new)), 0o666))
}

// What cannot become a model that other programs load is refused before anything
// is written.
func TestBadConversions(t *testing.T) {
	weights := func(name, old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			editHeader(t, filepath.Join(copyFamily(t, dir, name), "model.safetensors"), old, new)
		}
	}
	config := func(name, old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(copyFamily(t, dir, name), "config.json"), old, new)
		}
	}
	file := func(name, file, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { put(t, filepath.Join(copyFamily(t, dir, name), file), text) }
	}
	gguf := func(name, old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			ok(t, "convert", family(name), filepath.Join(dir, "m.gguf"))
			editHeader(t, filepath.Join(dir, "m.gguf"), old, new)
		}
	}
	to := func(name string) []string { return []string{"convert", name, "out.gguf"} }
	back := []string{"convert", "m.gguf", "out"}
	for name, c := range map[string]badCase{
		"a tensor is missing":             {weights("qwen3", "model.norm.weight", "model.morm.weight"), to("qwen3"), exitInput, []string{"qwen3: tensor", `"model.morm.weight"`, "the qwen3 family has none"}, ""},
		"a layer is missing":              {config("qwen3moe", `"num_hidden_layers": 2`, `"num_hidden_layers": 3`), to("qwen3moe"), exitInput, []string{"model.layers.2.", "the qwen3moe family needs it"}, ""},
		"a layer too many":                {config("gpt2", `"n_layer": 2`, `"n_layer": 1`), to("gpt2"), exitInput, []string{"h.1.", "the gpt2 family has none"}, ""},
		"wrong shape":                     {config("phi3", `"intermediate_size": 64`, `"intermediate_size": 65`), to("phi3"), exitInput, []string{"down_proj", "[32, 64], the configuration makes it [32, 65]"}, ""},
		"an expert too few":               {config("mixtral", `"num_local_experts": 4`, `"num_local_experts": 5`), to("mixtral"), exitInput, []string{"mixtral", "[4, 32], the configuration makes it [5, 32]"}, ""},
		"no experts in a layer":           {config("qwen2moe", `"decoder_sparse_step": 1`, `"decoder_sparse_step": 2`), to("qwen2moe"), exitInput, []string{"qwen2moe", "layer 0 has no experts"}, ""},
		"more rows than ids":              {config("gemma", `"vocab_size": 520`, `"vocab_size": 530`), to("gemma"), exitInput, []string{"embed_tokens", "[520, 32], the configuration makes it [530, 32]"}, ""},
		"unknown activation":              {config("llama3", `"hidden_act": "silu"`, `"hidden_act": "relu6"`), to("llama3"), exitInput, []string{"llama3/config.json", "relu6"}, ""},
		"unknown rope":                    {config("llama3", `"rope_type": "llama3"`, `"rope_type": "mrope"`), to("llama3"), exitInput, []string{"config.json", "mrope"}, ""},
		"configuration that is no object": {file("qwen2", "config.json", "[]"), to("qwen2"), exitInput, []string{"qwen2/config.json"}, ""},
		"deep configuration":              {file("qwen2", "config.json", strings.Repeat(`{"a":`, 1<<20)), to("qwen2"), exitInput, []string{"qwen2/config.json"}, ""},
		"number for a word":               {config("qwen2", `"model_type": "qwen2"`, `"model_type": 7`), to("qwen2"), exitInput, []string{"config.json", "model_type"}, ""},
		"huge number":                     {config("qwen2", `"num_hidden_layers": 2`, `"num_hidden_layers": 1e18`), to("qwen2"), exitInput, []string{"config.json", "num_hidden_layers"}, ""},
		"no tokenizer": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(copyFamily(t, dir, "qwen3"), "tokenizer.json")))
		}, to("qwen3"), exitFailed, []string{"qwen3: no tokenizer.model or tokenizer.json"}, "tokenizer files"},
		"tokenizer.json that is none":  {file("qwen3", "tokenizer.json", `{"model": 3}`), to("qwen3"), exitInput, []string{"tokenizer.json"}, ""},
		"deep tokenizer.json":          {file("qwen3", "tokenizer.json", strings.Repeat("[", 1<<20)), to("qwen3"), exitInput, []string{"tokenizer.json"}, ""},
		"tokenizer.model that is none": {file("llama", "tokenizer.model", "\xff\xff\xff\xff\xff\xff"), to("llama"), exitInput, []string{"tokenizer.model"}, ""},
		"unknown pre-tokenizer":        {nil, append(to("GOLDENS/families/qwen3"), "--pre", "qwen9"), exitUsage, []string{`"qwen9"`}, "qwen2"},
		"another architecture":         {gguf("qwen3", "qwen3", "qwen9"), back, exitInput, []string{"m.gguf", `"qwen9"`}, ""},
		"another tensor":               {gguf("qwen3", "blk.1.ffn_up.weight", "blk.1.ffn_op.weight"), back, exitInput, []string{"m.gguf", "blk.1.ffn_up.weight", "the qwen3 family needs it"}, ""},
		"another hyperparameter":       {gguf("qwen3", "qwen3.block_count", "qwen3.block_cound"), back, exitInput, []string{"m.gguf", "qwen3.block_count"}, ""},
		"an adapter without its base":  {nil, []string{"convert", "GOLDENS/families/adapters/llama-lora", "out.gguf"}, exitUsage, []string{"llama-lora", "nibble-tests/llama"}, "--base"},
		"an adapter of another model":  {nil, []string{"convert", "GOLDENS/families/adapters/llama-lora", "out.gguf", "--base", "GOLDENS/families/qwen3"}, exitInput, []string{"llama-lora", "lora_A.weight", "shape"}, "another model"},
		"an adapter into a directory":  {nil, []string{"convert", "GOLDENS/families/adapters/llama-lora", "out"}, exitUsage, []string{"can only become a .gguf file"}, ".gguf"},
		"a part is missing": {func(t *testing.T, dir string) {
			ok(t, "convert", family("qwen3"), filepath.Join(dir, "m.gguf"), "--split-max-tensors", "10")
			require.NoError(t, os.Remove(filepath.Join(dir, "m-00002-of-00003.gguf")))
		}, []string{"convert", "m-00001-of-00003.gguf", "out.gguf"}, exitFailed, []string{"m-00002-of-00003.gguf"}, "all of them"},
		"not the first part": {func(t *testing.T, dir string) {
			ok(t, "convert", family("qwen3"), filepath.Join(dir, "m.gguf"), "--split-max-tensors", "10")
		}, []string{"convert", "m-00002-of-00003.gguf", "out.gguf"}, exitInput, []string{"m-00002-of-00003.gguf"}, "00001"},
	} {
		t.Run(name, func(t *testing.T) { c.run(t) })
	}
}
