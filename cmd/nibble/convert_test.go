package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

func family(name string) string { return filepath.Join(goldens, "families", name) }

// account returns one line for each tensor of a conversion, by name, and for each
// that was dropped.
func account(t *testing.T, args ...string) map[string]string {
	var r writeResult
	okJSON(t, &r, append([]string{"convert"}, args...)...)
	out := make(map[string]string)
	for _, x := range r.Tensors {
		out[x.Name] = fmt.Sprintf("%v %s %s->%s", x.From, x.Action, x.Was, x.DType)
	}
	for _, d := range r.Dropped {
		out["-"+d.Name] = d.Reason
	}
	n := 0
	for _, k := range r.Actions {
		n += k
	}
	require.Len(t, out, n, "each is counted once")
	return out
}

// Every tensor is accounted for: where it comes from, what was done to it, and why
// it is not there.
func TestAccount(t *testing.T) {
	out := t.TempDir()
	at := func(name string) string { return filepath.Join(out, name) }
	a := account(t, family("mixtral"), at("mixtral.gguf"), "--outtype", "f16")
	require.Len(t, a, 22)
	require.Equal(t, "[model.embed_tokens.weight] cast BF16->F16", a["token_embd.weight"])
	require.Equal(t, "[model.layers.1.self_attn.q_proj.weight] cast+permute BF16->F16", a["blk.1.attn_q.weight"])
	require.Equal(t, "[model.layers.0.block_sparse_moe.experts.0.w1.weight model.layers.0.block_sparse_moe.experts.1.w1.weight "+
		"model.layers.0.block_sparse_moe.experts.2.w1.weight model.layers.0.block_sparse_moe.experts.3.w1.weight] cast+stack BF16->F16", a["blk.0.ffn_gate_exps.weight"])
	a = account(t, at("mixtral.gguf"), at("mixtral"))
	require.Len(t, a, 40)
	require.Equal(t, "[blk.0.ffn_gate_exps.weight] unstack F16->F16", a["model.layers.0.block_sparse_moe.experts.3.w1.weight"])
	require.Equal(t, "[blk.1.attn_q.weight] permute F16->F16", a["model.layers.1.self_attn.q_proj.weight"])
	require.Equal(t, "[output_norm.weight] cast F32->F16", a["model.norm.weight"])

	a = account(t, family("gemma3-vision"), at("gemma3.gguf"))
	require.Equal(t, "[language_model.model.layers.0.input_layernorm.weight] add 1 BF16->F32", a["blk.0.attn_norm.weight"])
	require.Equal(t, "not of the text model", a["-multi_modal_projector.mm_input_projection_weight"])

	// What is copied is named too, in text.
	text := ok(t, "convert", family("gemma3-vision"), at("gemma3"), "--outtype", "f32")
	require.Regexp(t, `(?m)^ +103 cast +BF16 to F32$`, text)
	require.Equal(t, len(tensors(t, family("gemma3-vision"))), len(tensors(t, at("gemma3"))), "a directory keeps the tower")
	text = ok(t, "convert", at("gemma3"), at("again.gguf"))
	require.Regexp(t, `(?m)^ +37 add 1 +F32: to a norm's weight`, text)
	require.Regexp(t, `(?m)^ +23 drop +not of the text model: multi_modal_projector\.mm_input_projection_weight, .*and 17 more$`, text)
}

