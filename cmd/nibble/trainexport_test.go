package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTrainExports makes everything of a run that can be made, and opens it again: it has
// the loss of the adapter on top of the base, as far as its type can hold it.
func TestTrainExports(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	var r trainResult
	okJSON(t, &r, trainIn(dir, "out", "--export", "merged:f32,merged,gguf:f32,gguf:q8_0,gguf:q4_k_m", "--export", "merged-nf4", "--export", "adapter-gguf,adapter-gguf:f16", "--quiet")...)
	beside := validLoss(t, dir, "stories260K", "--adapter", filepath.Join(dir, "out"))
	require.InDelta(t, *r.Eval, beside, 1e-5)
	require.Len(t, r.Exports, 8)
	within := map[string]float64{
		"merged:f32": 1e-6, "merged": 1e-6, "gguf:f32": 1e-6, "gguf:q8_0": 0.01, "gguf:q4_k_m": 0.1, "merged-nf4": 0.3, "adapter-gguf": 1e-6, "adapter-gguf:f16": 1e-2,
	}
	for _, x := range r.Exports {
		require.Empty(t, x.Error)
		require.Equal(t, filepath.Join(dir, "out", exportName), filepath.Dir(x.Out))
		name, err := filepath.Rel(dir, x.Out)
		require.NoError(t, err)
		var loss float64
		if strings.HasPrefix(x.Spec, "adapter") {
			loss = validLoss(t, dir, "stories260K", "--adapter", x.Out)
		} else {
			loss = validLoss(t, dir, name)
		}
		require.InDelta(t, beside, loss, within[x.Spec], x.Spec)
		ok(t, "inspect", x.Out)
		if x.kindOf() != ".gguf" {
			require.Empty(t, x.Modelfile)
			continue
		}
		text := readFile(t, x.Modelfile)
		if strings.HasPrefix(x.Spec, "adapter") {
			require.Contains(t, text, "FROM \""+filepath.Join(dir, "stories260K")+"\"\nADAPTER \"./"+filepath.Base(x.Out)+"\"\n")
		} else {
			require.Contains(t, text, "FROM \"./"+filepath.Base(x.Out)+"\"\n")
		}
		require.NotContains(t, text, "TEMPLATE", "the model has none")
		require.Contains(t, text, "PARAMETER num_ctx 512\n", "its context")
	}
	// The file is that of the command which would make it by hand.
	byHand := filepath.Join(dir, "hand.gguf")
	ok(t, "merge", "--base", filepath.Join(dir, "stories260K"), "--adapter", filepath.Join(dir, "out"), "--out", byHand, "--quantize", "q4_k_m")
	require.True(t, readFile(t, byHand) == readFile(t, r.Exports[4].Out))

	// Once more: the run is at its end, and what is there is made again.
	okJSON(t, &r, trainIn(dir, "out", "--resume", filepath.Join(dir, "out"), "--export", "gguf:q4_k_m", "--quiet")...)
	require.True(t, readFile(t, byHand) == readFile(t, r.Exports[0].Out))
}

func (r *exportResult) kindOf() string { return filepath.Ext(r.Out) }

// TestTrainExportsOfABase exports over a 4-bit base, a GGUF base, and of full fine-tuning.
func TestTrainExportsOfOtherRuns(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	stories := filepath.Join(dir, "stories260K")
	ok(t, "quantize", stories, filepath.Join(dir, "nf4"), "--type", "nf4")
	ok(t, "convert", stories, filepath.Join(dir, "q8.gguf"), "--outtype", "q8_0")
	run := func(model, out string, more ...string) (r trainResult) {
		args := trainIn(dir, out, more...)
		args[2] = filepath.Join(dir, model)
		okJSON(t, &r, append(args, "--quiet")...)
		return r
	}
	rel := func(x exportResult) string {
		name, err := filepath.Rel(dir, x.Out)
		require.NoError(t, err)
		return name
	}
	r := run("nf4", "a", "--export", "merged:f32,gguf:f16", "--init-lora-weights", "pissa")
	beside := validLoss(t, dir, "nf4", "--adapter", filepath.Join(dir, "a"))
	require.InDelta(t, beside, validLoss(t, dir, rel(r.Exports[0])), 1e-6)
	require.InDelta(t, beside, validLoss(t, dir, rel(r.Exports[1])), 1e-2)
	require.Contains(t, r.Exports[0].Notes[0], "merged into what it decodes to")

	r = run("q8.gguf", "b", "--export", "gguf,gguf:keep,merged:f32", "--adapter-format", "gguf")
	beside = validLoss(t, dir, "q8.gguf", "--adapter", filepath.Join(dir, "b", ggufName))
	for i, within := range []float64{1e-2, 2e-2, 1e-5} {
		require.InDelta(t, beside, validLoss(t, dir, rel(r.Exports[i])), within, "%d", i)
	}

	r = run("stories260K", "c", "--fine-tune-type", "full", "--export", "gguf:f32,gguf:q8_0,merged-nf4")
	beside = validLoss(t, dir, "c")
	for i, within := range []float64{1e-6, 1e-2, 0.3} {
		require.InDelta(t, beside, validLoss(t, dir, rel(r.Exports[i])), within, "%d", i)
	}
}

