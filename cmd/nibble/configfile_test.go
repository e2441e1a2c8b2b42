package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// printed returns all settings as --print-config prints them, without where they come
// from.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	return regexp.MustCompile(` \[from .*\]\n`).ReplaceAllString(ok(t, append([]string{"train", "--print-config"}, args...)...), "\n")
}

func settingsFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "train.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	return path
}

// What --print-config prints is read to the same settings.
func TestPrintConfig(t *testing.T) {
	for name, args := range map[string][]string{
		"defaults": nil,
		"preset":   {"--preset", "raschka-r256", "--memory", "2GiB", "--threads", "3"},
		"lists": {"--target-modules", "re:.*(q|v)_proj,x", "--modules-to-save", "norm,lm_head", "--layers-to-transform", "1,2,30",
			"--rank-pattern", "q_proj=8,down_proj=4", "--mask-prompt=false", "--cache", "0", "--model", "a: b # c"},
	} {
		t.Run(name, func(t *testing.T) {
			want := printed(t, args...)
			require.Equal(t, want, printed(t, "--config", settingsFile(t, want)))
		})
	}
	require.Contains(t, ok(t, "train", "--print-config", "--preset", "lora-r16", "--rank", "4"), "[from the command line]\nrank: 4\n")
}

// Settings of the peers' files come to the same as nibble's own.
func TestOtherSpellings(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"mlx-lm": {`
model: m
train: true
fine_tune_type: lora
optimizer: adam
optimizer_config:
  adam:
    betas: [0.8, 0.98]
    eps: 1e-6
data: d
seed: 0
num_layers: 16
batch_size: 4
iters: 1000
val_batches: 25
learning_rate: 1e-5
steps_per_report: 10
steps_per_eval: 200
resume_adapter_file: null
adapter_path: adapters
save_every: 100
max_seq_length: 2048
grad_checkpoint: false
lora_parameters:
  keys: ["self_attn.q_proj", "self_attn.v_proj"]
  rank: 8
  scale: 20.0
  dropout: 0.05
lr_schedule:
  name: cosine_decay
  warmup: 100
  warmup_init: 1e-7
  arguments: [2e-5, 1000, 1e-7]
`, []string{"--model", "m", "--data", "d", "--num-layers", "16", "--iters", "1000", "--output-dir", "adapters", "--target-modules", "self_attn.q_proj,self_attn.v_proj",
			"--rank", "8", "--alpha", "160", "--dropout", "0.05", "--warmup-steps", "100", "--learning-rate", "2e-5", "--adam-beta1", "0.8", "--adam-beta2", "0.98", "--adam-epsilon", "1e-6"}},
		"LLaMA-Factory": {`
stage: sft
do_train: true
finetuning_type: lora
lora_target: all
cutoff_len: 1024
overwrite_output_dir: true
plot_loss: true
`, []string{"--max-seq-length", "1024", "--force"}},
		"transformers": {`
model_name_or_path: m
dataset_name: d
output_dir: out
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
num_train_epochs: 3.0
max_length: 512
lora_r: 32
lora_alpha: 64
lora_target_modules: [q_proj, v_proj]
use_dora: true
optim: adamw_torch
logging_steps: 1
eval_steps: 50
save_steps: 60
completion_only_loss: true
gradient_checkpointing: true
`, []string{"--model", "m", "--data", "d", "--output-dir", "out", "--batch-size", "2", "--grad-accumulation-steps", "8", "--epochs", "3", "--max-seq-length", "512",
			"--rank", "32", "--alpha", "64", "--target-modules", "q_proj,v_proj", "--fine-tune-type", "dora", "--optimizer", "adamw_torch", "--steps-per-report", "1",
			"--steps-per-eval", "50", "--save-every", "60", "--mask-prompt"}},
		"axolotl": {`
base_model: m
micro_batch_size: 2
num_epochs: 2
sequence_len: 4096
adapter: qlora
load_in_4bit: true
lora_r: 8
lora_target_linear: true
datasets:
  - path: a.jsonl
    type: alpaca
  - path: b,c.jsonl
val_set_size: 0.05
sample_packing: true
excess_length_strategy: raise
train_on_inputs: true
flash_attention: true
strict: false
wandb_project: x
`, []string{"--model", "m", "--data", "a.jsonl", "--data", "b,c.jsonl", "--val-split", "0.05", "--packing", "--overlong", "error", "--batch-size", "2", "--epochs", "2", "--max-seq-length", "4096", "--rank", "8", "--mask-prompt=false"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, printed(t, c.want...), printed(t, "--config", settingsFile(t, c.file)))
		})
	}
	require.Equal(t, printed(t, "--iters", "7", "--rank", "4"), printed(t, "--max_steps", "7", "--lora-r=4"))
}

