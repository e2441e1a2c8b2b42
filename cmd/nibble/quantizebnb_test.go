package main

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// bnbConfig is quantization_config.
type bnbConfig struct {
	Compute string   `json:"bnb_4bit_compute_dtype"`
	Storage string   `json:"bnb_4bit_quant_storage"`
	Four    bool     `json:"load_in_4bit"`
	Eight   bool     `json:"load_in_8bit"`
	Skip    []string `json:"llm_int8_skip_modules"`
	Experts string   `json:"_nibble_experts"`
}

func quantizationConfig(t *testing.T, dir string) bnbConfig {
	t.Helper()
	var c struct {
		Quantization *bnbConfig `json:"quantization_config"`
	}
	require.NoError(t, json.Unmarshal([]byte(readFile(t, dir+"/config.json")), &c))
	require.NotNil(t, c.Quantization)
	return *c.Quantization
}

// quantizedWeights returns the shapes of the quantized weights of a directory, by
// module, as stored: of 4 bits, or of LLM.int8.
func quantizedWeights(t *testing.T, dir string) map[string][]int64 {
	t.Helper()
	in, err := formats.Open(dir)
	require.NoError(t, err)
	defer in.Close()
	view, err := bnb.View(in, tensor.Invalid)
	require.NoError(t, err)
	out := make(map[string][]int64)
	for info := range view.All() {
		if info.DType.Opaque() {
			out[starred(strings.TrimSuffix(info.Name, ".weight"))] = info.Shape
		}
	}
	return out
}

// evaluated returns the loss of a model on some text.
func evaluated(t *testing.T, dir string) float64 {
	t.Helper()
	text := filepath.Join(t.TempDir(), "text.txt")
	put(t, text, readFile(t, filepath.Join(goldens, "stories260K/shakespeare.txt"))[:600])
	var r evalResult
	okJSON(t, &r, "eval", "--model", dir, "--data", text, "--max-seq-length", "32")
	return r.Loss
}

// In every family the modules are quantized that transformers quantizes, with the
// shapes that bitsandbytes gives them, but for parts that are not text.
func TestQuantizedModules(t *testing.T) {
	var want struct {
		Families map[string]struct {
			Shapes           map[string][]int64
			Skipped, Experts []string
		}
	}
	readGolden(t, "bnb_modules.json", &want)
	require.GreaterOrEqual(t, len(want.Families), 18)
	eachFamily(t, func(t *testing.T, dir string) {
		family := want.Families[filepath.Base(dir)]
		require.Contains(t, family.Skipped[0]+family.Skipped[len(family.Skipped)-1], "lm_head")
		expect := make(map[string][]int64)
		vision := false
		for name, shape := range family.Shapes {
			if strings.Contains(name, "vision_tower") {
				vision = true
				continue
			}
			// transformers 5 renames the modules of a checkpoint of text and more.
			expect[strings.Replace(name, "model.language_model.", "language_model.model.", 1)] = shape
		}
		for _, typ := range []string{"nf4", "int8"} {
			out := t.TempDir() + "/" + typ
			var r quantizeResult
			okJSON(t, &r, "quantize", dir, out, "--type", typ)
			require.Equal(t, expect, quantizedWeights(t, out))
			config := quantizationConfig(t, out)
			require.Equal(t, typ == "nf4", config.Four)
			require.Equal(t, typ == "int8", config.Eight)
			require.Empty(t, config.Experts)
			switch {
			case len(family.Experts) > 0:
				require.Contains(t, config.Skip, "experts", "transformers 4 has them as linear layers")
				require.Contains(t, config.Skip, "lm_head")
			case !vision:
				require.Nil(t, config.Skip, "transformers finds them by itself")
			}
			experts := slices.ContainsFunc(r.Kept, func(k keptGroup) bool { return k.Reason == "experts" && k.Tensors > 0 })
			require.Equal(t, len(family.Experts) > 0, experts)
			require.Equal(t, experts, slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "experts that were not quantized") }))

			// What was written runs as what it is decoded to.
			if !vision && typ == "nf4" {
				ok(t, "dequantize", out, out+"-f32", "--dtype", "f32")
				require.InDelta(t, evaluated(t, out+"-f32"), evaluated(t, out), 1e-6)
			}
		}
	})
}

