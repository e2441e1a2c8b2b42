package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/ggml"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// Every checkpoint of formats/quantized decodes to what its maker or llama.cpp decodes,
// as a directory though no family is known, and as a file.
func TestDequantizeScaled(t *testing.T) {
	expectations, err := filepath.Glob("../../formats/quantized/testdata/*/expect.json")
	require.NoError(t, err)
	require.Len(t, expectations, 14)
	for _, path := range expectations {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var want struct {
				Tensors map[string]struct {
					Shape  []int64
					SHA256 string
				}
			}
			require.NoError(t, json.Unmarshal([]byte(readFile(t, path)), &want))
			out := t.TempDir()
			for _, out := range []string{out + "/dir", out + "/file.safetensors"} {
				from := dir
				if strings.HasSuffix(out, ".safetensors") && filepath.Base(dir) != "ct_group" { // whose groups only config.json tells
					from = filepath.Join(dir, "model.safetensors")
				}
				ok(t, "dequantize", from, out, "--dtype", "f32")
				got := tensors(t, out)
				require.Len(t, got, len(want.Tensors))
				for name, x := range want.Tensors {
					require.Equal(t, fmt.Sprintf("F32 %v %s", tensor.Shape(x.Shape), x.SHA256), got[name], name)
				}
			}
			require.NotContains(t, readFile(t, out+"/dir/config.json"), "quantization_config")
		})
	}
}

// What bitsandbytes stores decodes to what it decodes, beside a config.json and without.
func TestDequantizeBnb(t *testing.T) {
	for name, dtype := range map[string]string{"fp4_skip": "f16", "nf4_dq": "bf16", "nf4_storage": "f32", "int8": "f32"} {
		dir, out := filepath.Join("../../nf4/bnb/testdata", name), t.TempDir()
		want := tensors(t, dir+"/dequant.safetensors")
		for in, out := range map[string]string{dir: out + "/dir", dir + "/": out + "/a.safetensors", dir + "/model.safetensors": out + "/b.safetensors"} {
			ok(t, "dequantize", in, out, "--dtype", dtype)
			got := tensors(t, out)
			require.Len(t, got, 12, name)
			for weight, text := range want {
				require.Equal(t, text, got[weight], "%s: %s", out, weight)
			}
		}
	}
}

// blocks returns random blocks of a type that hold finite numbers.
func blocks(t *testing.T, rng *rand.Rand, d tensor.DType, shape tensor.Shape) tensortest.Tensor {
	t.Helper()
	info := tensor.Info{Name: "x", DType: d, Shape: shape}
	elems, size := d.Block()
	data := make([]byte, info.Size())
	x := make([]float32, elems)
	for at := 0; at < len(data); at += int(size) {
		block := data[at:][:size]
		for i := range block {
			block[i] = byte(rng.Uint32())
		}
		rows, err := codecs.Open(tensor.Info{DType: d, Shape: tensor.Shape{elems}}, tensor.Memory(block))
		require.NoError(t, err)
		require.NoError(t, rows.ReadRows(x, 0))
		for _, v := range x {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				clear(block)
			}
		}
	}
	return tensortest.Tensor{Info: info, Data: data}
}

// matrices are those of a block of a GGUF model, with their names in a checkpoint. none
// of those whose rows have another order there.
var matrices = []struct {
	name, hf string
	shape    tensor.Shape
}{
	{"attn_q", "", tensor.Shape{256, 256}}, {"attn_k", "", tensor.Shape{128, 256}},
	{"attn_v", "self_attn.v_proj", tensor.Shape{128, 256}}, {"attn_output", "self_attn.o_proj", tensor.Shape{256, 256}},
	{"ffn_gate", "mlp.gate_proj", tensor.Shape{512, 256}}, {"ffn_up", "mlp.up_proj", tensor.Shape{512, 256}}, {"ffn_down", "mlp.down_proj", tensor.Shape{256, 512}},
}

