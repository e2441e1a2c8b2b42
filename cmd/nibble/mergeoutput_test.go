package main

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// putAdapter writes an adapter of PEFT for those modules of each layer of a model, of
// rank 4, with deltas of about sigma.
func putAdapter(t *testing.T, dir, model string, sigma float64, modules ...string) string {
	t.Helper()
	m, err := openModel(model)
	require.NoError(t, err)
	defer m.Close()
	const rank = 4
	rng := rand.New(rand.NewPCG(5, 6))
	var list []tensortest.Tensor
	values := func(n int64, scale float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64() * scale)
		}
		return x
	}
	for _, x := range m.arch.Tensors() {
		module := x.Module()
		if x.Part != "weight" || !slices.Contains(modules, module[strings.LastIndexByte(module, '.')+1:]) {
			continue
		}
		in, out := int64(x.In()), int64(x.Out())
		list = append(list,
			tensortest.Float32(module+".lora_A.weight", tensor.Shape{rank, in}, values(rank*in, 1)),
			tensortest.Float32(module+".lora_B.weight", tensor.Shape{out, rank}, values(out*rank, sigma/2)))
	}
	require.NotEmpty(t, list)
	c, err := peft.ParseConfig([]byte(`{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 4, "target_modules": ["` + strings.Join(modules, `", "`) + `"]}`))
	require.NoError(t, err)
	c.FanInFanOut = m.arch.FanInFanOut()
	require.NoError(t, os.MkdirAll(dir, 0o777))
	require.NoError(t, peft.Write(context.Background(), dir, c, tensortest.NewSource(t, nil, list...), false))
	return dir
}

var allLinear = []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

// TestMergeIsQuantizedInOnePass compares with merging first and quantizing then.
func TestMergeIsQuantizedInOnePass(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base, lora := at("stories260K"), putAdapter(t, at("lora"), at("stories260K"), 0.05, allLinear...)
	merge := func(out string, args ...string) *mergeResult {
		var r mergeResult
		okJSON(t, &r, append([]string{"merge", "--base", base, "--adapter", lora, "--out", at(out)}, args...)...)
		return &r
	}
	merge("merged")
	for _, typ := range []string{"q4_0", "q4_k_m", "q8_0"} {
		ok(t, "quantize", at("merged"), at(typ+".gguf"), "--type", typ, "--model-name", "x")
		r := merge("one-"+typ+".gguf", "--quantize", typ, "--model-name", "x")
		sameButRecord(t, at(typ+".gguf"), at("one-"+typ+".gguf"))
		require.NotNil(t, r.Quantization.Survived)
		require.InDelta(t, 1, r.Quantization.Survived.Median, 0.1, typ)
	}
	for _, typ := range []string{"nf4", "int8"} {
		ok(t, "quantize", at("merged"), at(typ), "--type", typ)
		merge("one-"+typ, "--quantize", typ)
		require.Equal(t, tensors(t, at(typ)), tensors(t, at("one-"+typ)), typ)
		require.Equal(t, readFile(t, at(typ+"/config.json")), readFile(t, at("one-"+typ+"/config.json")), typ)
	}
	ok(t, "quantize", at("merged"), at("fp4"), "--type", "fp4", "--block-size", "128", "--no-double-quant", "--skip-modules", "down_proj,lm_head")
	merge("one-fp4", "--quantize", "fp4", "--block-size", "128", "--no-double-quant", "--skip-modules", "down_proj,lm_head")
	require.Equal(t, tensors(t, at("fp4")), tensors(t, at("one-fp4")))

	// An importance matrix counts as it does for quantize.
	ok(t, "imatrix", "--model", base, "--data", filepath.Join(goldens, "stories260K/shakespeare.txt"), "--out", at("i.gguf"), "--chunks", "1")
	ok(t, "quantize", at("merged"), at("weighted.gguf"), "--type", "q4_0", "--imatrix", at("i.gguf"), "--tensor-type", "ffn_up=q5_0", "--model-name", "x")
	merge("one-weighted.gguf", "--quantize", "q4_0", "--imatrix", at("i.gguf"), "--tensor-type", "ffn_up=q5_0", "--model-name", "x")
	sameButRecord(t, at("weighted.gguf"), at("one-weighted.gguf"))
	require.NotEqual(t, tensors(t, at("q4_0.gguf")), tensors(t, at("weighted.gguf")))
}

