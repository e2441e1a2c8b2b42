package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/peft"
)

// trained runs nibble train and returns the result and the adapter's configuration.
func trained(t *testing.T, dir, out string, more ...string) (trainResult, *peft.Config) {
	t.Helper()
	var r trainResult
	okJSON(t, &r, trainIn(dir, out, more...)...)
	c, err := peft.ParseConfig([]byte(readFile(t, filepath.Join(dir, out, peft.ConfigName))))
	require.NoError(t, err)
	return r, c
}

// validLoss returns the loss of a model on the validation data.
func validLoss(t *testing.T, dir, model string, more ...string) float64 {
	t.Helper()
	var r struct {
		Loss float64 `json:"loss"`
	}
	okJSON(t, &r, append([]string{"eval", "--model", filepath.Join(dir, model), "--data", filepath.Join(dir, "data/valid.jsonl")}, more...)...)
	return r.Loss
}

// TestTrainMethods trains by every method, and what comes out does merged what it does
// beside the base.
func TestTrainMethods(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	for name, c := range map[string]struct {
		args  []string
		check func(t *testing.T, c *peft.Config)
	}{
		"dora": {[]string{"--fine-tune-type", "dora"}, func(t *testing.T, c *peft.Config) { require.True(t, c.UseDoRA) }},
		"pissa": {[]string{"--init-lora-weights", "pissa"}, func(t *testing.T, c *peft.Config) {
			require.Equal(t, peft.Init("true"), c.InitLoraWeights)
			require.Equal(t, int64(4), c.R, "twice the rank")
			require.Equal(t, 8.0, c.LoraAlpha)
		}},
		"pissa-dora": {[]string{"--init-lora-weights", "pissa_niter_4", "--fine-tune-type", "dora", "--lora-dtype", "bf16"}, nil},
		"patterns": {[]string{"--rank-pattern", `up_proj=3,layers.0.self_attn.q_proj=1`, "--alpha-pattern", "up_proj=9", "--use-rslora",
			"--target-modules", `re:.*\.(q_proj|up_proj)`, "--exclude-modules", "layers.4.mlp.up_proj"}, func(t *testing.T, c *peft.Config) {
			require.Len(t, c.RankPattern, 2)
			require.Contains(t, c.TargetModules.Names, "model.layers.3.mlp.up_proj")
			require.NotContains(t, c.TargetModules.Names, "model.layers.4.mlp.up_proj")
		}},
		"saved": {[]string{"--modules-to-save", "norm,embed_tokens", "--num-layers", "2", "--init-lora-weights", "gaussian"}, func(t *testing.T, c *peft.Config) {
			require.Equal(t, []string{"norm", "embed_tokens"}, c.ModulesToSave)
			require.True(t, c.EnsureWeightTying, "the model's embedding is its head")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, config := trained(t, dir, name, c.args...)
			require.Less(t, *r.Eval, *r.FirstEval-0.1, "training must lower the loss")
			if c.check != nil {
				c.check(t, config)
			}
			if config.EnsureWeightTying {
				names := tensors(t, filepath.Join(dir, name, peft.WeightsName))
				require.Equal(t, names["base_model.model.model.embed_tokens.weight"], names["base_model.model.lm_head.weight"], "PEFT wants the head too")
			}
			beside := validLoss(t, dir, "stories260K", "--adapter", filepath.Join(dir, name))
			require.InDelta(t, *r.Eval, beside, 1e-5, "what is written is what was trained")
			ok(t, "merge", "--base", filepath.Join(dir, "stories260K"), "--adapter", filepath.Join(dir, name), "--out", filepath.Join(dir, name+"-merged"))
			require.InDelta(t, beside, validLoss(t, dir, name+"-merged"), 1e-5)
		})
	}
}

// TestTrainEmbeddings has an adapter of embeddings that are the head too: it is for the
// input alone, as in PEFT.
func TestTrainEmbeddings(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	r, c := trained(t, dir, "out", "--target-modules", "embed_tokens,v_proj")
	require.ElementsMatch(t, []string{"model.embed_tokens", "self_attn.v_proj"}, c.TargetModules.Names)
	require.InDelta(t, *r.Eval, validLoss(t, dir, "stories260K", "--adapter", filepath.Join(dir, "out")), 1e-5)
	require.Less(t, *r.Eval, *r.FirstEval)
}

