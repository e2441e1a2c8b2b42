package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/merge/combine"
	"github.com/seed18967229/nibble/tensor"
)

// values opens a path and returns what its tensors hold.
func values(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	in, err := formats.Open(path)
	require.NoError(t, err)
	defer in.Close()
	out := make(map[string][]float32)
	for info := range in.All() {
		_, x, err := codecs.ReadAll(in, info.Name)
		require.NoError(t, err)
		out[info.Name] = x
	}
	return out
}

// near requires two models to be the same but for some steps of float32.
func near(t *testing.T, want, got map[string][]float32, within float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for name, w := range want {
		g := got[name]
		require.Len(t, g, len(w), "%s: %s", what, name)
		for i, x := range w {
			if math.Abs(float64(x-g[i])) > within*(1+math.Abs(float64(x))) {
				require.InDelta(t, x, g[i], within, "%s: element %d of %s", what, i, name)
			}
		}
	}
}

// TestRecipesOfMergekit merges by configurations that mergekit ran.
func TestRecipesOfMergekit(t *testing.T) {
	dir := filepath.Join(goldens, "recipes")
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	require.NoError(t, err)
	require.Len(t, files, 6)
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		out := filepath.Join(t.TempDir(), name)
		cmd := exec.Command(binary, "merge", "--recipe", name+".yaml", "--out", out)
		cmd.Dir = dir // where the paths in it begin
		text, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", text)
		want, got := tensors(t, filepath.Join(dir, name+".safetensors")), tensors(t, out)
		require.Len(t, got, len(want))
		for tensor, w := range want { // types and shapes
			require.Equal(t, w[:strings.LastIndexByte(w, ' ')], got[tensor][:strings.LastIndexByte(got[tensor], ' ')])
		}
		near(t, values(t, filepath.Join(dir, name+".safetensors")), values(t, out), 3e-7, name)
	}
	// What the flags say, a recipe can say too.
	in := func(name string) string { return filepath.Join(dir, name) }
	flags, file := filepath.Join(t.TempDir(), "flags"), filepath.Join(t.TempDir(), "file")
	ok(t, "merge", "--base", in("base"), "--model", in("one"), "--model", in("two")+":-0.5", "--method", "ties", "--density", "0.4", "--lambda", "0.9", "--normalize", "false", "--out", flags)
	put(t, file+".yaml", fmt.Sprintf("merge_method: ties\nmodels:\n- model: %s\n- model: %s\n  parameters: {weight: -0.5}\nparameters: {density: 0.4, lambda: 0.9, normalize: false}\n", in("one"), in("two")))
	ok(t, "merge", "--base", in("base"), "--recipe", file+".yaml", "--out", file)
	require.Equal(t, tensors(t, flags), tensors(t, file))
}