// TestMergeKeepsTheScheme merges into quantized bases and stores what changes as they do.
func TestMergeKeepsTheScheme(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	lora := putAdapter(t, at("lora"), at("stories260K"), 0.05, "q_proj", "down_proj")
	changes := func(name string) bool { return strings.Contains(name, "q_proj") || strings.Contains(name, "down_proj") }
	for name, args := range map[string][]string{
		"nf4":  {"--type", "nf4"},
		"fp4":  {"--type", "fp4", "--block-size", "128", "--no-double-quant", "--quant-storage", "bf16", "--skip-modules", "o_proj,lm_head"},
		"int8": {"--type", "int8"},
	} {
		ok(t, append([]string{"quantize", at("stories260K"), at(name)}, args...)...)
		ok(t, "merge", "--base", at(name), "--adapter", lora, "--out", at(name+"-plain"))
		ok(t, append([]string{"quantize", at(name + "-plain"), at(name + "-want")}, args...)...)
		var r mergeResult
		okJSON(t, &r, "merge", "--base", at(name), "--adapter", lora, "--out", at(name+"-kept"), "--quantize", "keep")
		require.Equal(t, 10, r.Actions["merge+"+name])
		require.Equal(t, readFile(t, at(name+"/config.json")), readFile(t, at(name+"-kept/config.json")))
		was, want, got := tensors(t, at(name)), tensors(t, at(name+"-want")), tensors(t, at(name+"-kept"))
		require.Len(t, got, len(was))
		for tensor, digest := range got {
			if changes(tensor) {
				require.Equal(t, want[tensor], digest, "%s: %s is quantized again", name, tensor)
			} else {
				require.Equal(t, was[tensor], digest, "%s: %s is as it was", name, tensor)
			}
		}
		require.NotEqual(t, was, got)
		require.NotNil(t, r.Quantization.Base, "the base is quantized")
		require.Equal(t, "estimated", r.Quantization.How)
		require.Len(t, r.Quantization.Modules, 10)
		ok(t, "verify", at(name+"-kept"))
	}

	// A change that is much smaller than what the codes can show does not survive.
	weak := putAdapter(t, at("weak"), at("stories260K"), 1e-5, allLinear...)
	var r mergeResult
	okJSON(t, &r, "merge", "--base", at("nf4"), "--adapter", weak, "--out", at("lost"), "--quantize", "keep")
	require.Less(t, r.Quantization.Survived.Median, 0.3)
	require.Greater(t, r.Quantization.Base.Median, 100.0)
	text := ok(t, "merge", "--base", at("nf4"), "--adapter", weak, "--out", at("lost"), "--quantize", "keep", "--force")
	require.Contains(t, text, "a weak fine-tune is lost")

	// GGUF files keep names, metadata and order too.
	lora = putAdapter(t, at("lora2"), at("stories260K"), 0.05, "q_proj", "o_proj")
	r = mergeResult{}
	ok(t, "quantize", at("stories260K"), at("base.gguf"), "--type", "q8_0", "--tensor-type", "attn_output=q4_0", "--model-name", "kept")
	ok(t, "merge", "--base", at("base.gguf"), "--adapter", lora, "--out", at("plain.gguf"), "--dtype", "f32")
	ok(t, "quantize", at("plain.gguf"), at("want.gguf"), "--type", "q8_0", "--tensor-type", "attn_output=q4_0")
	okJSON(t, &r, "merge", "--base", at("base.gguf"), "--adapter", lora, "--out", at("kept.gguf"), "--quantize", "keep")
	was, want, got := tensors(t, at("base.gguf")), tensors(t, at("want.gguf")), tensors(t, at("kept.gguf"))
	half := tensors(t, mergedTo(t, at("half.gguf"), "merge", "--base", at("base.gguf"), "--adapter", lora))
	for name, digest := range got {
		if strings.Contains(name, "attn_q") || strings.Contains(name, "attn_output") {
			require.Equal(t, want[name], digest, name)
			require.Contains(t, half[name], "F16", name)
		} else {
			require.Equal(t, was[name], digest, name)
			require.Equal(t, was[name], half[name], name)
		}
	}
	require.Equal(t, 5, r.Actions["merge+q8_0"], "%v", r.Actions)
	require.Equal(t, 5, r.Actions["merge+q4_0"])
	require.Equal(t, unrecorded(metadata(t, at("base.gguf"))), unrecorded(metadata(t, at("kept.gguf"))))
	require.Equal(t, 1.0, metadata(t, at("half.gguf"))["general.file_type"])
}

