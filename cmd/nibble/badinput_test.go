package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// every returns all paths below a directory.
func every(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		out = append(out, path)
		return err
	}))
	return out
}

func edit(t *testing.T, path, old, new string) {
	t.Helper()
	text := readFile(t, path)
	require.Contains(t, text, old)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(text, old, new, 1)), 0o666))
}

func put(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
}

// TestBadInput runs a command on something that is wrong. It must end with the
// right exit code, one clear line and a hint, and leave nothing behind.
// badCase is a command that must fail, with one clear line and nothing left behind.
type badCase struct {
	prepare func(t *testing.T, dir string)
	args    []string
	code    int
	says    []string // on stderr
	hint    string
}

func (c *badCase) run(t *testing.T) {
	dir := workspace(t)
	if c.prepare != nil {
		c.prepare(t, dir)
	}
	before := every(t, dir)
	abs, err := filepath.Abs(goldens)
	require.NoError(t, err)
	args := slices.Clone(c.args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "GOLDENS", abs)
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	text := stderr.String()
	require.Less(t, len(text), 4000)
	require.Equal(t, c.code, cmd.ProcessState.ExitCode(), "%s", text)
	for _, s := range c.says {
		require.Contains(t, text, s)
	}
	require.NotContains(t, text, "panic")
	require.NotContains(t, text, "goroutine")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	errorLines := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, "nibble: ") })
	require.Len(t, errorLines, 1, "one clear line:\n%s", text)
	if c.hint != "" {
		require.True(t, strings.HasPrefix(lines[len(lines)-1], "hint: "), "%s", text)
		require.Contains(t, lines[len(lines)-1], c.hint)
	}
	require.Equal(t, before, every(t, dir), "nothing is left behind")
}

