package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/cmd/nibble/demo"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/internal/tensortest"
)

// The tests below run the built program, as a user does.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nibble-test")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "nibble")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const goldens = "../../testdata"

// output is how a run of the program ended.
type output struct {
	stdout, stderr string
	code           int
}

func nibble(t *testing.T, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(t, err)
	}
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	o := nibble(t, args...)
	require.Equal(t, exitDone, o.code, "nibble %s\n%s%s", strings.Join(args, " "), o.stdout, o.stderr)
	return o.stdout
}

// okJSON runs a command with --json and reads the last object that it prints.
func okJSON(t *testing.T, v any, args ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(ok(t, append(args, "--json")...)), "\n")
	for _, l := range lines {
		require.True(t, json.Valid([]byte(l)), "not JSON: %s", l)
	}
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), v))
}

// workspace returns a directory with the demo's model and text in it.
func workspace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, demo.Write(dir))
	return dir
}

func readGolden(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldens, path))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, v))
}

// tensors opens a path and returns the hash of every tensor's stored bytes, with
// its type and shape.
func tensors(t *testing.T, path string) map[string]string {
	t.Helper()
	in, err := formats.Open(path)
	require.NoError(t, err)
	defer in.Close()
	out := make(map[string]string)
	for info := range in.All() {
		out[info.Name] = fmt.Sprintf("%v %v %x", info.DType, info.Shape, sha256.Sum256(tensortest.Bytes(t, in, info.Name)))
	}
	return out
}

func TestGenerateAgreesWithThePeers(t *testing.T) {
	dir := workspace(t)
	model := filepath.Join(dir, "stories260K")
	ok(t, "convert", model, filepath.Join(dir, "stories.gguf"), "--outtype", "f32")
	type results struct {
		Results []struct {
			Prompt       string
			PromptTokens []int32 `json:"prompt_tokens"`
			Tokens       []int32
			Text         string
		}
	}
	var transformers results
	readGolden(t, "stories260K/greedy.json", &transformers)
	var llamacpp map[string]results
	readGolden(t, "stories260K/llamacpp_greedy.json", &llamacpp)
	for _, c := range []struct {
		model string
		want  results
	}{
		{model, transformers}, {filepath.Join(dir, "stories.gguf"), llamacpp["converted_f32"]},
	} {
		require.NotEmpty(t, c.want.Results)
		for _, w := range c.want.Results {
			var got generateResult
			okJSON(t, &got, "generate", "--model", c.model, "--prompt", w.Prompt, "--max-tokens", fmt.Sprint(len(w.Tokens)))
			require.Equal(t, w.PromptTokens, got.PromptTokens, "%q", w.Prompt)
			require.Equal(t, w.Tokens, got.Tokens, "%q", w.Prompt)
			require.Equal(t, w.Text, got.Text)
		}
	}
	text := ok(t, "generate", "--model", model, "--prompt", "Once upon a time", "--max-tokens", "40")
	require.True(t, strings.HasPrefix(text, "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."), text)
}

func TestGenerateStopsAtEOS(t *testing.T) {
	var want struct {
		Results []struct {
			Prompt string
			Tokens []int32
			Text   string
		}
	}
	readGolden(t, "tiny_llama3/greedy.json", &want)
	stopped := 0
	for _, w := range want.Results {
		var got generateResult
		okJSON(t, &got, "generate", "--model", filepath.Join(goldens, "tiny_llama3"), "--prompt", w.Prompt, "--max-tokens", "64")
		require.Equal(t, w.Tokens, got.Tokens, "%q", w.Prompt)
		if got.Stopped == "eos" {
			stopped++
			require.Less(t, len(got.Tokens), 64)
		}
	}
	require.Positive(t, stopped)
}

func TestGenerateSampling(t *testing.T) {
	model := filepath.Join(workspace(t), "stories260K")
	sample := func(seed string) string {
		return ok(t, "generate", "--model", model, "--prompt", "The", "--max-tokens", "30", "--temperature", "1", "--seed", seed)
	}
	require.Equal(t, sample("1"), sample("1"))
	require.NotEqual(t, sample("1"), sample("2"))
}