// Experts are quantized one by one if asked for, and nibble reads them; the
// configuration says so.
func TestQuantizedExperts(t *testing.T) {
	for _, family := range []string{"mixtral", "qwen2moe", "qwen3moe"} {
		dir, out := filepath.Join(goldens, "families", family), t.TempDir()+"/q"
		for _, typ := range []string{"nf4", "int8"} {
			var r quantizeResult
			okJSON(t, &r, "quantize", dir, out, "--type", typ, "--experts", "quantize", "--force")
			require.False(t, slices.ContainsFunc(r.Kept, func(k keptGroup) bool { return k.Reason == "experts" }))
			config := quantizationConfig(t, out)
			require.Contains(t, config.Experts, "each expert")
			require.Contains(t, config.Skip, "lm_head")
			require.NotContains(t, config.Skip, "experts")
			experts := 0
			for name := range quantizedWeights(t, out) {
				if strings.Contains(name, ".experts.*.") {
					experts++
				}
				require.NotRegexp(t, `(mlp|moe)\.gate$`, name)
			}
			require.Equal(t, 3, experts)
			routers := slices.DeleteFunc(slices.Clone(config.Skip), func(s string) bool { return !regexp.MustCompile(`^model\.layers\.\d+\..*\.gate$`).MatchString(s) })
			require.Len(t, routers, 2, "transformers 4 has them as linear layers")
			ok(t, "verify", out)
			ok(t, "dequantize", out, out+"-f32", "--dtype", "f32", "--force")
			require.InDelta(t, evaluated(t, out+"-f32"), evaluated(t, out), 1e-6)
			require.Less(t, math.Abs(evaluated(t, out)-evaluated(t, dir)), 0.3)
		}
	}
}

// Experts that are stacked in two tensors of a layer, as transformers 5 has them in
// memory, are taken apart: the result is that of experts stored one by one.
func TestQuantizedStackedExperts(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	plain := filepath.Join(goldens, "families/qwen3moe")
	for _, name := range []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} {
		put(t, filepath.Join(dir, name), readFile(t, filepath.Join(plain, name)))
	}
	in, err := safetensors.Open(plain + "/model.safetensors")
	require.NoError(t, err)
	defer in.Close()
	var list []tensortest.Tensor
	expert := regexp.MustCompile(`^(.*\.experts)\.0\.down_proj\.weight$`)
	for info := range in.All() {
		if !strings.Contains(info.Name, ".experts.") {
			list = append(list, tensortest.Tensor{Info: info, Data: tensortest.Bytes(t, in, info.Name)})
			continue
		}
		m := expert.FindStringSubmatch(info.Name)
		if m == nil {
			continue
		}
		for name, parts := range map[string][]string{"down_proj": {"down_proj"}, "gate_up_proj": {"gate_proj", "up_proj"}} {
			x := tensortest.Tensor{Info: tensor.Info{Name: m[1] + "." + name, DType: info.DType}}
			n := int64(0)
			for e := 0; ; e++ {
				first := fmt.Sprintf("%s.%d.%s.weight", m[1], e, parts[0])
				if !tensor.Has(in, first) {
					break
				}
				one, err := in.Info(first)
				require.NoError(t, err)
				n++
				x.Info.Shape = tensor.Shape{n, one.Shape[0] * int64(len(parts)), one.Shape[1]}
				for _, p := range parts {
					x.Data = append(x.Data, tensortest.Bytes(t, in, fmt.Sprintf("%s.%d.%s.weight", m[1], e, p))...)
				}
			}
			list = append(list, x)
		}
	}
	w, err := safetensors.Create(dir+"/model.safetensors", false)
	require.NoError(t, err)
	tensortest.Copy(t, tensortest.NewSource(t, tensor.Meta{{Key: "format", Value: "pt"}}, list...), w)
	for _, experts := range []string{"keep", "quantize"} {
		ok(t, "quantize", plain, out+"/plain-"+experts, "--experts", experts)
		ok(t, "quantize", dir, out+"/stacked-"+experts, "--experts", experts)
		require.Equal(t, tensors(t, out+"/plain-"+experts), tensors(t, out+"/stacked-"+experts))
	}
}