func mergedTo(t *testing.T, out string, args ...string) string {
	t.Helper()
	ok(t, append(args, "--out", out)...)
	return out
}

// metadata returns that of a GGUF file, as JSON has it.
func metadata(t *testing.T, path string) map[string]any {
	t.Helper()
	m, err := openModel(path)
	require.NoError(t, err)
	defer m.Close()
	out := make(map[string]any)
	for _, kv := range m.GGUF.Meta() {
		text, err := json.Marshal(kv.Value)
		require.NoError(t, err)
		var v any
		require.NoError(t, json.Unmarshal(text, &v))
		out[kv.Key] = v
	}
	return out
}

// TestMergeThrough merges into the original as an adapter saw it: what a merge into the
// quantized checkpoint makes.
func TestMergeThrough(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base, lora := at("stories260K"), putAdapter(t, at("lora"), at("stories260K"), 0.001, "q_proj", "down_proj")
	for through, args := range map[string][]string{
		"nf4":     nil,
		"nf4:128": {"--no-double-quant"},
		"fp4":     {"--skip-modules", "o_proj,lm_head"},
		"int8":    nil,
	} {
		name, size, sized := strings.Cut(through, ":")
		quantize := append([]string{"quantize", base, at("q"), "--force", "--type", name}, args...)
		if sized {
			quantize = append(quantize, "--block-size", size)
		}
		ok(t, quantize...)
		ok(t, "merge", "--base", at("q"), "--adapter", lora, "--out", at("want"), "--dtype", "f32", "--force")
		var r mergeResult
		okJSON(t, &r, append([]string{"merge", "--base", base, "--through", through, "--adapter", lora, "--out", at("got"), "--dtype", "f32", "--force"}, args...)...)
		require.Equal(t, tensors(t, at("want")), tensors(t, at("got")), through)
		require.NotContains(t, readFile(t, at("got/config.json")), "quantization_config")

		// What it says is what quantizing and merging say, one by one.
		l := r.Quantization
		require.Equal(t, "measured", l.How)
		require.Len(t, l.Modules, 10)
		for _, x := range l.Modules {
			original, quantized, merged := valuesOf(t, base, x.Name), valuesOf(t, at("q"), x.Name), valuesOf(t, at("got"), x.Name)
			require.InEpsilon(t, apartBy(original, make([]float32, len(original))), x.Norm, 0.02, x.Name)
			require.InEpsilon(t, apartBy(merged, quantized), x.Delta, 0.05, x.Name)
			require.InEpsilon(t, apartBy(original, quantized), *x.Error, 0.05, x.Name)
			require.InEpsilon(t, *x.Error/x.Delta, *x.Ratio, 1e-9)
		}

		// From the quantized base alone the error is estimated, about right.
		okJSON(t, &r, "merge", "--base", at("q"), "--adapter", lora, "--out", at("want"), "--dtype", "f32", "--force")
		require.InEpsilon(t, l.Base.Median, r.Quantization.Base.Median, 0.25, through)
	}

	// To a GGUF file as well.
	ok(t, "quantize", base, at("q"), "--type", "nf4", "--force")
	ok(t, "merge", "--base", at("q"), "--adapter", lora, "--out", at("want.gguf"), "--quantize", "q8_0", "--model-name", "x")
	ok(t, "merge", "--base", base, "--through", "nf4", "--adapter", lora, "--out", at("got.gguf"), "--quantize", "q8_0", "--model-name", "x")
	sameButRecord(t, at("want.gguf"), at("got.gguf"))

	text := ok(t, "merge", "--base", base, "--through", "nf4", "--adapter", lora, "--out", at("got"), "--force", "--report", at("report"))
	page := readFile(t, at("report/report.html"))
	require.Contains(t, page, "Quantization error over delta")
	require.Contains(t, page, "The error is of nf4:64 (--through), measured.")
	require.Contains(t, page, "model.layers.4.mlp.down_proj.weight")
	var r report.Report
	unmarshal(t, []byte(readFile(t, at("report/report.json"))), &r)
	require.Len(t, r.Merge.Modules, 10)
	require.NotEmpty(t, r.Merge.Warnings)
	require.Greater(t, float64(*r.Merge.Modules[0].Ratio), 1.0)
	require.Contains(t, text, "quantization error over delta, measured for nf4:64 (--through): median")
	require.Contains(t, text, "leave out --through")
}