func TestEvalAgreesWithThePeers(t *testing.T) {
	var want struct {
		Plain struct {
			Window       int
			ScoredTokens int `json:"scored_tokens"`
			Loss         float64
		}
		Llama struct {
			Runs []struct {
				NCtx         int `json:"n_ctx"`
				Chunks       int
				ScoredTokens int `json:"scored_tokens"`
				Perplexity   float64
			}
		} `json:"llama_perplexity"`
	}
	readGolden(t, "stories260K/perplexity.json", &want)
	model := filepath.Join(workspace(t), "stories260K")
	eval := func(n int) (r evalResult) {
		okJSON(t, &r, "eval", "--model", model, "--data", filepath.Join(goldens, "stories260K/shakespeare.txt"), "--max-seq-length", fmt.Sprint(n))
		return r
	}
	plain := eval(want.Plain.Window)
	require.Equal(t, want.Plain.ScoredTokens, plain.Tokens)
	require.InDelta(t, want.Plain.Loss, plain.Loss, 2e-6)
	require.InDelta(t, math.Exp(want.Plain.Loss), plain.Perplexity, 1e-3)
	for _, w := range want.Llama.Runs {
		r := eval(w.NCtx)
		require.NotNil(t, r.Llama)
		require.Equal(t, w.Chunks, r.Llama.Chunks)
		require.Equal(t, w.ScoredTokens, r.Llama.Tokens)
		require.InDelta(t, w.Perplexity, r.Llama.Perplexity, 3e-4)
	}
}