func TestBadInput(t *testing.T) {
	shard := func(t *testing.T, dir string) string {
		ok(t, "convert", filepath.Join(dir, "stories260K"), filepath.Join(dir, "sharded"), "--max-shard-size", "300KB")
		return filepath.Join(dir, "sharded/model-00002-of-00004.safetensors")
	}
	nan := func(t *testing.T, dir string) {
		path := filepath.Join(dir, "stories260K/model.safetensors")
		b := []byte(readFile(t, path))
		n := 8 + int(b[0]) + int(b[1])<<8
		// A quiet NaN in layer 3's up_proj, which lies near the end.
		at := n + 814080 + 4*100
		copy(b[at:], []byte{0, 0, 0xc0, 0x7f})
		require.NoError(t, os.WriteFile(path, b, 0o666))
	}
	adapter := func(t *testing.T, dir string) string {
		ok(t, "train", "--model", filepath.Join(dir, "stories260K"), "--data", filepath.Join(goldens, "stories260K/shakespeare.txt"),
			"--output-dir", filepath.Join(dir, "adapter"), "--iters", "2", "--batch-size", "1", "--max-seq-length", "16", "--rank", "2", "--quiet")
		return filepath.Join(dir, "adapter")
	}
	trainArgs := []string{"train", "--model", "stories260K", "--data", "data.jsonl", "--output-dir", "out"}

	for name, c := range map[string]badCase{
		"missing file": {nil, []string{"inspect", "no-such-model"}, exitFailed,
			[]string{"no-such-model", "file does not exist"}, "check the path"},
		"directory without config.json": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "stories260K/config.json")))
		},
			[]string{"quantize", "stories260K", "out"}, exitInput, []string{"stories260K", "config.json"}, ""},
		"truncated shard": {func(t *testing.T, dir string) { require.NoError(t, os.Truncate(shard(t, dir), 200000)) },
			[]string{"convert", "sharded", "out.gguf"}, exitInput, []string{"model-00002-of-00004.safetensors", "truncated"}, "again"},
		"index names a missing shard": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(shard(t, dir))) },
			[]string{"quantize", "sharded", "out"}, exitInput, []string{"model.safetensors.index.json", "model-00002-of-00004.safetensors"}, ""},
		"wrong magic": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "model.gguf"), "version https://git-lfs.github.com/spec/v1")
		},
			[]string{"convert", "model.gguf", "out"}, exitInput, []string{"model.gguf", "neither GGUF nor safetensors"}, "Git LFS"},
		"truncated GGUF": {func(t *testing.T, dir string) {
			ok(t, "convert", filepath.Join(dir, "stories260K"), filepath.Join(dir, "m.gguf"))
			require.NoError(t, os.Truncate(filepath.Join(dir, "m.gguf"), 300000))
		}, []string{"convert", "m.gguf", "out"}, exitInput, []string{"m.gguf"}, ""},
		"hostile key": {func(t *testing.T, dir string) {
			// One metadata entry, whose key has 80000 bytes and whose type is 99.
			put(t, filepath.Join(dir, "m.gguf"), "GGUF\x03\x00\x00\x00"+strings.Repeat("\x00", 8)+"\x01\x00\x00\x00\x00\x00\x00\x00"+
				"\x80\x38\x01\x00\x00\x00\x00\x00"+strings.Repeat("\x1b[2J", 20000)+"\x63\x00\x00\x00")
		}, []string{"inspect", "m.gguf"}, exitInput, []string{"m.gguf", `\x1b[2J`, "bytes ...]", "99"}, ""},
		"adapter for another model": {nil, []string{"merge", "--base", "stories260K", "--adapter", "GOLDENS/llama/gqa/adapter_r3", "--out", "out"}, exitInput,
			[]string{"adapter_r3", "model.layers.0.", "lora_A.weight", "shape"}, "another model"},
		"rank mismatch": {func(t *testing.T, dir string) { edit(t, adapter(t, dir)+"/adapter_config.json", `"r": 2,`, `"r": 4,`) },
			[]string{"merge", "--base", "stories260K", "--adapter", "adapter", "--out", "out.gguf"}, exitInput,
			[]string{"adapter", "its rank is 2, the configuration says 4"}, "adapter_config.json"},
		"adapter that asks for more": {func(t *testing.T, dir string) {
			edit(t, adapter(t, dir)+"/adapter_config.json", `"use_dora": false`, `"use_dora": true`)
		},
			[]string{"eval", "--model", "stories260K", "--adapter", "adapter", "--data", "shakespeare/valid.txt"}, exitInput, []string{"use_dora"}, ""},
		"NaN weight, imatrix": {nan, []string{"imatrix", "--model", "stories260K", "--data", "GOLDENS/stories260K/shakespeare.txt", "--out", "out.gguf"}, exitInput,
			[]string{"nibble: stories260K: ", "model.layers.3.mlp.down_proj.weight add up to NaN"}, "nibble verify"},
		"NaN weight, eval --kl-base": {nan, []string{"eval", "--model", "stories260K", "--kl-base", "stories260K", "--data", "GOLDENS/stories260K/shakespeare.txt"}, exitInput,
			[]string{"nibble: stories260K: ", "not all finite"}, "nibble verify"},
		"imatrix of too little text": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "x.txt"), "Once upon a time there was a cat.")
		},
			[]string{"imatrix", "--model", "stories260K", "--data", "x.txt", "--out", "out.gguf"}, exitInput, []string{"x.txt", "are not two chunks of 512"}, "--max-seq-length"},
		"imatrix of rows": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "x.jsonl"), `{"text": "Once upon a time"}`+"\n")
		},
			[]string{"imatrix", "--model", "stories260K", "--data", "x.jsonl", "--out", "out.gguf"}, exitInput, []string{"x.jsonl", "rows of JSON"}, "jq"},
		"imatrix over something": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "out.gguf"), "mine") },
			[]string{"imatrix", "--model", "stories260K", "--data", "shakespeare/valid.txt", "--out", "out.gguf"}, exitFailed, []string{"out.gguf", "exists"}, "--force"},
		"imatrix over its text": {nil, []string{"imatrix", "--model", "stories260K", "--data", "shakespeare/valid.txt", "--out", "shakespeare/valid.txt", "--force"},
			exitUsage, []string{"the output is the input"}, "another output"},
		"imatrix into nowhere": {nil, []string{"imatrix", "--model", "stories260K", "--data", "shakespeare/valid.txt", "--out", "no/such/out.gguf"}, exitFailed, []string{"no/such"}, ""},
		"imatrix without data": {nil, []string{"imatrix", "--model", "stories260K", "--out", "out.gguf"}, exitUsage, []string{"--data is missing"}, "--help"},
		"imatrix of no chunks": {nil, []string{"imatrix", "--model", "stories260K", "--data", "shakespeare/valid.txt", "--out", "out.gguf", "--chunks", "-1"},
			exitUsage, []string{"--chunks -1"}, ""},
		"imatrix of a folder": {nil, []string{"imatrix", "--model", "stories260K", "--data", "shakespeare", "--out", "out.gguf"}, exitFailed, []string{"shakespeare", "not a file"}, ""},
		"KL against nothing":  {nil, []string{"eval", "--model", "stories260K", "--kl-base", "none", "--data", "shakespeare/valid.txt"}, exitFailed, []string{"none"}, "check the path"},
		"NaN weight, quantize": {nan, []string{"quantize", "stories260K", "out"}, exitInput,
			[]string{"nibble: stories260K: tensor", "model.layers.3.mlp.up_proj.weight", "element 100 is NaN"}, ""},
		"NaN weight, quantize with an adapter": {nan, []string{"quantize", "stories260K", "out", "--init-adapter", "loftq"}, exitInput,
			[]string{"nibble: stories260K: tensor", "model.layers.3.mlp.up_proj.weight", "element 100 is NaN"}, ""},
		"NaN weight, merge": {func(t *testing.T, dir string) { adapter(t, dir); nan(t, dir) },
			[]string{"merge", "--base", "stories260K", "--adapter", "adapter", "--out", "out"}, exitInput,
			[]string{"model.layers.3.mlp.up_proj.weight", "element 100 of the base is NaN"}, "nibble verify"},
		"NaN weight, verify": {nan, []string{"verify", "stories260K"}, exitInput, []string{"1 problem"}, ""},
		"unknown config key": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "c.yaml"), "learning_rat: 1e-3\n") },
			append(slices.Clone(trainArgs), "--config", "c.yaml"), exitUsage, []string{"c.yaml", `"learning_rat"`}, `"learning_rate"`},
		"config that is not YAML": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "c.yaml"), "a: [1\n") },
			append(slices.Clone(trainArgs), "--config", "c.yaml"), exitUsage, []string{"c.yaml"}, ""},
		"config value": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "c.yaml"), "rank: many\n") },
			append(slices.Clone(trainArgs), "--config", "c.yaml"), exitUsage, []string{"c.yaml: rank", "many"}, ""},
		"line that is not JSON": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "data.jsonl"), "{\"text\": \"a b\"}\n{\"text\": \n")
		},
			trainArgs, exitInput, []string{"data.jsonl:2"}, ""},
		"line of another shape": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "data.jsonl"), "{\"txt\": \"a b\"}\n") },
			trainArgs, exitInput, []string{"data.jsonl:1", "txt"}, ""},
		"zero trained tokens": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "data.jsonl"), "{\"prompt\": \""+strings.Repeat("long ", 100)+"\", \"completion\": \"x\"}\n")
		}, append(slices.Clone(trainArgs), "--max-seq-length", "20"), exitInput, []string{"data.jsonl:1"}, "--max-seq-length"},
		"no data": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "data.jsonl"), "") }, trainArgs, exitInput, []string{"data.jsonl"}, ""},
		"output exists": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "out/config.json"), "{}") },
			[]string{"quantize", "stories260K", "out"}, exitFailed, []string{"out: output exists"}, "--force"},
		"output file exists": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "out.gguf"), "old") },
			[]string{"convert", "stories260K", "out.gguf"}, exitFailed, []string{"out.gguf: output exists"}, "--force"},
		"training output exists": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "out/trainer_log.jsonl"), "")
			put(t, filepath.Join(dir, "data.jsonl"), `{"text": "a b c"}`)
		},
			trainArgs, exitFailed, []string{"out: output exists"}, "--resume"},
		"output is not ours to replace": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "out/thesis.tex"), "") },
			[]string{"quantize", "stories260K", "out", "--force"}, exitFailed, []string{"out", "does not look like"}, "remove the directory yourself"},
		"output equals input": {nil, []string{"quantize", "stories260K", "./stories260K/../stories260K", "--force"}, exitUsage, []string{"the output is the input"}, "another output"},
		"output equals adapter": {func(t *testing.T, dir string) { adapter(t, dir) },
			[]string{"merge", "--base", "stories260K", "--adapter", "adapter", "--out", "adapter", "--force"}, exitUsage, []string{"the output is the input"}, ""},
		"unwritable directory": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "a-file"), "") },
			[]string{"convert", "stories260K", "a-file/out.gguf"}, exitFailed, []string{"a-file/out.gguf"}, ""},
		"unwritable output dir": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "a-file"), "")
			put(t, filepath.Join(dir, "data.jsonl"), `{"text": "a b c"}`)
		},
			[]string{"train", "--model", "stories260K", "--data", "data.jsonl", "--output-dir", "a-file/out"}, exitFailed, []string{"a-file/out"}, "--output-dir"},
		"not enough memory": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "data.jsonl"), `{"text": "a b c"}`) },
			append(slices.Clone(trainArgs), "--memory", "1MiB"), exitFailed, []string{"over the budget of 1.00 MiB"}, "--memory"},
		"unknown flag":               {nil, []string{"quantize", "stories260K", "out", "--bits", "4"}, exitUsage, []string{"--bits"}, "--help"},
		"unknown command":            {nil, []string{"quantise", "stories260K", "out"}, exitUsage, []string{"quantise"}, "quantize"},
		"missing flag":               {nil, []string{"merge", "--base", "stories260K", "--out", "out"}, exitUsage, []string{"--adapter is missing"}, ""},
		"argument count":             {nil, []string{"convert", "stories260K"}, exitUsage, []string{"accepts 2 arg"}, "usage:"},
		"quantize type":              {nil, []string{"quantize", "stories260K", "out", "--type", "q4_9"}, exitUsage, []string{"q4_9"}, "nf4"},
		"block size":                 {nil, []string{"quantize", "stories260K", "out", "--block-size", "48"}, exitUsage, []string{"48"}, ""},
		"output type":                {nil, []string{"convert", "stories260K", "out", "--outtype", "q8_0"}, exitUsage, []string{"q8_0"}, "bf16"},
		"merge, type of a file":      {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out", "--quantize", "q4_0"}, exitUsage, []string{"q4_0 is a type of GGUF files"}, ".gguf"},
		"merge, type of a directory": {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out.gguf", "--quantize", "nf4"}, exitUsage, []string{"nf4 is stored as safetensors"}, "directory"},
		"merge, no such type":        {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out", "--quantize", "q9"}, exitUsage, []string{`no quantization type "q9"`}, "keep, fp4"},
		"merge, flag of another type": {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out", "--quantize", "nf4", "--imatrix", "i.gguf"}, exitUsage,
			[]string{"--imatrix is of the types of GGUF"}, "leave the flag out"},
		"merge, flag of no type": {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out", "--block-size", "128"}, exitUsage, []string{"--block-size is of the types of bitsandbytes"}, ""},
		"merge, two types":       {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out.gguf", "--quantize", "q4_0", "--dtype", "f16"}, exitUsage, []string{"--dtype f16 and --quantize q4_0"}, ""},
		"merge, keep of what is plain": {func(t *testing.T, dir string) { adapter(t, dir) },
			[]string{"merge", "--base", "stories260K", "--adapter", "adapter", "--out", "out", "--quantize", "keep"}, exitUsage, []string{"no weights of bitsandbytes"}, "name a type"},
		"merge, keep in another form": {func(t *testing.T, dir string) { adapter(t, dir) },
			[]string{"merge", "--base", "stories260K", "--adapter", "adapter", "--out", "out.gguf", "--quantize", "keep"}, exitUsage, []string{"out.gguf cannot be quantized as stories260K is"}, "--quantize q4_k_m"},
		"through what is no type": {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out", "--through", "q4_0"}, exitUsage, []string{"--through q4_0"}, "nf4:128"},
		"through a block of 3":    {nil, []string{"merge", "--base", "stories260K", "--adapter", "x", "--out", "out", "--through", "nf4:3"}, exitUsage, []string{"block size 3"}, ""},
		"through twice": {func(t *testing.T, dir string) {
			adapter(t, dir)
			ok(t, "quantize", filepath.Join(dir, "stories260K"), filepath.Join(dir, "nf4"))
		}, []string{"merge", "--base", "nf4", "--adapter", "adapter", "--out", "out", "--through", "nf4"}, exitUsage, []string{"quantized already"}, "the original as --base"},
		"adapter weight": {nil, []string{"merge", "--base", "stories260K", "--adapter", "x:heavy", "--out", "out"}, exitUsage, []string{"heavy"}, "DIR:weight"},
		"model for adapter": {nil, []string{"merge", "--base", "stories260K", "--adapter", "stories260K", "--out", "out"}, exitInput,
			[]string{"where an adapter is needed"}, "adapter_config.json"},
		"adapter for model": {nil, []string{"eval", "--model", "GOLDENS/llama/gqa/adapter_r3", "--data", "shakespeare/valid.txt"}, exitInput, []string{"where a model is needed"}, "--adapter"},
		"nothing to decode": {nil, []string{"dequantize", "stories260K", "out"}, exitInput, []string{"no weight of it is quantized"}, "convert"},
		"training a full NF4": {func(t *testing.T, dir string) {
			ok(t, "quantize", filepath.Join(dir, "stories260K"), filepath.Join(dir, "q"))
			put(t, filepath.Join(dir, "data.jsonl"), `{"text": "a b c"}`)
		},
			[]string{"train", "--model", "q", "--data", "data.jsonl", "--output-dir", "out", "--fine-tune-type", "full"}, exitInput, []string{"full fine-tuning of NF4"}, "lora"},
		"mask of plain text": {nil, []string{"train", "--model", "stories260K", "--data", "shakespeare", "--output-dir", "out", "--mask-prompt"}, exitInput, []string{"shakespeare"}, ""},
		"resume from nothing": {func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, "empty"), 0o777))
			put(t, filepath.Join(dir, "data.jsonl"), `{"text": "a b c"}`)
		},
			append(slices.Clone(trainArgs), "--resume", "empty"), exitInput, []string{"empty", "checkpoint-"}, "--resume"},
		"another vocabulary": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "stories260K/config.json"), `"vocab_size": 512`, `"vocab_size": 500`)
		},
			[]string{"convert", "stories260K", "out.gguf"}, exitInput, []string{"512", "500"}, ""},
		"truncated shard, diff": {func(t *testing.T, dir string) { require.NoError(t, os.Truncate(shard(t, dir), 200000)) },
			[]string{"diff", "stories260K", "sharded"}, exitInput, []string{"model-00002-of-00004.safetensors", "truncated"}, "again"},
		"negative tolerance":    {nil, []string{"diff", "stories260K", "stories260K", "--tolerance", "-1"}, exitUsage, []string{"--tolerance is -1"}, ""},
		"manifest that is none": {nil, []string{"verify", "stories260K", "--manifest", "stories260K/LICENSE"}, exitInput, []string{"LICENSE:1", "sha256sum"}, ""},
		"manifest of other files": {func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "sums"), strings.Repeat("0", 64)+"  ../../etc/passwd\n")
		}, []string{"verify", "stories260K", "--manifest", "sums"}, exitInput, []string{"sums:1", "../../etc/passwd"}, ""},
		"manifest over a weight": {nil, []string{"verify", "stories260K", "--write-manifest", "stories260K/model.safetensors", "--force"}, exitUsage,
			[]string{"the output is the input"}, "another output"},
		"manifest over the input": {nil, []string{"verify", "stories260K/model.safetensors", "--write-manifest", "stories260K/model.safetensors", "--force"}, exitUsage,
			[]string{"the output is the input"}, "another output"},
		"manifest exists": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "sums"), "old") },
			[]string{"verify", "stories260K", "--write-manifest", "sums"}, exitFailed, []string{"sums: output exists"}, "--force"},
		"manifest of NaN":        {nan, []string{"verify", "stories260K", "--write-manifest", "sums"}, exitInput, []string{"1 problem"}, ""},
		"picture that is no PNG": {nil, []string{"inspect", "stories260K", "--plot", "w.svg"}, exitUsage, []string{"w.svg"}, ".png"},
		"picture exists": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "w.png"), "old") },
			[]string{"inspect", "stories260K", "--plot", "w.png"}, exitFailed, []string{"w.png: output exists"}, "--force"},
		"picture over the input": {func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(filepath.Join(dir, "stories260K/model.safetensors"), filepath.Join(dir, "x.png")))
		}, []string{"inspect", "x.png", "--plot", "x.png", "--force"}, exitUsage, []string{"the output is the input"}, ""},
		"config of impossible numbers": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "stories260K/config.json"), `"hidden_size": 64`, `"hidden_size": -64`)
		},
			[]string{"inspect", "stories260K/model.safetensors", "--tensors", "extra"}, exitUsage, []string{"accepts 1 arg"}, ""},
	} {
		t.Run(name, func(t *testing.T) { c.run(t) })
	}
}