// TestTrainGoesOn trains an adapter further, one of LoftQ's and one of its own.
func TestTrainGoesOn(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	base, q := filepath.Join(dir, "stories260K"), filepath.Join(dir, "q")
	ok(t, "quantize", base, q, "--init-adapter", "loftq", "--rank", "3", "--alpha", "6", "--adapter-out", filepath.Join(dir, "loftq"))
	args := []string{"train", "--model", q, "--data", filepath.Join(dir, "data"), "--iters", "4", "--batch-size", "2", "--max-seq-length", "24", "--learning-rate", "1e-3"}
	var r trainResult
	okJSON(t, &r, append(args, "--adapter", filepath.Join(dir, "loftq"), "--output-dir", filepath.Join(dir, "a"))...)
	require.InDelta(t, validLoss(t, dir, "q", "--adapter", filepath.Join(dir, "loftq")), *r.FirstEval, 1e-5, "it begins where the adapter is")
	c, err := peft.ParseConfig([]byte(readFile(t, filepath.Join(dir, "a", peft.ConfigName))))
	require.NoError(t, err)
	require.Equal(t, int64(3), c.R)
	require.Equal(t, 6.0, c.LoraAlpha)

	var again trainResult
	okJSON(t, &again, append(args, "--resume-adapter-file", filepath.Join(dir, "a", peft.WeightsName), "--output-dir", filepath.Join(dir, "b"))...)
	require.InDelta(t, *r.Eval, *again.FirstEval, 1e-5)

	for _, more := range [][]string{{"--rank", "4"}, {"--fine-tune-type", "dora"}, {"--target-modules", "q_proj"}, {"--fine-tune-type", "full"}} {
		o := nibble(t, append(append(append([]string{}, args...), "--adapter", filepath.Join(dir, "a"), "--output-dir", filepath.Join(dir, "c")), more...)...)
		require.Equal(t, exitUsage, o.code, "%v: %s", more, o.stderr)
		require.Contains(t, o.stderr, more[0])
	}
}

// TestTrainResumesMethods stops runs and goes on with them, to the same bytes.
func TestTrainResumesMethods(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	for name, more := range map[string][]string{
		"pissa": {"--init-lora-weights", "pissa"},
		"dora":  {"--fine-tune-type", "dora", "--modules-to-save", "norm"},
	} {
		t.Run(name, func(t *testing.T) {
			more = append(more, "--lr-scheduler-type", "constant", "--warmup-steps", "0", "--quiet")
			ok(t, trainIn(dir, name+"-whole", more...)...)
			ok(t, trainIn(dir, name, append(more, "--iters", "8")...)...)
			ok(t, trainIn(dir, name, append(more, "--resume", filepath.Join(dir, name))...)...)
			for _, file := range []string{peft.WeightsName, peft.ConfigName} {
				require.True(t, readFile(t, filepath.Join(dir, name, file)) == readFile(t, filepath.Join(dir, name+"-whole", file)), file)
			}
			o := nibble(t, trainIn(dir, name, append(more, "--resume", filepath.Join(dir, name), "--iters", "20", "--modules-to-save", "up_proj")...)...)
			require.Contains(t, o.stderr, "the run to be resumed had")
		})
	}
}

// TestTrainOnGGUF trains on a GGUF base and gets the adapter in both formats.
func TestTrainOnGGUF(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	ok(t, "convert", filepath.Join(dir, "stories260K"), filepath.Join(dir, "m.gguf"), "--outtype", "q8_0")
	args := []string{"train", "--model", filepath.Join(dir, "m.gguf"), "--data", filepath.Join(dir, "data"), "--iters", "3", "--batch-size", "2",
		"--max-seq-length", "24", "--rank", "2", "--learning-rate", "1e-2", "--quiet"}
	for name, c := range map[string]struct {
		more           []string
		inPEFT, inGGUF bool
	}{
		"auto": {nil, true, true}, "peft": {[]string{"--adapter-format", "peft"}, true, false}, "gguf": {[]string{"--adapter-format", "gguf", "--init-lora-weights", "pissa"}, false, true},
		"dora": {[]string{"--fine-tune-type", "dora"}, true, false},
	} {
		out := filepath.Join(dir, name)
		ok(t, append(append(append([]string{}, args...), "--output-dir", out), c.more...)...)
		_, err := os.Stat(filepath.Join(out, peft.WeightsName))
		require.Equal(t, c.inPEFT, err == nil, name)
		_, err = os.Stat(filepath.Join(out, ggufName))
		require.Equal(t, c.inGGUF, err == nil, name)
	}
	eval := func(adapter string) float64 {
		return validLoss(t, dir, "m.gguf", "--adapter", filepath.Join(dir, adapter))
	}
	require.InDelta(t, eval("auto"), eval("auto/"+ggufName), 1e-5)
	require.NotEqual(t, validLoss(t, dir, "m.gguf"), eval("gguf/"+ggufName))

	o := nibble(t, append(append([]string{}, args...), "--output-dir", filepath.Join(dir, "x"), "--fine-tune-type", "dora", "--adapter-format", "both")...)
	require.NotEqual(t, exitDone, o.code)
	require.Contains(t, o.stderr, "use_dora")
	require.NoDirExists(t, filepath.Join(dir, "x"))
}