// Between directories the family does not matter, and integers stay what they are.
func TestConvertAnyDirectory(t *testing.T) {
	out := t.TempDir()
	src := tensortest.NewSource(t, tensor.Meta{{Key: "format", Value: "pt"}, {Key: "note", Value: "kept"}},
		tensortest.Normal("transformer.weight", tensor.Shape{4, 8}, 1, 1),
		tensortest.Tensor{Info: tensor.Info{Name: "position_ids", DType: tensor.I64, Shape: tensor.Shape{1, 2}}, Data: []byte("0123456789abcdef")},
		tensortest.Tensor{Info: tensor.Info{Name: "mask", DType: tensor.Bool, Shape: tensor.Shape{3}}, Data: []byte{1, 0, 1}})
	in := filepath.Join(out, "in")
	w, err := hf.Create(in, hf.Options{Files: []hf.SideFile{{Name: "config.json", Data: []byte(`{"model_type": "unheard-of", "torch_dtype": "float32"}`)}, {Name: "code.py", Data: []byte("pass")}}})
	require.NoError(t, err)
	plan := &pipeline.Plan{Meta: src.Meta()}
	for info := range src.All() {
		plan.Steps = append(plan.Steps, pipeline.Copy(info, info.Name))
	}
	require.NoError(t, pipeline.Run(t.Context(), plan, src, w))

	same, cast := filepath.Join(out, "same"), filepath.Join(out, "cast")
	ok(t, "convert", in, same)
	require.Equal(t, tensors(t, in), tensors(t, same))
	require.Equal(t, readFile(t, in+"/config.json"), readFile(t, same+"/config.json"))
	require.Equal(t, readFile(t, in+"/model.safetensors"), readFile(t, same+"/model.safetensors"))
	a := account(t, in, cast, "--outtype", "bf16")
	require.Equal(t, map[string]string{
		"transformer.weight": "[transformer.weight] cast F32->BF16",
		"position_ids":       "[position_ids] copy I64->I64",
		"mask":               "[mask] copy BOOL->BOOL",
	}, a)
	require.Contains(t, readFile(t, cast+"/config.json"), `"torch_dtype": "bfloat16"`)
	require.Equal(t, "pass", readFile(t, cast+"/code.py"))
	require.Contains(t, readFile(t, cast+"/model.safetensors"), `"note":"kept"`)
	o := nibble(t, "convert", in, filepath.Join(out, "x.gguf"))
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stderr, `"unheard-of"`)
	require.NoFileExists(t, filepath.Join(out, "x.gguf"))
}

// A GGUF file of another type is what the checkpoint becomes in that type, and
// keeps its metadata.
func TestRetypeGGUF(t *testing.T) {
	out := t.TempDir()
	at := func(name string) string { return filepath.Join(out, name) }
	for _, name := range []string{"llama", "gemma2", "mixtral"} {
		ok(t, "convert", family(name), at("f32.gguf"), "--outtype", "f32", "--force")
		for _, outType := range []string{"f32", "f16", "bf16", "q8_0"} {
			ok(t, "convert", at("f32.gguf"), at("retyped.gguf"), "--outtype", outType, "--force")
			ok(t, "convert", family(name), at("direct.gguf"), "--outtype", outType, "--force")
			require.Equal(t, readFile(t, at("direct.gguf")), readFile(t, at("retyped.gguf")), "%s %s", name, outType)
		}
		// Types that a directory does not have are decoded.
		ok(t, "convert", at("retyped.gguf"), at(name))
		for tensorName, text := range tensors(t, at(name)) {
			require.Regexp(t, "^F(16|32) ", text, tensorName)
		}
	}
}

func TestAdaptersBothWays(t *testing.T) {
	list, err := filepath.Glob(filepath.Join(goldens, "families/adapters/*"))
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, dir := range list {
		out := t.TempDir()
		at := func(name string) string { return filepath.Join(out, name) }
		base := family(map[string]string{"llama-lora": "llama", "qwen2-lora": "qwen2"}[filepath.Base(dir)])
		var want struct{ File fileGolden }
		readGolden(t, "families/adapters/"+filepath.Base(dir)+"/convert_f32.json", &want)
		ok(t, "convert", dir, at("a.gguf"), "--base", base, "--outtype", "f32")
		requireFile(t, want.File, at("a.gguf"))
		require.Regexp(t, `targets +.*attn_q`, ok(t, "inspect", at("a.gguf")))

		ok(t, "convert", at("a.gguf"), at("back"), "--base", base)
		require.Equal(t, tensors(t, dir), tensors(t, at("back")))
		ok(t, "convert", at("back"), at("b.gguf"), "--base", base)
		require.Equal(t, tensors(t, at("a.gguf")), tensors(t, at("b.gguf")))

		// The configuration of the base is enough, and a quantized adapter is decoded.
		require.NoError(t, os.Mkdir(at("config"), 0o777))
		put(t, at("config/config.json"), readFile(t, base+"/config.json"))
		ok(t, "convert", at("a.gguf"), at("back2"), "--base", at("config"))
		require.Equal(t, tensors(t, dir), tensors(t, at("back2")))
		ok(t, "convert", dir, at("half.gguf"), "--base", at("config"), "--outtype", "f16")
		ok(t, "convert", at("half.gguf"), at("half"), "--base", base)
		require.Equal(t, slices.Sorted(maps.Keys(tensors(t, dir))), slices.Sorted(maps.Keys(tensors(t, at("half")))))

		// The result of merging it is the same.
		ok(t, "merge", "--base", base, "--adapter", dir, "--out", at("m1"))
		ok(t, "merge", "--base", base, "--adapter", at("back"), "--out", at("m2"))
		require.Equal(t, tensors(t, at("m1")), tensors(t, at("m2")))
	}
}