// ggufOf writes a GGUF model whose matrices are of these types, one after another, with
// the tokenizer of another model.
func ggufOf(t *testing.T, path string, like tensor.Source, types []tensor.DType) map[string]tensortest.Tensor {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	layers := (len(types) + len(matrices) - 1) / len(matrices)
	meta := append(tensor.Meta(nil), like.Meta()...)
	set := map[string]uint32{
		"llama.block_count": uint32(layers), "llama.embedding_length": 256, "llama.feed_forward_length": 512, "llama.attention.head_count": 4,
		"llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 64, "llama.attention.key_length": 64, "llama.attention.value_length": 64,
	}
	for i, kv := range meta {
		if v, ok := set[kv.Key]; ok {
			meta[i].Value = v
			delete(set, kv.Key)
		}
	}
	require.Empty(t, set)
	made := make(map[string]tensortest.Tensor)
	var list []tensortest.Tensor
	add := func(name string, x tensortest.Tensor) {
		x.Info.Name = name
		made[name] = x
		list = append(list, x)
	}
	add("token_embd.weight", blocks(t, rng, tensor.Q4_0, tensor.Shape{512, 256}))
	add("output_norm.weight", tensortest.Normal("", tensor.Shape{256}, 1, 1))
	for l := range layers {
		for _, name := range []string{"attn_norm", "ffn_norm"} {
			add(fmt.Sprintf("blk.%d.%s.weight", l, name), tensortest.Normal("", tensor.Shape{256}, 1, 2))
		}
		for i, x := range matrices {
			d := types[(l*len(matrices)+i)%len(types)]
			add(fmt.Sprintf("blk.%d.%s.weight", l, x.name), blocks(t, rng, d, x.shape))
		}
	}
	w, err := gguf.Create(path, false)
	require.NoError(t, err)
	tensortest.Copy(t, tensortest.NewSource(t, meta, list...), w)
	return made
}

// decodedAs describes a tensor that was decoded, as tensors does.
func decodedAs(t *testing.T, x tensortest.Tensor, d tensor.DType) string {
	t.Helper()
	rows, err := codecs.Open(x.Info, tensor.Memory(x.Data))
	require.NoError(t, err)
	values := make([]float32, x.Info.Shape.Elems())
	require.NoError(t, rows.ReadRows(values, 0))
	enc, err := codecs.Encoder(d)
	require.NoError(t, err)
	_, size := d.Block()
	b := make([]byte, int64(len(values))*size)
	enc.Encode(b, values)
	return fmt.Sprintf("%v %v %x", d, x.Info.Shape, sha256.Sum256(b))
}

// Every block type that GGUF has decodes, to a directory and to a file.
func TestDequantizeGGUF(t *testing.T) {
	var types []tensor.DType
	for d := range tensor.DType(255) {
		if _, ok := gguf.TypeID(d); ok && blockType(d) {
			types = append(types, d)
		}
	}
	require.Len(t, types, len(ggml.Codecs()))
	dir := workspace(t)
	ok(t, "convert", dir+"/stories260K", dir+"/like.gguf")
	like, err := formats.Open(dir + "/like.gguf")
	require.NoError(t, err)
	defer like.Close()
	made := ggufOf(t, dir+"/m.gguf", like, types)
	for _, to := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16} {
		out := filepath.Join(dir, to.String()+".safetensors")
		ok(t, "dequantize", dir+"/m.gguf", out, "--dtype", strings.ToLower(to.String()))
		got := tensors(t, out)
		require.Len(t, got, len(made))
		for name, x := range made {
			require.Equal(t, decodedAs(t, x, to), got[name], "%s of %v", name, x.Info.DType)
		}
	}
	ok(t, "dequantize", dir+"/m.gguf", dir+"/out", "--dtype", "f32")
	ok(t, "verify", dir+"/out")
	got := tensors(t, dir+"/out")
	for name, x := range made {
		for _, m := range matrices {
			if block, ok := strings.CutSuffix(name, "."+m.name+".weight"); ok && m.hf != "" {
				hf := strings.Replace(block, "blk.", "model.layers.", 1) + "." + m.hf + ".weight"
				require.Equal(t, decodedAs(t, x, tensor.F32), got[hf], "%s of %v", hf, x.Info.DType)
			}
		}
	}
	// The way back restores the order of all rows.
	ok(t, "convert", dir+"/out", dir+"/back.gguf", "--outtype", "f32")
	back := tensors(t, dir+"/back.gguf")
	for name, x := range made {
		require.Equal(t, decodedAs(t, x, tensor.F32), back[name], "%s of %v", name, x.Info.DType)
	}
}

// A file in parts is one model, and integers stay integers.
func TestDequantizeParts(t *testing.T) {
	dir := workspace(t)
	ok(t, "convert", dir+"/stories260K", dir+"/m.gguf", "--outtype", "q8_0")
	ok(t, "convert", dir+"/m.gguf", dir+"/parts.gguf", "--split-max-tensors", "9")
	first, err := filepath.Glob(dir + "/parts-00001-of-*.gguf")
	require.NoError(t, err)
	require.Len(t, first, 1)
	for _, out := range []string{"", ".safetensors"} {
		ok(t, "dequantize", dir+"/m.gguf", dir+"/whole"+out, "--dtype", "bf16")
		ok(t, "dequantize", first[0], dir+"/joined"+out, "--dtype", "bf16")
		require.Equal(t, tensors(t, dir+"/whole"+out), tensors(t, dir+"/joined"+out))
	}

	in, err := formats.Open(dir + "/m.gguf")
	require.NoError(t, err)
	defer in.Close()
	w, err := gguf.Create(dir+"/ints.gguf", false)
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(1, 1))
	x := blocks(t, rng, tensor.Q4_K, tensor.Shape{2, 256})
	i := tensortest.Tensor{Info: tensor.Info{Name: "i", DType: tensor.I32, Shape: tensor.Shape{2}}, Data: []byte{1, 0, 0, 0, 255, 255, 255, 255}}
	tensortest.Copy(t, tensortest.NewSource(t, in.Meta(), x, i), w)
	o := nibble(t, "dequantize", dir+"/ints.gguf", dir+"/no")
	require.Equal(t, exitInput, o.code, "it is no whole model")
	ok(t, "dequantize", dir+"/ints.gguf", dir+"/ints.safetensors")
	require.Equal(t, map[string]string{
		"x": decodedAs(t, x, tensor.F16), "i": fmt.Sprintf("I32 [2] %x", sha256.Sum256(i.Data)),
	}, tensors(t, dir+"/ints.safetensors"))
}

