package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/gguf/imatrix"
)

func TestBadQuantizeToGGUF(t *testing.T) {
	small := func(t *testing.T, dir string) { ok(t, "convert", family("llama"), filepath.Join(dir, "m.gguf")) }
	nan := func(at int, as string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, "stories260K/model.safetensors")
			b := []byte(readFile(t, path))
			n := 8 + int(b[0]) + int(b[1])<<8
			copy(b[n+at:], as)
			require.NoError(t, os.WriteFile(path, b, 0o666))
		}
	}
	writeImatrix := func(entries ...imatrix.Matrix) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			writeWide(t, filepath.Join(dir, "wide.gguf"))
			require.NoError(t, imatrix.Write(filepath.Join(dir, "i.gguf"), &imatrix.File{Entries: entries}, false))
		}
	}
	to := func(args ...string) []string {
		return append([]string{"quantize", "stories260K", "out.gguf", "--type", "q4_k_m"}, args...)
	}
	for name, c := range map[string]badCase{
		"directory":             {nil, []string{"quantize", "stories260K", "out", "--type", "q4_k_m"}, exitUsage, []string{"q4_k_m is a type of GGUF files"}, ".gguf"},
		"flag of bitsandbytes":  {nil, to("--block-size", "64"), exitUsage, []string{"--block-size is of the types of bitsandbytes", "q4_k_m is one of GGUF"}, "leave"},
		"flag of GGUF":          {nil, []string{"quantize", "stories260K", "out", "--pure"}, exitUsage, []string{"--pure is of the types of GGUF", "nf4"}, "leave"},
		"no such type":          {nil, to("--output-tensor-type", "q4_9"), exitUsage, []string{"--output-tensor-type", "q4_9"}, "q4_k, q5_0"},
		"type is only read":     {nil, to("--token-embedding-type", "iq2_xxs"), exitUsage, []string{"--token-embedding-type", "IQ2_XXS"}, "q4_k, q5_0"},
		"no pattern":            {nil, to("--tensor-type", "q4_0"), exitUsage, []string{"--tensor-type", `"q4_0"`, "PATTERN=TYPE"}, "attn_v=q6_k"},
		"no regular expression": {nil, to("--tensor-type", "(=q4_0"), exitUsage, []string{"--tensor-type", `"("`}, ""},
		"type is read, pattern": {nil, to("--tensor-type", "ffn=nvfp4"), exitUsage, []string{"--tensor-type", "NVFP4"}, ""},
		"rows do not divide": {nil, to("--output-tensor-type", "q6_k", "--token-embedding-type", "q6_k"), exitInput,
			[]string{"stories260K", `"token_embd.weight"`, "--token-embedding-type asks for Q6_K", "256"}, ""},
		"no importance matrix": {func(t *testing.T, dir string) { writeWide(t, filepath.Join(dir, "wide.gguf")) },
			[]string{"quantize", "wide.gguf", "out.gguf", "--type", "q2_k_s"}, exitUsage,
			[]string{`"blk.0.attn_k.weight"`, "Q2_K in a q2_k_s file needs an importance matrix"}, "--imatrix"},
		"importance of nothing": {writeImatrix(imatrix.Matrix{Name: "x", Mats: 1, Sums: []float32{1}, Counts: []float32{1}}),
			[]string{"quantize", "wide.gguf", "out.gguf", "--type", "q2_k_s", "--imatrix", "i.gguf"}, exitUsage,
			[]string{`"blk.0.attn_k.weight"`, "needs an importance matrix"}, "--imatrix"},
		"importance of another model": {writeImatrix(imatrix.Matrix{Name: "blk.0.attn_q.weight", Mats: 1, Sums: []float32{1, 2}, Counts: []float32{1}}),
			[]string{"quantize", "wide.gguf", "out.gguf", "--type", "q4_0", "--imatrix", "i.gguf"}, exitInput,
			[]string{"wide.gguf", `"blk.0.attn_q.weight"`, "2 values"}, "another model"},
		"no importance matrix file": {nil, to("--imatrix", "i.gguf"), exitFailed, []string{"i.gguf", "no such file"}, ""},
		"a model as importance":     {small, to("--imatrix", "m.gguf"), exitInput, []string{"m.gguf", `"model"`}, "nibble imatrix"},
		"text as importance": {func(t *testing.T, dir string) { put(t, filepath.Join(dir, "i.dat"), strings.Repeat("no matrix ", 100)) },
			to("--imatrix", "i.dat"), exitInput, []string{"i.dat", "not an importance matrix"}, "nibble imatrix"},
		"NaN":                     {nan(814080+400, "\x00\x00\xc0\x7f"), to(), exitInput, []string{"stories260K", `"blk.`, "element ", "NaN"}, "--nan-as-zero"},
		"infinity in a norm":      {nan(0, "\x00\x00\x80\xff"), to(), exitInput, []string{"element 0 is -Inf"}, "--nan-as-zero"},
		"too large":               {nan(814080+400, "\x00\x00\x00\x7f"), to("--type", "q8_0"), exitInput, []string{`"blk.`, "too large for the scale of a Q8_0 block"}, "--tensor-type"},
		"metadata of a GGUF file": {small, []string{"quantize", "m.gguf", "out.gguf", "--type", "q4_0", "--model-name", "x"}, exitUsage, []string{"metadata stays"}, "--model-name"},
		"output is the input":     {small, []string{"quantize", "m.gguf", "m.gguf", "--type", "q4_0", "--force"}, exitUsage, []string{"m.gguf", "the output is the input"}, ""},
		"output exists":           {small, []string{"quantize", "stories260K", "m.gguf", "--type", "q4_0"}, exitFailed, []string{"m.gguf: output exists"}, "--force"},
		"an importance matrix as model": {writeImatrix(imatrix.Matrix{Name: "x", Mats: 1, Sums: []float32{1}, Counts: []float32{1}}),
			[]string{"quantize", "i.gguf", "out.gguf", "--type", "q4_0"}, exitInput, []string{"i.gguf", `"imatrix"`}, ""},
		"an adapter":           {nil, []string{"quantize", "GOLDENS/llama/gqa/adapter_r3", "out.gguf", "--type", "q4_0"}, exitInput, []string{"adapter"}, "base"},
		"a split that is none": {nil, to("--no-tensor-first-split"), exitUsage, []string{"--no-tensor-first-split needs"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

// What is not NaN is the same with --nan-as-zero, and what is one is 0.
func TestNanAsZeroToGGUF(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	model := at("stories260K/model.safetensors")
	b := []byte(readFile(t, model))
	n := 8 + int(b[0]) + int(b[1])<<8
	quantized := func(name, value string, args ...string) (string, ggufResult) {
		copy(b[n+814080+400:], value)
		require.NoError(t, os.WriteFile(model, b, 0o666))
		var r ggufResult
		okJSON(t, &r, append([]string{"quantize", at("stories260K"), at(name), "--type", "q8_0"}, args...)...)
		return digest(t, at(name)), r
	}
	zero, _ := quantized("zero.gguf", "\x00\x00\x00\x00")
	nan, r := quantized("nan.gguf", "\x00\x00\xc0\x7f", "--nan-as-zero")
	require.Equal(t, zero, nan)
	require.Contains(t, strings.Join(r.Notes, "\n"), "1 elements that are NaN or infinite became 0")
}

// From whatever encoding: the file is that of the decoded model, and says that
// something was lost before.
func TestQuantizedAgainToGGUF(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "quantize", at("stories260K"), at("nf4"), "--type", "nf4")
	ok(t, "dequantize", at("nf4"), at("plain"), "--dtype", "f32")
	ok(t, "quantize", at("plain"), at("want.gguf"), "--type", "q4_k_m", "--model-name", "x")
	var r ggufResult
	okJSON(t, &r, "quantize", at("nf4"), at("got.gguf"), "--type", "q4_k_m", "--model-name", "x")
	require.Equal(t, tensors(t, at("want.gguf")), tensors(t, at("got.gguf")))
	require.Contains(t, strings.Join(r.Notes, "\n"), "quantized before (NF4)")
	require.Equal(t, "q4_k_m", r.Type)
	require.Len(t, r.Fallbacks, 35)

	// From GGUF of another type, in parts, to parts.
	ok(t, "convert", at("stories260K"), at("q8.gguf"), "--outtype", "q8_0", "--split-max-tensors", "20")
	ok(t, "convert", at("q8-00001-of-00003.gguf"), at("q8.gguf"))
	ok(t, "quantize", at("q8.gguf"), at("whole.gguf"), "--type", "q5_1")
	okJSON(t, &r, "quantize", at("q8-00001-of-00003.gguf"), at("parts.gguf"), "--type", "q5_1", "--split-max-size", "50KB")
	require.Contains(t, strings.Join(r.Notes, "\n"), "quantized before (Q8_0)")
	require.Greater(t, len(r.Files), 2)
	require.Equal(t, tensors(t, at("whole.gguf")), tensors(t, r.Files[0]))
	var dry ggufDryResult
	okJSON(t, &dry, "quantize", at("q8-00001-of-00003.gguf"), at("parts.gguf"), "--type", "q5_1", "--split-max-size", "50KB", "--dry-run", "--force")
	require.Len(t, dry.Sizes, len(r.Files))
	for i, f := range r.Files {
		require.Len(t, readFile(t, f), int(dry.Sizes[i]))
	}
}

// An importance matrix of the model's own covers all but the embedding.
func TestQuantizeWithOwnImatrix(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "imatrix", "--model", at("stories260K"), "--data", filepath.Join(goldens, "stories260K/shakespeare.txt"), "--out", at("i.gguf"))
	var r ggufResult
	okJSON(t, &r, "quantize", at("stories260K"), at("q.gguf"), "--type", "iq4_nl", "--imatrix", at("i.gguf"), "--output-tensor-type", "q4_0")
	require.Contains(t, r.Notes, "1 tensor without importance, as the matrix has nothing on them: token_embd.weight")
	ok(t, "quantize", at("stories260K"), at("plain.gguf"), "--type", "iq4_nl")
	require.NotEqual(t, tensors(t, at("plain.gguf"))["blk.0.attn_q.weight"], tensors(t, at("q.gguf"))["blk.0.attn_q.weight"])
	ok(t, "generate", "--model", at("q.gguf"), "--prompt", "Once upon a time", "--max-tokens", "4")
}

// A dry run says what would be, and leaves nothing.
func TestQuantizeDryRun(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	writeWide(t, at("wide.gguf"))
	before := every(t, dir)
	text := ok(t, "quantize", at("wide.gguf"), at("out.gguf"), "--type", "q2_k_s", "--dry-run")
	require.Equal(t, before, every(t, dir))
	require.Regexp(t, `out\.gguf would have \d+ bytes`, text)
	require.Regexp(t, `(?m)^  blk\.\*\.ffn_down_exps\.weight +\[4, 33, 256\] +F32 to 3 Q2_K$`, text)
	require.Regexp(t, `(?m)^  blk\.\*\.attn_v\.weight +\[16, 512\] +F32 to 3 Q4_K$`, text)
	require.Regexp(t, `(?m)^ +3 fell back to Q4_0, as rows of 320 are not a multiple of 256, as Q2_K needs: blk\.0\.attn_rot\.weight, `, text)
	require.Contains(t, text, "needs an importance matrix")

	text = ok(t, "quantize", at("wide.gguf"), at("out.gguf"), "--type", "q4_k_m", "--dry-run", "--verbose")
	require.Regexp(t, `(?m)^Q6_K +blk\.2\.attn_v\.weight: attn_v in a layer that gets more bits$`, text)
	require.Regexp(t, `(?m)^F32 +blk\.1\.ffn_gate_inp\.weight: a router$`, text)

	text = ok(t, "quantize", family("llama"), at("out.gguf"), "--type", "mxfp4", "--dry-run")
	require.Contains(t, text, "with --pure they are MXFP4")
	text = ok(t, "quantize", family("llama"), at("out.gguf"), "--type", "mxfp4", "--dry-run", "--pure")
	require.Contains(t, text, "2 MXFP4")
	require.Equal(t, before, every(t, dir))
}