func TestForceReplacesAModel(t *testing.T) {
	dir := workspace(t)
	base, out := filepath.Join(dir, "stories260K"), filepath.Join(dir, "out")
	ok(t, "quantize", base, out)
	first := tensors(t, out)
	ok(t, "convert", base, out, "--outtype", "f16", "--force")
	require.NotEqual(t, first, tensors(t, out))
	require.NotContains(t, readFile(t, out+"/config.json"), "quantization_config")
	gguf := filepath.Join(dir, "m.gguf")
	ok(t, "convert", base, gguf, "--outtype", "f16")
	ok(t, "convert", base, gguf, "--outtype", "f32", "--force")
	require.Contains(t, tensors(t, gguf)["token_embd.weight"], "F32")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.False(t, strings.HasPrefix(e.Name(), "."), "%s is left behind", e.Name())
	}
}

// trainIn returns the arguments of a short run in a workspace.
func trainIn(dir, out string, more ...string) []string {
	return append([]string{"train", "--model", filepath.Join(dir, "stories260K"), "--data", filepath.Join(dir, "data"), "--output-dir", filepath.Join(dir, out),
		"--iters", "12", "--batch-size", "2", "--max-seq-length", "24", "--rank", "2", "--alpha", "4", "--learning-rate", "1e-2",
		"--save-every", "4", "--steps-per-eval", "4", "--dropout", "0.1"}, more...)
}

