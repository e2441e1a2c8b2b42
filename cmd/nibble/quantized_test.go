package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// eightBits copies a checkpoint of testdata/quantized, with the tokenizer that
// belongs to it and the file that ModelOpt would leave, into a directory.
func eightBits(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, from := range []string{"tiny_llama3/tokenizer.model", "tiny_llama3/tokenizer_config.json", "tiny_llama3/generation_config.json",
		"quantized/" + name + "/config.json", "quantized/" + name + "/model.safetensors"} {
		put(t, filepath.Join(dir, filepath.Base(from)), readFile(t, filepath.Join(goldens, from)))
	}
	put(t, filepath.Join(dir, "hf_quant_config.json"), "{}")
	return dir
}

// withoutShapes drops the shapes from what tensors says of tensors.
func withoutShapes(all map[string]string) map[string]string {
	out := make(map[string]string)
	for name, text := range all {
		out[name] = text[:strings.Index(text, " ")] + text[strings.LastIndex(text, " "):]
	}
	return out
}

// An FP8 checkpoint becomes the GGUF files that llama.cpp's converter makes of it
// and the directory that transformers does.
func TestFP8(t *testing.T) {
	var want struct {
		Edges map[string]map[string]string `json:"fp8_edges"`
		Whole map[string]map[string]string `json:"fp8_whole"`
	}
	readGolden(t, "quantized/expect.json", &want)
	require.Len(t, want.Edges, 5)
	dir := eightBits(t, "fp8_edges")
	out := t.TempDir()
	for outType, tensorsOf := range want.Edges {
		path := filepath.Join(out, outType+".gguf")
		ok(t, "convert", dir, path, "--outtype", outType)
		require.Equal(t, tensorsOf, withoutShapes(tensors(t, path)), outType)
	}

	whole := eightBits(t, "fp8_whole")
	plain := filepath.Join(out, "plain")
	ok(t, "dequantize", whole, plain, "--dtype", "bf16")
	require.Equal(t, want.Whole["transformers"], withoutShapes(tensors(t, plain)))
	require.NotContains(t, readFile(t, plain+"/config.json"), "quantization_config")
	require.Contains(t, readFile(t, plain+"/config.json"), `"dtype": "bfloat16"`)
	require.NoFileExists(t, plain+"/hf_quant_config.json")
	require.FileExists(t, plain+"/tokenizer.model")
	ok(t, "verify", plain)

	// Each weight was BF16 by config.json, so auto is the same.
	ok(t, "dequantize", whole, filepath.Join(out, "auto"))
	require.Equal(t, tensors(t, plain), tensors(t, filepath.Join(out, "auto")))

	// A directory keeps what it is told to keep.
	ok(t, "convert", whole, filepath.Join(out, "kept"))
	require.Equal(t, tensors(t, whole), tensors(t, filepath.Join(out, "kept")))
	require.Contains(t, readFile(t, out+"/kept/config.json"), "weight_block_size")

	var r inspectResult
	okJSON(t, &r, "inspect", whole)
	require.Equal(t, "FP8 E4M3, blocks of 16x16", r.Quantization)
	require.Equal(t, 14, r.Types["FP8 E4M3"])
	require.Contains(t, ok(t, "inspect", dir), "quantization  FP8 E4M3, blocks of 20x24\n")
	ok(t, "verify", dir)
}

// Eight-bit weights are decoded as they are used: evaluation and training see what
// the decoded model has.
func TestFP8Streams(t *testing.T) {
	dir := eightBits(t, "fp8_edges")
	plain := filepath.Join(t.TempDir(), "plain")
	ok(t, "dequantize", dir, plain, "--dtype", "f32")
	text := filepath.Join(goldens, "stories260K/shakespeare.txt")
	var got, want evalResult
	okJSON(t, &got, "eval", "--model", dir, "--data", text, "--max-seq-length", "64")
	okJSON(t, &want, "eval", "--model", plain, "--data", text, "--max-seq-length", "64")
	require.InDelta(t, want.Loss, got.Loss, 1e-7) // few rows are multiplied with weights as they are stored, in another order

	for _, model := range []string{dir, plain} {
		ok(t, "train", "--model", model, "--data", text, "--output-dir", filepath.Join(model, "lora"), "--iters", "2", "--batch-size", "1",
			"--max-seq-length", "64", "--rank", "2", "--quiet")
	}
	require.Equal(t, tensors(t, plain+"/lora"), tensors(t, dir+"/lora"))
	merged := filepath.Join(t.TempDir(), "merged")
	ok(t, "merge", "--base", dir, "--adapter", dir+"/lora", "--out", merged)
	require.NotContains(t, readFile(t, merged+"/config.json"), "quantization_config")
	ok(t, "verify", merged)

	o := nibble(t, "train", "--model", dir, "--data", text, "--output-dir", t.TempDir()+"/x", "--fine-tune-type", "full", "--iters", "1")
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stderr, "full fine-tuning of FP8 weights")
}