// Whoever gives a flag in vain is told.
func TestConvertFlags(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "convert", at("stories260K"), at("m.gguf"))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"shard size of a GGUF file":    {[]string{at("stories260K"), at("x.gguf"), "--max-shard-size", "1MB"}, "--split-max-size"},
		"split of a directory":         {[]string{at("m.gguf"), at("x"), "--split-max-size", "1MB"}, "--split-max-size is of GGUF files"},
		"pre of a directory":           {[]string{at("m.gguf"), at("x"), "--pre", "llama-bpe"}, "--pre"},
		"negative split":               {[]string{at("m.gguf"), at("x.gguf"), "--split-max-tensors", "-1"}, "want 1 or more"},
		"first part without split":     {[]string{at("m.gguf"), at("x.gguf"), "--no-tensor-first-split"}, "needs --split-max-size"},
		"base of a model":              {[]string{at("m.gguf"), at("x"), "--base", at("stories260K")}, "--base is for adapters"},
		"name of a GGUF file":          {[]string{at("m.gguf"), at("x.gguf"), "--model-name", "x"}, "stays as it is"},
		"name of a retyped GGUF file":  {[]string{at("m.gguf"), at("x.gguf"), "--model-name", "x", "--outtype", "f32"}, "stays as it is"},
		"parts over parts":             {[]string{at("m.gguf"), at("m.gguf"), "--split-max-tensors", "9", "--force"}, "the output is the input"},
		"parts that could be parts":    {[]string{at("m.gguf"), at("sub/../m.gguf"), "--split-max-tensors", "9", "--force"}, "m.gguf"},
		"type that no directory has":   {[]string{at("m.gguf"), at("x"), "--outtype", "q8_0"}, `"q8_0"`},
		"type that GGUF does not have": {[]string{at("stories260K"), at("x.gguf"), "--outtype", "q9"}, `"q9"`},
	} {
		o := nibble(t, append([]string{"convert"}, c.args...)...)
		require.Equal(t, exitUsage, o.code, "%s\n%s", name, o.stderr)
		require.Contains(t, o.stderr, c.says, name)
		require.NoFileExists(t, at("x.gguf"))
		require.NoDirExists(t, at("x"))
	}
	put(t, at("meta.json"), `{"general.author": "An Author", "general.name": "From The File"}`)
	ok(t, "convert", at("stories260K"), at("x.gguf"), "--metadata", at("meta.json"))
	require.Contains(t, readFile(t, at("x.gguf")), "An Author")
	require.Contains(t, readFile(t, at("x.gguf")), "From The File")
	ok(t, "convert", at("stories260K"), at("x.gguf"), "--metadata", at("meta.json"), "--model-name", "From The Flag", "--force")
	require.Contains(t, readFile(t, at("x.gguf")), "From The Flag")
}

// The number of processors does not change a byte.
func TestConvertIsTheSameOnAnyProcessors(t *testing.T) {
	out := t.TempDir()
	at := func(format string, args ...any) string { return filepath.Join(out, fmt.Sprintf(format, args...)) }
	for n := 1; n <= 8; n++ {
		ok(t, "convert", family("mixtral"), at("%d.gguf", n), "--outtype", "q8_0", "--threads", fmt.Sprint(n))
		ok(t, "convert", at("%d.gguf", n), at("%d", n), "--threads", fmt.Sprint(n))
		require.Equal(t, readFile(t, at("1.gguf")), readFile(t, at("%d.gguf", n)))
		require.Equal(t, readFile(t, at("1/model.safetensors")), readFile(t, at("%d/model.safetensors", n)))
	}
}