// rows writes a data folder of prompts and completions.
func rows(t *testing.T, dir string) {
	t.Helper()
	var b strings.Builder
	for _, s := range []string{"dog", "cat", "bird", "fish", "boy", "girl", "mom", "dad", "ball"} {
		line, err := json.Marshal(map[string]string{"prompt": "One day a " + s, "completion": " saw a big " + s + " and said hello."})
		require.NoError(t, err)
		b.Write(append(line, '\n'))
	}
	put(t, filepath.Join(dir, "data/train.jsonl"), b.String())
	put(t, filepath.Join(dir, "data/valid.jsonl"), b.String())
}

// logWithoutTimes reads a trainer_log.jsonl without what depends on the clock.
func logWithoutTimes(t *testing.T, path string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, line := range strings.Split(strings.TrimSpace(readFile(t, path)), "\n") {
		var r map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		delete(r, "tokens_per_second")
		delete(r, "elapsed")
		delete(r, "disk_wait")
		delete(r, "bytes_read") // some of them again after it was resumed
		delete(r, "bytes_written")
		out = append(out, r)
	}
	return out
}

func TestResumedRunEndsTheSame(t *testing.T) {
	for _, kind := range []string{"lora", "full"} {
		dir := workspace(t)
		rows(t, dir)
		ok(t, trainIn(dir, "whole", "--fine-tune-type", kind)...)
		// The checkpoint is moved away, as if the run had been killed after it.
		ok(t, trainIn(dir, "part", "--fine-tune-type", kind, "--threads", "1")...)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "part/checkpoint-12")))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "part/checkpoint-8")))
		ok(t, trainIn(dir, "part", "--fine-tune-type", kind, "--resume", filepath.Join(dir, "part"))...)
		require.Equal(t, logWithoutTimes(t, filepath.Join(dir, "whole/trainer_log.jsonl")), logWithoutTimes(t, filepath.Join(dir, "part/trainer_log.jsonl")))
		weights := map[string]string{"lora": "adapter_model.safetensors", "full": "model.safetensors"}[kind]
		for _, name := range []string{weights, "checkpoint-12/" + weights, "checkpoint-12/optimizer.safetensors", "checkpoint-12/trainer_state.json"} {
			require.True(t, readFile(t, filepath.Join(dir, "whole", name)) == readFile(t, filepath.Join(dir, "part", name)), "%s differs in its bits", name)
		}
	}
}