// Scales of activations are left out, and said to be.
func TestScalesOfActivations(t *testing.T) {
	dir := eightBits(t, "fp8_whole")
	const layer = "model.layers.0.self_attn.k_proj."
	in, err := safetensors.Open(dir + "/model.safetensors")
	require.NoError(t, err)
	var list []tensor.Entry
	for info := range in.All() {
		list = append(list, tensor.Forward(in, info, info.Name))
	}
	for _, name := range []string{layer + "input_scale", layer + "k_scale"} {
		s := tensortest.NewSource(t, nil, tensortest.Float32(name, nil, []float32{0.5}))
		info, err := s.Info(name)
		require.NoError(t, err)
		list = append(list, tensor.Forward(s, info, name))
	}
	src, err := tensor.NewTable(in.Meta(), list)
	require.NoError(t, err)
	plan, err := castPlan(src, func(i tensor.Info) tensor.DType { return i.DType }, nil)
	require.NoError(t, err)
	w, err := safetensors.Create(dir+"/new", false)
	require.NoError(t, err)
	require.NoError(t, (&app{quiet: true}).runPlan(t.Context(), dir, plan, src, w))
	require.NoError(t, in.Close())
	require.NoError(t, os.Rename(dir+"/new", dir+"/model.safetensors"))

	out := t.TempDir()
	text := ok(t, "dequantize", dir, out+"/plain", "--verbose")
	require.Regexp(t, `drop +`+layer+`input_scale \(scale of activations`, text)
	require.Regexp(t, `drop +`+layer+`k_scale \(scale of the key-value cache`, text)
	text = ok(t, "convert", dir, out+"/m.gguf", "--verbose")
	require.Regexp(t, `drop +`+layer+`input_scale`, text)
	var r writeResult
	okJSON(t, &r, "convert", dir, out+"/kept")
	require.Zero(t, r.Actions["drop"])
	require.Len(t, tensors(t, out+"/kept"), len(tensors(t, out+"/plain"))+14+2)
}

// LLM.int8, as transformers saved it.
func TestInt8(t *testing.T) {
	dir, out := "../../nf4/bnb/testdata/int8", t.TempDir()
	ok(t, "dequantize", dir, out+"/f32", "--dtype", "f32")
	got, want := tensors(t, out+"/f32"), tensors(t, dir+"/dequant.safetensors")
	require.Len(t, want, 6)
	for name, text := range want {
		require.Equal(t, text, got[name], name)
	}
	require.NotContains(t, readFile(t, out+"/f32/config.json"), "quantization_config")
	ok(t, "dequantize", dir, out+"/auto")
	require.Contains(t, tensors(t, out+"/auto")["model.layers.0.mlp.up_proj.weight"], "BF16")
	var r inspectResult
	okJSON(t, &r, "inspect", dir)
	require.Equal(t, "LLM.int8", r.Quantization)
	require.Equal(t, map[string]int{"INT8": 6, "BF16": 6}, r.Types)
}

// What cannot be decoded is still looked into.
func TestRefusedQuantization(t *testing.T) {
	dir := eightBits(t, "fp8_whole")
	var config map[string]any
	require.NoError(t, json.Unmarshal([]byte(readFile(t, dir+"/config.json")), &config))
	config["quantization_config"] = map[string]any{"quant_method": "gptq", "bits": 4, "group_size": 128}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	put(t, dir+"/config.json", string(text))

	const says = "weights stored by GPTQ 4-bit, group 128"
	for _, args := range [][]string{
		{"convert", dir, dir + "/out.gguf"}, {"dequantize", dir, dir + "/out"}, {"quantize", dir, dir + "/out"},
		{"eval", "--model", dir, "--data", filepath.Join(goldens, "stories260K/shakespeare.txt")},
	} {
		o := nibble(t, args...)
		require.Equal(t, exitInput, o.code, "%v", args)
		require.Contains(t, o.stderr, fmt.Sprintf("%s: unsupported input: %s", dir, says))
		require.Contains(t, o.stderr, "\nhint: ")
		require.NoFileExists(t, dir+"/out.gguf")
		require.NoDirExists(t, dir+"/out")
	}
	inspected := ok(t, "inspect", dir)
	require.Contains(t, inspected, "quantization  GPTQ 4-bit, group 128, which is not decoded\n")
	require.Contains(t, inspected, "family        llama")
	var r inspectResult
	okJSON(t, &r, "inspect", dir, "--tensors")
	require.Contains(t, r.NotDecoded, says)
	require.Len(t, r.Tensors, r.Types["F8_E4M3"]+r.Types["F32"]+r.Types["BF16"])
	o := nibble(t, "verify", dir)
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stdout, says)
}