// TestTheMainJob takes the model through everything with little training.
func TestTheMainJob(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base, q, text := at("stories260K"), at("nf4"), filepath.Join(goldens, "stories260K/shakespeare.txt")
	loss := func(args ...string) float64 {
		var r evalResult
		okJSON(t, &r, append([]string{"eval", "--data", text, "--max-seq-length", "64"}, args...)...)
		return r.Loss
	}

	var quantized quantizeResult
	okJSON(t, &quantized, "quantize", base, q, "--type", "nf4")
	require.Equal(t, 35, quantized.Actions["nf4"])
	require.InDelta(t, 0.0925, quantized.RelRMS, 0.005)
	inspect := func(path string) (r inspectResult) {
		okJSON(t, &r, "inspect", path)
		return r
	}
	inspected := inspect(q)
	require.Equal(t, "NF4 block 64 double-quantized", inspected.Quantization)
	require.Equal(t, int64(260032), inspected.Parameters)
	ok(t, "verify", q)

	f32, nf4 := loss("--model", base), loss("--model", q)
	require.InDelta(t, f32, nf4, 0.3)
	require.NotEqual(t, f32, nf4)

	train := []string{"train", "--data", at("shakespeare"), "--iters", "25", "--batch-size", "4", "--max-seq-length", "64",
		"--learning-rate", "1e-2", "--warmup-steps", "3", "--save-every", "10", "--steps-per-eval", "0", "--val-batches", "5", "--rank", "4", "--alpha", "8"}
	for _, c := range []struct {
		name, base string
		more       []string
	}{
		{"lora", base, nil}, {"qlora", q, nil}, {"full", base, []string{"--fine-tune-type", "full", "--learning-rate", "3e-3"}},
	} {
		var r trainResult
		okJSON(t, &r, append(append(append([]string{}, train...), "--model", c.base, "--output-dir", at(c.name)), c.more...)...)
		require.Equal(t, 25, r.Steps)
		require.Less(t, *r.Eval, *r.FirstEval-1, "%s: training must lower the held-out loss", c.name)
		require.FileExists(t, at(c.name+"/loss.png"))
		require.FileExists(t, at(c.name+"/checkpoint-20/trainer_state.json"))
		log, err := os.ReadFile(at(c.name + "/trainer_log.jsonl"))
		require.NoError(t, err)
		require.Equal(t, 26, strings.Count(string(log), "\n"))
	}
	lora, qlora, full := loss("--model", base, "--adapter", at("lora")), loss("--model", q, "--adapter", at("qlora")), loss("--model", at("full"))
	require.Less(t, lora, f32-1)
	require.Less(t, qlora, nf4-1)
	require.Less(t, full, f32-1)
	require.InDelta(t, full, loss("--model", at("full/checkpoint-25")), 1e-6, "a checkpoint of full fine-tuning is a model")

	// Merged onto the base it was trained on, the adapter does what it did.
	ok(t, "merge", "--base", q, "--adapter", at("qlora"), "--out", at("merged"))
	require.InDelta(t, qlora, loss("--model", at("merged")), 1e-5)
	ok(t, "verify", at("merged"))
	require.Equal(t, map[string]int{"F32": 47}, inspect(at("merged")).Types)
	require.NotContains(t, readFile(t, at("merged/config.json")), "quantization_config")

	// Half of an adapter and half again is the adapter; none of it is the base.
	ok(t, "merge", "--base", base, "--adapter", at("lora")+":0.5", "--adapter", at("lora")+":0.5", "--out", at("halves"))
	require.InDelta(t, lora, loss("--model", at("halves")), 1e-5)
	ok(t, "merge", "--base", base, "--adapter", at("lora")+":0", "--out", at("none"))
	require.Equal(t, tensors(t, base), tensors(t, at("none")))

	// GGUF straight from the merge is GGUF of the merged directory.
	ok(t, "merge", "--base", q, "--adapter", at("qlora"), "--out", at("straight.gguf"), "--dtype", "f16")
	ok(t, "convert", at("merged"), at("merged.gguf"), "--outtype", "f16")
	require.Equal(t, tensors(t, at("merged.gguf")), tensors(t, at("straight.gguf")))
	require.InDelta(t, qlora, loss("--model", at("merged.gguf")), 1e-3)
	generate := func(model string) string {
		return ok(t, "generate", "--model", model, "--prompt", "ROMEO:", "--max-tokens", "30")
	}
	require.Equal(t, generate(at("merged")), generate(at("merged.gguf")))

	ok(t, "dequantize", q, at("plain"))
	require.InDelta(t, nf4, loss("--model", at("plain")), 1e-6)
	inspected = inspect(at("lora"))
	require.Equal(t, int64(4), inspected.Adapter.Rank)
	require.Len(t, inspected.Adapter.Targets, 7)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestConvertThereAndBack(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base := at("stories260K")
	ok(t, "convert", base, at("f32.gguf"), "--outtype", "f32")
	ok(t, "convert", at("f32.gguf"), at("back"))
	require.Equal(t, tensors(t, base), tensors(t, at("back")))
	for _, name := range []string{"config.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"} {
		require.FileExists(t, at("back/"+name))
	}
	ok(t, "verify", at("back"))
	story := func(model string) string {
		return ok(t, "generate", "--model", model, "--prompt", "Ein Bär? <s> “no”", "--max-tokens", "20")
	}
	require.Equal(t, story(base), story(at("back")))
	ok(t, "convert", at("back"), at("again.gguf"), "--outtype", "f32")
	require.Equal(t, tensors(t, at("f32.gguf")), tensors(t, at("again.gguf")))

	for _, d := range []string{"f16", "bf16"} {
		ok(t, "convert", base, at(d), "--outtype", d)
		require.Contains(t, readFile(t, at(d+"/config.json")), map[string]string{"f16": `"float16"`, "bf16": `"bfloat16"`}[d])
		ok(t, "convert", at(d), at(d+".gguf"), "--outtype", d)
		ok(t, "convert", at(d+".gguf"), at(d+"-back"), "--outtype", d)
		require.Equal(t, tensors(t, at(d)), tensors(t, at(d+"-back")), "16 bits survive the way there and back")
	}
	ok(t, "convert", base, at("q8.gguf"), "--outtype", "q8_0")
	ok(t, "convert", at("q8.gguf"), at("q8-back"))
	ok(t, "verify", at("q8-back"))

	// Re-sharded and with the shards put together again, nothing changes.
	ok(t, "convert", base, at("sharded"), "--max-shard-size", "300KB")
	require.FileExists(t, at("sharded/model.safetensors.index.json"))
	require.Equal(t, tensors(t, base), tensors(t, at("sharded")))
	ok(t, "convert", at("sharded"), at("single"), "--max-shard-size", "5GB")
	require.FileExists(t, at("single/model.safetensors"))
	require.Equal(t, tensors(t, base), tensors(t, at("single")))

	// A 4-bit directory is passed on as it is, or decoded.
	ok(t, "quantize", base, at("nf4"))
	ok(t, "convert", at("nf4"), at("nf4-copy"), "--max-shard-size", "100KB")
	require.Equal(t, tensors(t, at("nf4")), tensors(t, at("nf4-copy")))
	ok(t, "verify", at("nf4-copy"))
	ok(t, "convert", at("nf4"), at("nf4.gguf"), "--outtype", "f32")
	ok(t, "convert", at("nf4"), at("decoded"), "--outtype", "f32")
	ok(t, "convert", at("nf4.gguf"), at("decoded-gguf"))
	require.Equal(t, tensors(t, at("decoded")), tensors(t, at("decoded-gguf")))

	// A file of tensors becomes another one.
	ok(t, "convert", base+"/model.safetensors", at("half.safetensors"), "--outtype", "bf16")
	require.Equal(t, tensors(t, at("bf16")), tensors(t, at("half.safetensors")))
}

func TestQuantizeOptions(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base := at("stories260K")
	for name, c := range map[string]struct {
		args []string
		kind string
		n    int
	}{
		"plain":   {[]string{"--no-double-quant", "--block-size", "128"}, "NF4 block 128", 35},
		"fp4":     {[]string{"--type", "fp4"}, "FP4 block 64 double-quantized", 35},
		"skipped": {[]string{"--skip-modules", "down_proj,lm_head"}, "NF4 block 64 double-quantized", 30},
	} {
		ok(t, append([]string{"quantize", base, at(name)}, c.args...)...)
		var r inspectResult
		okJSON(t, &r, "inspect", at(name))
		require.Equal(t, c.n, r.Types[c.kind], "%s: %v", name, r.Types)
		ok(t, "verify", at(name))
	}
	// From GGUF it is the same.
	ok(t, "quantize", base, at("a"))
	ok(t, "convert", base, at("m.gguf"), "--outtype", "f32")
	ok(t, "quantize", at("m.gguf"), at("b"))
	require.Equal(t, tensors(t, at("a")), tensors(t, at("b")))
	// And a sharded 4-bit directory reads like a single file.
	ok(t, "quantize", base, at("c"), "--max-shard-size", "100KB")
	require.Equal(t, tensors(t, at("a")), tensors(t, at("c")))
}

func TestEveryCommandSpeaksJSON(t *testing.T) {
	dir := workspace(t)
	base := filepath.Join(dir, "stories260K")
	var v map[string]any
	okJSON(t, &v, "version")
	require.Equal(t, version, v["version"])
	okJSON(t, &v, "inspect", base, "--tensors")
	require.Len(t, v["tensors"], 47)
	okJSON(t, &v, "verify", base)
	require.Equal(t, true, v["sound"])
	okJSON(t, &v, "convert", base, filepath.Join(dir, "x.gguf"), "--quiet")
	require.Equal(t, 47.0, v["actions"].(map[string]any)["cast"].(float64)+v["actions"].(map[string]any)["copy"].(float64)+v["actions"].(map[string]any)["cast+permute"].(float64))
	okJSON(t, &v, "train", "--model", base, "--data", filepath.Join(dir, "shakespeare"), "--output-dir", filepath.Join(dir, "a"), "--dry-run")
	require.Contains(t, v, "plan")
	require.NoDirExists(t, filepath.Join(dir, "a"), "a dry run writes nothing")
}

func TestHelpAndCompletion(t *testing.T) {
	require.Contains(t, ok(t), "Exit codes")
	for _, c := range []string{"inspect", "verify", "diff", "convert", "quantize", "dequantize", "imatrix", "merge", "unmerge", "adapter", "data", "init", "train", "eval", "generate", "chat", "pull", "bench", "demo", "man", "version"} {
		require.Contains(t, ok(t, "--help"), "\n  "+c)
		require.Contains(t, ok(t, c, "--help"), "Usage:")
	}
	require.Contains(t, ok(t, "completion", "bash"), "nibble")
	require.Regexp(t, `^nibble \d+\.\d+\.\d+`, ok(t, "version"))
}

func TestVerbose(t *testing.T) {
	dir := workspace(t)
	out := ok(t, "convert", filepath.Join(dir, "stories260K"), filepath.Join(dir, "x.gguf"), "--verbose")
	require.Contains(t, out, "blk.0.attn_q.weight")
	require.Contains(t, out, "cast+permute")
}

// TestDemo runs the demo with less training, in this process.
func TestDemo(t *testing.T) {
	old := demoTrain
	demoTrain = append(append([]string{}, old...), "--iters", "6")
	defer func() { demoTrain = old }()
	t.Chdir(t.TempDir())
	var out, messages bytes.Buffer
	a := &app{out: &out, err: &messages}
	require.NoError(t, a.exec(t.Context(), "demo", "--out", "d"), "%s", messages.String())
	text := out.String()
	for _, want := range []string{
		"$ nibble inspect stories260K", "$ nibble quantize stories260K stories260K-nf4", "$ nibble train", "$ nibble merge", "$ nibble convert merged merged.gguf",
		"$ nibble generate --model merged", "NF4 base + QLoRA adapter", "peak memory",
	} {
		require.Contains(t, text, want)
	}
	r := a.last.(*demoResult)
	require.Less(t, r.LossAfter, r.LossBefore)
	require.InDelta(t, r.Perplexity.QLoRA, r.Perplexity.Merged, 1e-3)
	require.FileExists(t, "d/adapters/loss.png")
	require.FileExists(t, "d/merged.gguf")

	require.ErrorContains(t, a.exec(t.Context(), "demo", "--out", "d"), "output exists")
	require.NoError(t, os.WriteFile("precious", nil, 0o666))
	require.ErrorContains(t, a.exec(t.Context(), "demo", "--out", ".", "--force"), "output exists", "only a demo's directory is replaced")

	out.Reset()
	require.NoError(t, a.exec(t.Context(), "demo", "--out", "d", "--force", "--json"))
	var fromJSON demoResult
	require.NoError(t, json.Unmarshal(out.Bytes(), &fromJSON), "one object and nothing else")
	require.Equal(t, r.Perplexity, fromJSON.Perplexity, "the demo ends with the same figures every time")
}

// TestREADME runs the README's examples, with less training, and compares what
// does not depend on the machine.
func TestREADME(t *testing.T) {
	dir := workspace(t)
	text := strings.ReplaceAll(readFile(t, "../../README.md"), "\\\n   ", "")
	ran := 0
	for _, block := range strings.Split(text, "```")[1:] {
		line, want, _ := strings.Cut(strings.TrimSpace(block), "\n")
		args, ok := strings.CutPrefix(line, "$ nibble ")
		if !ok {
			continue
		}
		args = strings.Replace(args, "--iters 200", "--iters 2", 1)
		if strings.HasPrefix(args, "bench ") {
			args = "bench --only fma,memory,disk --runs 1 --memory 8MiB --disk-size 1MiB"
		}
		cmd := exec.Command(binary, strings.Fields(args)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", line, out)
		if want != "" && (strings.HasPrefix(args, "inspect") || strings.HasPrefix(args, "verify")) {
			require.Equal(t, strings.TrimSpace(want), strings.TrimSpace(string(out)), line)
		}
		ran++
	}
	require.Equal(t, 26, ran, "one example or more for each command")
}

func TestInspectWhatIsNoModelWeKnow(t *testing.T) {
	dir := workspace(t)
	path := filepath.Join(dir, "stories260K/config.json")
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(readFile(t, path), `"llama"`, `"bloom"`, 1)), 0o666))
	o := nibble(t, "inspect", filepath.Join(dir, "stories260K"))
	require.Equal(t, exitDone, o.code, "its tensors can be shown all the same")
	require.Contains(t, o.stdout, `"bloom"`)
	require.Contains(t, o.stdout, "47 F32")
	o = nibble(t, "inspect", filepath.Join(dir, "stories260K/model.safetensors"), "--tensors")
	require.Equal(t, exitDone, o.code)
	require.Contains(t, o.stdout, "model.layers.4.mlp.up_proj.weight")
}

func unmarshal(t *testing.T, text []byte, v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(text, v))
}