func TestBadSettings(t *testing.T) {
	for name, c := range map[string]struct{ file, says string }{
		"unknown":        {"learning_rat: 1", `unknown key "learning_rat"`},
		"nearest":        {"learning_rat: 1", `did you mean "learning_rate"?`},
		"nearest alias":  {"per_device_train_batch_sice: 1", `did you mean "per_device_train_batch_size"?`},
		"twice":          {"batch_size: 1\nmicro_batch_size: 2", "batch_size and micro_batch_size both set --batch-size"},
		"no near":        {"load_in_16bit: 1", "nibble train --print-config lists the keys"},
		"bad value":      {"rank: many", "rank: "},
		"bad mapping":    {"lora_parameters: 8", "lora_parameters: 8, where a mapping is wanted"},
		"scale, no rank": {"lora_parameters: {scale: 20}", "scale is alpha/rank"},
		"schedule":       {"lr_schedule: {name: step_decay}", "want one of: constant, cosine_decay, linear_schedule"},
		"nested":         {"model: {a: {b: c}}", "model: "},
		"itself":         {"config: x", `unknown key "config"`},
	} {
		t.Run(name, func(t *testing.T) {
			o := nibble(t, "train", "--print-config", "--config", settingsFile(t, c.file))
			require.Equal(t, exitUsage, o.code, o.stderr)
			require.Contains(t, o.stderr, c.says)
		})
	}
	o := nibble(t, "train", "--learning_rat", "1")
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.stderr, "did you mean --learning-rate?")
	o = nibble(t, "train", "--config", settingsFile(t, "grad_checkpoint: true\nmodel: none\ndata: d\noutput_dir: o"))
	require.Contains(t, o.stdout, "grad_checkpoint: not used: the memory plan decides")
}

// Every other spelling means a flag that there is, and is no flag of its own.
func TestSpellings(t *testing.T) {
	flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
	(&trainOptions{}).flags(flags)
	own := map[string]bool{"force": true} // of every command
	flags.VisitAll(func(f *pflag.Flag) { own[f.Name] = true })
	for name, flag := range spellings {
		require.True(t, own[flag], "%s is to mean --%s", name, flag)
		require.False(t, own[name], name)
	}
}

func TestSchema(t *testing.T) {
	text := ok(t, "train", "--print-schema")
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", doc))
	s, err := c.Compile("schema.json")
	require.NoError(t, err)
	valid := func(file string) error {
		var v any
		require.NoError(t, yaml.Unmarshal([]byte(file), &v))
		text, err := json.Marshal(v)
		require.NoError(t, err)
		inst, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
		require.NoError(t, err)
		return s.Validate(inst)
	}
	require.NoError(t, valid(printed(t)))
	require.NoError(t, valid(printed(t, "--preset", "raschka-r256", "--rank-pattern", "q_proj=8", "--layers-to-transform", "1,2")))
	require.NoError(t, valid("lora_r: 8\nuse_dora: true\nrank_pattern: {q_proj: 8}\nlora_parameters: {rank: 8}\nresume_from_checkpoint: null"))
	for _, bad := range []string{"ranc: 8", "rank: many", "fine_tune_type: some", "bias: 3"} {
		require.Error(t, valid(bad), bad)
	}
}