// TestPresets has what is given win over the file, and the file over the preset.
func TestPresets(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	put(t, filepath.Join(dir, "c.yaml"), "preset: qlora-paper\nalpha: 8\nrank_pattern: {q_proj: 4, v_proj: 2}\n")
	dry := func(more ...string) (r struct {
		Config struct {
			Rank    int
			Alpha   float64
			Dropout float64
			LR      float64        `json:"learning_rate"`
			Norm    float64        `json:"max_grad_norm"`
			Accum   int            `json:"grad_accumulation_steps"`
			Type    string         `json:"lr_scheduler_type"`
			Pattern map[string]int `json:"rank_pattern"`
		}
		SetBy map[string]string `json:"set_by"`
	}) {
		okJSON(t, &r, append([]string{"train", "--model", filepath.Join(dir, "stories260K"), "--data", filepath.Join(dir, "data"), "--output-dir", filepath.Join(dir, "out"), "--dry-run"}, more...)...)
		return r
	}
	r := dry("--config", filepath.Join(dir, "c.yaml"), "--dropout", "0.25")
	require.Equal(t, 64, r.Config.Rank)
	require.Equal(t, 8.0, r.Config.Alpha)
	require.Equal(t, 0.25, r.Config.Dropout)
	require.Equal(t, 2e-4, r.Config.LR)
	require.Equal(t, 0.3, r.Config.Norm)
	require.Equal(t, 16, r.Config.Accum)
	require.Equal(t, "constant", r.Config.Type)
	require.Equal(t, map[string]int{"q_proj": 4, "v_proj": 2}, r.Config.Pattern)
	require.Equal(t, "--preset qlora-paper", r.SetBy["rank"])
	require.Equal(t, "the command line", r.SetBy["dropout"])
	require.Contains(t, r.SetBy["alpha"], "c.yaml")
	require.Equal(t, 256, dry("--preset", "raschka-r256").Config.Rank)
	for _, p := range presets {
		dry("--preset", p.name) // every value is one that its flag takes
	}
	o := nibble(t, trainIn(dir, "out", "--preset", "best")...)
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.stderr, "raschka-r256")
}

func TestModulesFlag(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `["default"]`}, {[]string{"a,b"}, `["a","b"]`}, {[]string{"a", "b"}, `["a","b"]`}, {[]string{"re:x{1,2}"}, `["re:x{1,2}"]`},
	} {
		list := []string{"default"}
		f := newModulesFlag(&list)
		for _, a := range c.args {
			require.NoError(t, f.Set(a))
		}
		text, err := json.Marshal(list)
		require.NoError(t, err)
		require.Equal(t, c.want, string(text))
	}
	list := []string{}
	f := newModulesFlag(&list)
	require.NoError(t, f.Set("a"))
	require.Error(t, f.Set("re:b"))

	var p patternFlag
	require.NoError(t, p.Set(`q_proj=8,a{1,2}=3`))
	require.NoError(t, p.Set("b=1.5"))
	require.Equal(t, "q_proj=8,a{1,2}=3,b=1.5", p.String())
	for _, bad := range []string{"q_proj", "q_proj=x", "a=1,b", "a=NaN"} {
		require.Error(t, p.Set(bad), bad)
	}
	require.False(t, strings.Contains(p.String(), "NaN"))
}