// TestExportsThatCannotBe are refused before the first step.
func TestExportsThatCannotBe(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	put(t, filepath.Join(dir, "file"), "x")
	put(t, filepath.Join(dir, "blank"), "\n \n")
	for want, args := range map[string][]string{
		"no such export":               {"--export", "onnx"},
		"no type \"q4_k_x\"":           {"--export", "gguf:q4_k_x"},
		"merged-nf4 has no type":       {"--export", "merged-nf4:f32"},
		"asked for twice":              {"--export", "merged,merged"},
		"whole model already":          {"--export", "merged", "--fine-tune-type", "full"},
		"which makes no adapter":       {"--export", "adapter-gguf", "--fine-tune-type", "full"},
		"use_dora":                     {"--export", "adapter-gguf", "--fine-tune-type", "dora"},
		"modules_to_save":              {"--export", "adapter-gguf", "--modules-to-save", "norm"},
		"no type \"iq2_xxs\"":          {"--export", "gguf:iq2_xxs"},
		"no GGUF base":                 {"--export", "gguf:keep"},
		"which is not given":           {"--export-dir", filepath.Join(dir, "x")},
		"is a file":                    {"--export", "merged", "--export-dir", filepath.Join(dir, "file", "x")},
		"the result is that already":   {"--export", "adapter-gguf", "--adapter-format", "gguf"},
		"--sample-max-tokens is 0":     {"--sample-max-tokens", "0"},
		"a prompt to be continued has": {"--sample-prompt", strings.Repeat("Once upon a time ", 10)},
		"no prompt in it":              {"--sample-prompts", filepath.Join(dir, "blank")},
	} {
		o := nibble(t, trainIn(dir, "out", args...)...)
		require.NotEqual(t, exitDone, o.code, want)
		require.Contains(t, o.stderr, want)
		require.NoDirExists(t, filepath.Join(dir, "out"), want)
	}
	alone := trainIn(dir, "out", "--load-best-model-at-end")
	alone[4] = filepath.Join(dir, "data/train.jsonl")
	require.Contains(t, nibble(t, alone...).stderr, "need validation data")
	require.NoDirExists(t, filepath.Join(dir, "out"))

	// A tokenizer that GGUF cannot hold is found before the run, not after it.
	broken := filepath.Join(dir, "stories260K", "config.json")
	text := readFile(t, broken)
	put(t, broken, strings.Replace(text, `"vocab_size": 512`, `"vocab_size": 511`, 1))
	o := nibble(t, trainIn(dir, "out", "--export", "gguf:f16")...)
	require.NotEqual(t, exitDone, o.code)
	require.NoDirExists(t, filepath.Join(dir, "out"))
}

// TestFailedExport leaves the result of the training, makes the other exports, and says
// how to make the one that failed.
func TestFailedExport(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	exports := filepath.Join(dir, "x y")
	put(t, filepath.Join(exports, "stories260K-out-f16.gguf", "in the way"), "x")
	args := trainIn(dir, "out", "--export", "gguf:f16,adapter-gguf", "--export-dir", exports, "--quiet")
	o := nibble(t, args...)
	require.Contains(t, o.stderr, "output exists")
	require.NoDirExists(t, filepath.Join(dir, "out"))

	o = nibble(t, append(args, "--force", "--json")...)
	require.Equal(t, exitFailed, o.code, o.stderr)
	lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
	var r trainResult
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &r))
	require.NotEmpty(t, r.Exports[0].Error)
	require.Empty(t, r.Exports[1].Error)
	require.Contains(t, r.Exports[0].Later, "nibble merge --base "+filepath.Join(dir, "stories260K")+" --adapter "+filepath.Join(dir, "out")+" --out '"+exports)
	require.Contains(t, o.stderr, r.Exports[0].Later)
	require.FileExists(t, filepath.Join(dir, "out", "adapter_model.safetensors"))
	require.FileExists(t, filepath.Join(dir, "out", "checkpoint-12", stateName))
	hidden, err := filepath.Glob(filepath.Join(exports, ".*"))
	require.NoError(t, err)
	require.Empty(t, hidden)
}

// TestModelfileOfAChatModel has the template in Ollama's language.
func TestModelfileOfAChatModel(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	path := filepath.Join(dir, "stories260K", "tokenizer_config.json")
	var config map[string]any
	require.NoError(t, json.Unmarshal([]byte(readFile(t, path)), &config))
	with := func(template string) trainResult {
		config["chat_template"] = template
		text, err := json.Marshal(config)
		require.NoError(t, err)
		put(t, path, string(text))
		var r trainResult
		okJSON(t, &r, trainIn(dir, "out", "--iters", "1", "--export", "gguf:f16", "--force", "--quiet")...)
		return r
	}
	r := with(`{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}` +
		`{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`)
	require.Contains(t, readFile(t, r.Exports[0].Modelfile), "TEMPLATE \"\"\"{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n\"\"\"\n"+
		"SYSTEM \"\"\"Be kind.\"\"\"\nPARAMETER stop \"<|im_end|>\"\nPARAMETER stop \"<|im_start|>\"\n")
	r = with(`{% for message in messages %}{{ message['content'] | upper }}{% endfor %}`)
	text := readFile(t, r.Exports[0].Modelfile)
	require.NotContains(t, text, "TEMPLATE \"")
	require.Contains(t, text, "PARAMETER stop \"</s>\"")
	require.Contains(t, strings.Join(r.Exports[0].Notes, "\n"), "the Modelfile has no TEMPLATE")
}