// TestMergeSaysWhichBase reads off an adapter's files that its base was quantized.
func TestMergeSaysWhichBase(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "quantize", at("stories260K"), at("fp4"), "--type", "fp4")
	for name, c := range map[string]struct {
		base, card string
		typ        string
	}{
		"plain":     {"", "load_in_4bit: False\n", ""},
		"PEFT card": {"", "- load_in_8bit: False\n- load_in_4bit: True\n- bnb_4bit_quant_type: fp4\n", "fp4:64"},
		"8 bits":    {"", "- load_in_8bit: True\n- load_in_4bit: False\n", "int8"},
		"axolotl":   {"", "```yaml\nadapter: qlora\n```\n", "nf4:64"},
		"unsloth":   {"unsloth/stories-bnb-4bit", "", "nf4:64"},
		"directory": {at("fp4"), "", "fp4:64"},
		"original":  {at("stories260K"), "", ""},
	} {
		lora := putAdapter(t, at("lora "+name), at("stories260K"), 0.001, "q_proj")
		if c.base != "" {
			edit(t, lora+"/adapter_config.json", `"base_model_name_or_path": null`, `"base_model_name_or_path": "`+c.base+`"`)
		}
		if c.card != "" {
			put(t, lora+"/README.md", "# A model\n"+c.card)
		}
		var r mergeResult
		okJSON(t, &r, "merge", "--base", at("stories260K"), "--adapter", lora, "--out", at("out"), "--force")
		if c.typ == "" {
			require.Nil(t, r.Quantization, name)
			continue
		}
		require.Equal(t, c.typ, r.Quantization.Type, name)
		require.Greater(t, r.Quantization.Base.Median, 1.0, name)
		text := ok(t, "merge", "--base", at("stories260K"), "--adapter", lora, "--out", at("out"), "--force")
		require.Contains(t, text, "--through "+c.typ+" merges into those that it was trained on", name)
	}
}

// sameButRecord requires two GGUF files to have the same tensors and the same metadata,
// but for what is said there of a merge.
func sameButRecord(t *testing.T, want, got string) {
	t.Helper()
	require.Equal(t, unrecorded(metadata(t, want)), unrecorded(metadata(t, got)))
	require.Equal(t, tensors(t, want), tensors(t, got))
}

func unrecorded(meta map[string]any) map[string]any {
	maps.DeleteFunc(meta, func(key string, _ any) bool {
		return key == provenanceKey || strings.HasPrefix(key, "general.base_model.") || key == "general.tags"
	})
	return meta
}

// valuesOf decodes a tensor of a model.
func valuesOf(t *testing.T, path, name string) []float32 {
	t.Helper()
	m, err := openModel(path)
	require.NoError(t, err)
	defer m.Close()
	_, x, err := codecs.ReadAll(m.view, name)
	require.NoError(t, err)
	return x
}

// apartBy is the norm of a difference.
func apartBy(a, b []float32) float64 {
	var sum float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return math.Sqrt(sum)
}

// TestMergeThroughConv1D does it with weights that a checkpoint has as [in, out] and
// bitsandbytes as [out, in], and quantizes such in the same pass.
func TestMergeThroughConv1D(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base := filepath.Join(goldens, "families/gpt2")
	lora := putAdapter(t, at("lora"), base, 0.01, "c_attn", "c_fc")
	ok(t, "quantize", base, at("nf4"), "--type", "nf4")
	ok(t, "merge", "--base", at("nf4"), "--adapter", lora, "--out", at("want"), "--dtype", "f32")
	ok(t, "merge", "--base", base, "--through", "nf4", "--adapter", lora, "--out", at("got"), "--dtype", "f32")
	require.Equal(t, tensors(t, at("want")), tensors(t, at("got")))
	ok(t, "quantize", at("want"), at("want-nf4"), "--type", "nf4")
	ok(t, "merge", "--base", at("nf4"), "--adapter", lora, "--out", at("kept"), "--quantize", "keep")
	was, want, kept := tensors(t, at("nf4")), tensors(t, at("want-nf4")), tensors(t, at("kept"))
	require.Len(t, kept, len(was))
	for name, digest := range kept {
		if strings.Contains(name, "c_attn") || strings.Contains(name, "c_fc") {
			require.Equal(t, want[name], digest, name)
		} else {
			require.Equal(t, was[name], digest, name)
		}
	}
}