func TestInterruptedTraining(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	out := filepath.Join(dir, "out")
	args := append(trainIn(dir, "out"), "--iters", "100000", "--save-every", "0", "--steps-per-eval", "0", "--lr-scheduler-type", "constant")
	cmd := exec.Command(binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		b, _ := os.ReadFile(filepath.Join(out, "trainer_log.jsonl"))
		return bytes.Count(b, []byte("\n")) > 3
	}, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode(), stderr.String())
	require.Contains(t, stderr.String(), "hint: nothing is lost: go on with --resume")
	saved, err := filepath.Glob(filepath.Join(out, "checkpoint-*"))
	require.NoError(t, err)
	require.Len(t, saved, 1)
	var state struct {
		Step int `json:"global_step"`
	}
	require.NoError(t, json.Unmarshal([]byte(readFile(t, saved[0]+"/trainer_state.json")), &state))
	ok(t, append(args, "--iters", "200000", "--resume", out, "--dry-run")...)
}

func TestKilledTrainingCanBeResumed(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	out := filepath.Join(dir, "out")
	args := append(trainIn(dir, "out"), "--iters", "400", "--save-every", "1", "--steps-per-eval", "0")
	cmd := exec.Command(binary, args...)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		saved, _ := filepath.Glob(filepath.Join(out, "checkpoint-*"))
		return len(saved) > 5
	}, 30*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	// Whatever it was at, every checkpoint that has its name is whole.
	saved, err := filepath.Glob(filepath.Join(out, "checkpoint-*"))
	require.NoError(t, err)
	for _, c := range saved {
		for _, name := range []string{"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "trainer_state.json"} {
			require.FileExists(t, filepath.Join(c, name))
		}
		ok(t, "verify", c)
	}
	last, err := lastCheckpoint(out)
	require.NoError(t, err)
	c, files, err := openCheckpoint(last)
	require.NoError(t, err)
	files.Close()
	ok(t, append(args, "--resume", out, "--iters", itoa(c.State.Step+3), "--quiet")...)
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestConfigFile(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	put(t, filepath.Join(dir, "c.yaml"), "# comment\nmodel: "+filepath.Join(dir, "stories260K")+"\ndata: "+filepath.Join(dir, "data")+"\noutput-dir: "+filepath.Join(dir, "out")+
		"\nrank: 4\nalpha: 8\nlearning_rate: 3e-3\ntarget_modules: [q_proj, v_proj]\nuse_rslora: true\nmax_seq_length: 32\n")
	var r struct {
		Config struct {
			Rank    int
			Alpha   float64
			LR      float64  `json:"learning_rate"`
			Targets []string `json:"target_modules"`
			RS      bool     `json:"use_rslora"`
		}
	}
	okJSON(t, &r, "train", "--config", filepath.Join(dir, "c.yaml"), "--rank", "7", "--dry-run")
	require.Equal(t, 7, r.Config.Rank, "the command line wins")
	require.Equal(t, 8.0, r.Config.Alpha)
	require.Equal(t, 3e-3, r.Config.LR)
	require.Equal(t, []string{"q_proj", "v_proj"}, r.Config.Targets)
	require.True(t, r.Config.RS)
}