// A model of a family that is not known decodes under its own names, side files and all.
func TestDequantizeUnknownFamily(t *testing.T) {
	dir := workspace(t)
	ok(t, "quantize", dir+"/stories260K", dir+"/q")
	ok(t, "dequantize", dir+"/q", dir+"/want", "--dtype", "bf16")
	edit(t, dir+"/q/config.json", `"model_type": "llama"`, `"model_type": "camel"`)
	ok(t, "dequantize", dir+"/q", dir+"/got", "--dtype", "bf16")
	require.Equal(t, tensors(t, dir+"/want"), tensors(t, dir+"/got"))
	require.Equal(t, strings.Replace(readFile(t, dir+"/want/config.json"), "llama", "camel", 1), strings.Replace(readFile(t, dir+"/got/config.json"), "llama", "camel", 1))
	require.Equal(t, readFile(t, dir+"/want/tokenizer.model"), readFile(t, dir+"/got/tokenizer.model"))

	// GGUF files of unknown families have only the names that they have.
	ok(t, "convert", dir+"/stories260K", dir+"/m.gguf", "--outtype", "q8_0")
	b, err := os.ReadFile(dir + "/m.gguf")
	require.NoError(t, err)
	put(t, dir+"/m.gguf", strings.ReplaceAll(string(b), "llama", "camel"))
	o := nibble(t, "dequantize", dir+"/m.gguf", dir+"/x")
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stderr, "camel")
	require.Contains(t, o.stderr, ".safetensors")
	ok(t, "dequantize", dir+"/m.gguf", dir+"/x.safetensors")
	require.Contains(t, tensors(t, dir+"/x.safetensors"), "blk.0.ffn_down.weight")
}

func TestDequantizeRefuses(t *testing.T) {
	file := "GOLDENS/../nf4/bnb/testdata/nf4_dq/model.safetensors"
	foreign := "GOLDENS/../formats/quantized/testdata/anamnesis/"
	for name, c := range map[string]badCase{
		"file to directory": {nil, []string{"dequantize", file, "out"}, exitUsage, []string{"single file", "config.json"}, "directory"},
		"to GGUF":           {nil, []string{"dequantize", file, "out.gguf"}, exitUsage, []string{"out.gguf"}, "convert"},
		"shards of a file":  {nil, []string{"dequantize", file, "out.safetensors", "--max-shard-size", "1GB"}, exitUsage, []string{"--max-shard-size"}, ""},
		"plain file": {nil, []string{"dequantize", "stories260K/model.safetensors", "out.safetensors"}, exitInput,
			[]string{"stories260K/model.safetensors", "no weight of it is quantized"}, "convert"},
		"plain GGUF": {func(t *testing.T, dir string) {
			ok(t, "convert", dir+"/stories260K", dir+"/m.gguf", "--outtype", "f16")
		},
			[]string{"dequantize", "m.gguf", "out"}, exitInput, []string{"m.gguf", "no weight of it is quantized"}, "convert"},
		"GPTQ file": {nil, []string{"dequantize", foreign + "gptq.safetensors", "out.safetensors"}, exitInput, []string{"GPTQ 4-bit"}, ""},
		"AWQ file":  {nil, []string{"dequantize", foreign + "awq.safetensors", "out.safetensors"}, exitInput, []string{"AWQ 4-bit"}, "16-bit"},
		"adapter":   {nil, []string{"dequantize", "GOLDENS/llama/gqa/adapter_r3", "out"}, exitInput, []string{"adapter_r3"}, "--adapter"},
		"output exists": {func(t *testing.T, dir string) { put(t, dir+"/out.safetensors", "mine") },
			[]string{"dequantize", file, "out.safetensors"}, exitFailed, []string{"out.safetensors: output exists"}, "--force"},
	} {
		t.Run(name, func(t *testing.T) { c.run(t) })
	}
}