// TestMethodsOfAdaptersAndModels merges two adapters by every method, and then the two models
// that the adapters alone make: the same comes out.
func TestMethodsOfAdaptersAndModels(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(goldens, "llama/gqa")
	a, b := filepath.Join(base, "adapter_r3"), filepath.Join(base, "adapter_r1_rslora")
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "merge", "--base", base, "--adapter", a, "--out", at("one"))
	ok(t, "merge", "--base", base, "--adapter", b, "--out", at("two"))
	merged := func(name string, args ...string) map[string][]float32 {
		ok(t, append([]string{"merge", "--base", base, "--out", at(name), "--force"}, args...)...)
		return values(t, at(name))
	}
	adapters, models := []string{"--adapter", a + ":0.75", "--adapter", b + ":-0.5"}, []string{"--model", at("one") + ":0.75", "--model", at("two") + ":-0.5"}
	sum := merged("sum", adapters...)
	parameters := map[string][]string{
		"density": {"--density", "0.5"}, "t": {"--t", "0.3"}, "seed": {"--seed", "7"}, "gamma": {"--gamma", "0.1"}, "epsilon": {"--epsilon", "0.2"},
		"lambda": {"--lambda", "1.25"}, "rank": {"--rank", "4"}, "majority_sign_method": {"--majority-sign-method", "frequency"},
	}
	for _, m := range combine.Methods() {
		args := []string{"--method", m.Name}
		of := [][]string{adapters, models}
		if _, err := m.Parameter("weight"); err != nil {
			of = [][]string{{"--adapter", a, "--adapter", b}, {"--model", at("one"), "--model", at("two")}}
		}
		switch {
		case strings.HasPrefix(m.Name, "peft-"):
			// Of two adapters that have one rank: PEFT asks for that.
			of = [][]string{{"--adapter", a + ":0.75", "--adapter", a + ":0.5"}}
		case m.LowRank:
			of = of[:1]
		}
		if !m.LowRank || m.Name == "svd" {
			for _, name := range m.Uses {
				args = append(args, parameters[name]...)
			}
		}
		first := merged("first", append(args, of[0]...)...)
		switch m.Name {
		case "linear", "cat", "svd":
			near(t, sum, first, 1e-5, m.Name)
		}
		require.Equal(t, values(t, base)["model.norm.weight"], first["model.norm.weight"], "no adapter changes it")
		require.NotEqual(t, values(t, base)["model.layers.1.self_attn.q_proj.weight"], first["model.layers.1.self_attn.q_proj.weight"], m.Name)
		if m.Name == "peft-linear" {
			// √0.75 + √0.5, squared, where 0.75 + 0.5 would be exact.
			twice := merged("twice", "--adapter", a+":"+fmt.Sprint(1.25+2*math.Sqrt(0.375)))
			near(t, twice, first, 1e-5, m.Name)
		}
		if slices.Contains(m.Uses, "seed") {
			again := merged("again", append(args, append(of[0], "--threads", "1")...)...)
			require.Equal(t, first, again, "%s: threads change nothing", m.Name)
		}
		if len(of) > 1 {
			// What a model lost when it was rounded can change which element is the smallest that
			// is kept, not what most are.
			second := merged("second", append(args, of[1]...)...)
			apart, all := 0, 0
			for name, x := range first {
				for i, v := range x {
					all++
					if math.Abs(float64(v-second[name][i])) > 1e-5 {
						apart++
					}
				}
			}
			require.LessOrEqual(t, apart, all/200, "%s of adapters and of models", m.Name)
		}
	}
	require.NotEqual(t, merged("x", append(adapters, "--method", "dare_linear", "--density", "0.5", "--seed", "1")...),
		merged("y", append(adapters, "--method", "dare_linear", "--density", "0.5", "--seed", "2")...))

	// Models without a base, an adapter beside a model, and a GGUF file.
	mean := merged("mean", "--base", "", "--model", at("one"), "--model", at("two")+":3", "--method", "linear")
	one, other := values(t, at("one")), values(t, at("two"))
	for name, x := range one {
		for i, v := range x {
			x[i] = (v + 3*other[name][i]) / 4
		}
	}
	near(t, one, mean, 1e-6, "a mean")
	put(t, at("r.yaml"), fmt.Sprintf("merge_method: linear\nadapters:\n- {adapter: %s, parameters: {weight: 0.75}}\n- {adapter: %s, parameters: {weight: [{filter: mlp, value: -0.5}, {value: [-0.5, -0.5]}]}}\n", a, b))
	near(t, sum, merged("listed", "--recipe", at("r.yaml")), 1e-5, "adapters of a recipe")
	near(t, sum, merged("mixed", "--model", at("one")+":0.75", "--adapter", b+":-0.5", "--method", "task_arithmetic"), 1e-5, "a model and an adapter")
	story := filepath.Join(workspace(t), "stories260K")
	ok(t, "merge", "--model", story, "--model", story+":3", "--out", at("mean.gguf"), "--dtype", "f32")
	ok(t, "convert", at("mean.gguf"), at("back"), "--outtype", "f32")
	near(t, values(t, story), values(t, at("back")), 1e-6, "by way of GGUF")
}