func TestTrainForceReplacesARun(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	ok(t, trainIn(dir, "out")...)
	first := readFile(t, filepath.Join(dir, "out/adapter_model.safetensors"))
	// A run that fails at once leaves the old one as it is.
	o := nibble(t, trainIn(dir, "out", "--force", "--target-modules", "none")...)
	require.NotEqual(t, exitDone, o.code)
	require.True(t, first == readFile(t, filepath.Join(dir, "out/adapter_model.safetensors")))
	ok(t, trainIn(dir, "out", "--force", "--seed", "5", "--save-every", "0")...)
	require.False(t, first == readFile(t, filepath.Join(dir, "out/adapter_model.safetensors")))
	require.NoDirExists(t, filepath.Join(dir, "out/checkpoint-4"), "nothing of the old run is left")
	hidden, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, hidden)
}

func TestPromptsAreMasked(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	var masked, unmasked trainResult
	okJSON(t, &masked, trainIn(dir, "a")...)
	okJSON(t, &unmasked, trainIn(dir, "b", "--mask-prompt=false")...)
	require.Less(t, masked.NumTokens, unmasked.NumTokens)
	var again trainResult
	okJSON(t, &again, trainIn(dir, "c", "--mask-prompt")...)
	require.Equal(t, masked.NumTokens, again.NumTokens)
	require.Equal(t, masked.Loss, again.Loss)
}