// GPT-2's weights are stored as [in, out], and quantized as [out, in].
func TestQuantizedConv1D(t *testing.T) {
	dir, out := filepath.Join(goldens, "families/gpt2"), t.TempDir()
	for typ, most := range map[string]float64{"nf4": 0.13, "int8": 0.01} {
		q, plain := filepath.Join(out, typ), filepath.Join(out, typ+"-plain")
		ok(t, "quantize", dir, q, "--type", typ)
		ok(t, "dequantize", q, plain, "--dtype", "f32")
		var r struct {
			Tensors []struct {
				Name   string  `json:"name"`
				RelRMS float64 `json:"rel_rms"`
			} `json:"tensors"`
		}
		o := nibble(t, "diff", dir, plain, "--json")
		require.NoError(t, json.Unmarshal([]byte(lastLine(o.stdout)), &r), o.stderr)
		quantized := 0
		for _, x := range r.Tensors {
			require.Less(t, x.RelRMS, most, x.Name)
			if x.RelRMS > 0 {
				quantized++
			}
		}
		require.Equal(t, 8, quantized)

		var seen inspectResult
		okJSON(t, &seen, "inspect", q)
		require.NotEmpty(t, seen.Quantization)
		require.Equal(t, 20, seen.Types["F32"])

		// As a directory of another type it would be the wrong way round.
		o = nibble(t, "convert", q, filepath.Join(out, "x"), "--outtype", "f16")
		require.Equal(t, exitUsage, o.code)
		require.Contains(t, o.stderr, "hint: nibble dequantize")
		ok(t, "convert", q, q+"-copy")
		require.Equal(t, tensors(t, q), tensors(t, q+"-copy"))
		ok(t, "convert", q, q+".gguf", "--outtype", "f32")
		ok(t, "convert", q+".gguf", q+"-back")
		require.Equal(t, tensors(t, plain), tensors(t, q+"-back"))
	}
}

// The text of a model of text and more is quantized; the rest stays as it is, and
// whoever loads the directory is told to leave it.
func TestQuantizedVision(t *testing.T) {
	dir, out := filepath.Join(goldens, "families/gemma3-vision"), t.TempDir()+"/q"
	ok(t, "quantize", dir, out)
	before, after := tensors(t, dir), tensors(t, out)
	others := 0
	for name, text := range before {
		if !strings.HasPrefix(name, "language_model.") {
			require.Equal(t, text, after[name])
			others++
		}
	}
	require.Equal(t, 23, others)
	require.Equal(t, []string{"lm_head", "model.multi_modal_projector", "multi_modal_projector", "model.vision_tower", "vision_tower"}, quantizationConfig(t, out).Skip)
	ok(t, "generate", "--model", out, "--prompt", "a", "--max-tokens", "2", "--quiet")
}

// Layers follow each other by their number, and what a layer has is together. In
// a file tensors are sorted by the size of an element first, which the format
// asks for.
func TestQuantizedOrder(t *testing.T) {
	dir := t.TempDir()
	tensorOf := func(name string, shape ...int64) tensortest.Tensor { return tensortest.Normal(name, shape, 1, 1) }
	var list []tensortest.Tensor
	order := make(map[string]int)
	for _, name := range []string{"z.weight", "model.norm.weight", "model.layers.10.b", "model.layers.2.b", "x.10", "x.9", "model.layers.2.a"} {
		list = append(list, tensorOf(name, 2))
	}
	for i, name := range []string{"model.layers.2.a", "model.layers.2.b", "model.layers.10.b", "model.norm.weight"} {
		order[name] = i + 1
	}
	sorted, err := inOrder(tensortest.NewSource(t, nil, list...), order)
	require.NoError(t, err)
	require.Equal(t, []string{"model.layers.2.a", "model.layers.2.b", "model.layers.10.b", "model.norm.weight", "x.9", "x.10", "z.weight"}, namesOf(sorted))

	// gemma3 of testdata has layers enough for one to come behind the tenth by name.
	for _, family := range []string{"gemma3", "llama"} {
		ok(t, "quantize", filepath.Join(goldens, "families", family), dir+"/"+family, "--max-shard-size", "60KB")
		in, err := formats.Open(dir + "/" + family)
		require.NoError(t, err)
		defer in.Close()
		layer := regexp.MustCompile(`layers\.(\d+)\.`)
		last := map[string]string{}
		seen := map[string]map[string]bool{}
		for info := range in.All() {
			m := layer.FindStringSubmatch(info.Name)
			kind := info.DType.String()
			if strings.Contains(info.Name, "quant_state") {
				kind = "quant_state"
			}
			if m == nil {
				continue
			}
			if last[kind] != m[1] {
				require.False(t, seen[kind][m[1]], "%s: layer %s comes twice among %s", family, m[1], kind)
				if seen[kind] == nil {
					seen[kind] = map[string]bool{}
				}
				seen[kind][m[1]] = true
				last[kind] = m[1]
			}
		}
		require.Len(t, seen["U8"], len(seen["F32"]))
	}
}