func TestBadMethods(t *testing.T) {
	recipe := func(text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "r.yaml"), strings.ReplaceAll(text, "GOLDENS", mustAbs(t, goldens)))
		}
	}
	two := "models: [{model: GOLDENS/recipes/one}, {model: GOLDENS/recipes/two}]\n"
	merge := func(args ...string) []string { return append([]string{"merge", "--out", "out"}, args...) }
	for name, c := range map[string]badCase{
		"nothing":        {nil, merge(), exitUsage, []string{"--adapter is missing"}, "example"},
		"adapters alone": {nil, merge("--adapter", "x"), exitUsage, []string{"--base is missing"}, "example"},
		"method": {nil, merge("--base", "stories260K", "--adapter", "x", "--method", "tise"), exitUsage,
			[]string{`no method "tise"`}, "ties"},
		"parameter of another": {nil, merge("--model", "stories260K", "--model", "stories260K", "--method", "slerp", "--density", "0.5"), exitUsage,
			[]string{"--density 0.5", "slerp takes no density"}, "slerp takes: t"},
		"weight": {nil, merge("--model", "stories260K:0.3", "--model", "stories260K", "--method", "slerp"), exitUsage,
			[]string{"stories260K", "slerp takes no weight"}, "slerp takes: t"},
		"no weight": {nil, merge("--model", "stories260K:x", "--model", "stories260K"), exitUsage, []string{`"x" is not a weight`}, "lora:0.5"},
		"range": {nil, merge("--base", "stories260K", "--model", "stories260K", "--method", "ties", "--density", "1.5"), exitUsage,
			[]string{"--density 1.5", "want 0 to 1"}, ""},
		"no base": {nil, merge("--model", "stories260K", "--method", "ties"), exitUsage, []string{"ties needs a base"}, "--base"},
		"epsilon": {nil, merge("--base", "GOLDENS/recipes/base", "--model", "GOLDENS/recipes/one", "--method", "della", "--density", "0.95"), exitUsage,
			[]string{"density 0.95 and epsilon 0.15"}, "epsilon below 0.05"},
		"arithmetic": {nil, merge("--base", "stories260K", "--model", "x", "--method", "ties", "--arithmetic", "peft"), exitUsage,
			[]string{"--arithmetic peft is for the sum of adapters"}, "peft-"},
		"missing model": {nil, merge("--base", "stories260K", "--model", "no+such", "--method", "ties"), exitFailed, []string{"no+such"}, "among the adapters"},
		"output is an input": {nil, []string{"merge", "--base", "stories260K", "--model", "GOLDENS/recipes/one", "--method", "ties", "--out", "stories260K"}, exitUsage,
			[]string{"stories260K"}, ""},
		"another family": {nil, merge("--base", "stories260K", "--model", "GOLDENS/families/gpt2", "--method", "ties"), exitInput,
			[]string{"gpt2", "family"}, ""},
		"other widths": {nil, merge("--base", "stories260K", "--model", "GOLDENS/recipes/one", "--method", "ties"), exitInput,
			[]string{"recipes/one", "tensor"}, ""},
		"an adapter as a model": {nil, merge("--base", "GOLDENS/llama/gqa", "--model", "GOLDENS/llama/gqa/adapter_r3", "--method", "ties"), exitInput,
			[]string{"adapter_r3: unsupported input: an adapter, where a model is needed"}, "--adapter"},
		"factors of a model": {nil, merge("--base", "GOLDENS/recipes/base", "--model", "GOLDENS/recipes/one", "--method", "cat"), exitInput,
			[]string{"cat combines pairs of low-rank matrices"}, "linear"},
		"ranks": {nil, merge("--base", "GOLDENS/llama/gqa", "--adapter", "GOLDENS/llama/gqa/adapter_r3", "--adapter", "GOLDENS/llama/gqa/adapter_r1_rslora", "--method", "peft-linear"), exitInput,
			[]string{"ranks 3 and 1"}, "different ranks"},
		"no recipe":         {nil, merge("--recipe", "no.yaml"), exitUsage, []string{"no.yaml"}, ""},
		"key":               {recipe("merge_methods: ties\n" + two), merge("--recipe", "r.yaml"), exitUsage, []string{"r.yaml: line 1: unknown key \"merge_methods\""}, "merge_method"},
		"flag and recipe":   {recipe("merge_method: ties\n" + two), merge("--recipe", "r.yaml", "--density", "0.3"), exitUsage, []string{"--density beside --recipe"}, "r.yaml"},
		"method and recipe": {recipe("merge_method: ties\n" + two), merge("--recipe", "r.yaml", "--method", "slerp"), exitUsage, []string{"--method beside --recipe"}, "r.yaml"},
		"slices of fewer layers": {recipe("merge_method: linear\nslices: [{sources: [{model: GOLDENS/recipes/one, layer_range: [0, 2]}]}]\n"), merge("--recipe", "r.yaml"), exitUsage,
			[]string{"end at layer 2, the model has 3"}, "whole model"},
		"gradient that leaves its range": {recipe("merge_method: linear\nparameters: {weight: [1, two]}\n" + two), merge("--recipe", "r.yaml"), exitUsage, []string{"two is not a number"}, ""},
		"vocabularies": {func(t *testing.T, dir string) {
			require.NoError(t, os.CopyFS(filepath.Join(dir, "narrow"), os.DirFS(filepath.Join(goldens, "recipes/one"))))
			resizeVocabulary(t, filepath.Join(dir, "narrow"))
		}, merge("--base", "GOLDENS/recipes/base", "--model", "narrow", "--method", "ties"), exitInput, []string{"narrow", "its shape is [17, 8]", "has [18, 8]"}, "vocabularies differ"},
	} {
		t.Run(name, c.run)
	}
}

func mustAbs(t *testing.T, path string) string {
	abs, err := filepath.Abs(path)
	require.NoError(t, err)
	return abs
}

// resizeVocabulary takes the last token from a model.
func resizeVocabulary(t *testing.T, dir string) {
	t.Helper()
	edit(t, filepath.Join(dir, "config.json"), `"vocab_size": 18`, `"vocab_size": 17`)
	path := filepath.Join(dir, "model.safetensors")
	in, err := formats.Open(path)
	require.NoError(t, err)
	defer in.Close()
	var entries []tensor.Entry
	for info := range in.All() {
		e := tensor.Forward(in, info, info.Name)
		if info.Shape[0] == 18 {
			e.Info.Shape = tensor.Shape{17, info.Shape[1]}
		}
		entries = append(entries, e)
	}
	less, err := tensor.NewTable(in.Meta(), entries)
	require.NoError(t, err)
	w, err := safetensors.Create(path+".new", false)
	require.NoError(t, err)
	tensortest.Copy(t, less, w)
	require.NoError(t, os.Rename(path+".new", path))
}