func namesOf(src tensor.Source) (names []string) {
	for info := range src.All() {
		names = append(names, info.Name)
	}
	return names
}

func TestQuantizeBnbFlags(t *testing.T) {
	dir := workspace(t)
	base := filepath.Join(dir, "stories260K")
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "quantize", base, at("q"))
	for storage, name := range map[string]string{"bf16": "bfloat16", "f16": "float16", "float32": "float32", "uint8": "uint8"} {
		ok(t, "quantize", base, at(storage), "--quant-storage", storage, "--compute-dtype", "bf16")
		config := quantizationConfig(t, at(storage))
		require.Equal(t, name, config.Storage)
		require.Equal(t, "bfloat16", config.Compute)
		o := nibble(t, "diff", at("q"), at(storage), "--tensors-only")
		require.Equal(t, exitDone, o.code, o.stdout)
	}
	require.Equal(t, "float32", quantizationConfig(t, at("q")).Compute)

	for name, args := range map[string][]string{
		"block size of int8": {"--type", "int8", "--block-size", "64"}, "double quantization of int8": {"--type", "int8", "--no-double-quant"},
		"storage of int8": {"--type", "int8", "--quant-storage", "uint8"}, "compute dtype of int8": {"--type", "int8", "--compute-dtype", "bf16"},
		"storage": {"--quant-storage", "int4"}, "compute dtype": {"--compute-dtype", "uint8"}, "experts": {"--experts", "drop"},
	} {
		o := nibble(t, append([]string{"quantize", base, at("x")}, args...)...)
		require.Equal(t, exitUsage, o.code, "%s: %s", name, o.stderr)
		require.Contains(t, o.stderr, "\nhint: ")
		require.NoDirExists(t, at("x"))
	}
}

// Weights that are NaN or infinite become 0 where that is asked for, and are
// counted.
func TestNaNAsZero(t *testing.T) {
	dir := workspace(t)
	base, out := filepath.Join(dir, "stories260K"), filepath.Join(dir, "q")
	path := base + "/model.safetensors"
	b := []byte(readFile(t, path))
	at := 8 + int(b[0]) + int(b[1])<<8 + 814080 // layer 3's up_proj
	clear(b[at+4*100 : at+4*102])
	put(t, path, string(b))
	for _, typ := range []string{"nf4", "int8"} {
		ok(t, "quantize", base, out+"-want-"+typ, "--type", typ)
	}
	copy(b[at+4*100:], []byte{0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0xff})
	put(t, path, string(b))
	for _, typ := range []string{"nf4", "int8"} {
		o := nibble(t, "quantize", base, out, "--type", typ)
		require.Equal(t, exitInput, o.code)
		require.Contains(t, o.stderr, `tensor "model.layers.3.mlp.up_proj.weight": element 100 is NaN`)
		require.Contains(t, o.stderr, "--nan-as-zero")
		require.NoDirExists(t, out)
		var r quantizeResult
		okJSON(t, &r, "quantize", base, out+"-"+typ, "--type", typ, "--nan-as-zero")
		require.Contains(t, r.Notes, "model.layers.3.mlp.up_proj.weight: 2 elements that are NaN or infinite became 0")
		require.Equal(t, tensors(t, out+"-want-"+typ), tensors(t, out+"-"+typ))
	}
}

// What was quantized before can be quantized again, and the result says so.
func TestQuantizedAgain(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "convert", at("stories260K"), at("q8.gguf"), "--outtype", "q8_0")
	ok(t, "quantize", at("stories260K"), at("int8"), "--type", "int8")
	fp8 := eightBits(t, "fp8_whole")
	for in, kind := range map[string]string{at("q8.gguf"): "Q8_0", at("int8"): "INT8", fp8: "FP8"} {
		out := t.TempDir() + "/nf4"
		var r quantizeResult
		okJSON(t, &r, "quantize", in, out)
		require.True(t, slices.ContainsFunc(r.Notes, func(n string) bool {
			return strings.Contains(n, "had been quantized before, to "+kind) && strings.HasSuffix(n, "the errors add up")
		}), "%v", r.Notes)
		plain, want := t.TempDir()+"/plain", t.TempDir()+"/want"
		ok(t, "dequantize", in, plain)
		ok(t, "quantize", plain, want)
		require.Equal(t, tensors(t, want), tensors(t, out), in)
		require.NotContains(t, readFile(t, out+"/config.json"), "weight_block_size")
		require.NoFileExists(t, out+"/hf_quant_config.json")
		ok(t, "verify", out)
	}
}
