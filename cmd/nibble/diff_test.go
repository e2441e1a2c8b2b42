package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// differ runs diff and returns what it prints; code is what it must end with.
func differ(t *testing.T, code int, args ...string) string {
	t.Helper()
	o := nibble(t, append([]string{"diff"}, args...)...)
	require.Equal(t, code, o.code, "%s%s", o.stdout, o.stderr)
	require.Empty(t, o.stderr)
	narrow(t, o.stdout)
	return o.stdout
}

// lastLine returns the verdict.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func TestDiffAcrossFormats(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base := at("stories260K")
	ok(t, "convert", base, at("f32.gguf"), "--outtype", "f32")
	ok(t, "convert", base, at("f16.gguf"), "--outtype", "f16")
	ok(t, "convert", base, at("bf16"), "--outtype", "bf16")
	ok(t, "convert", at("bf16"), at("wide"), "--outtype", "f32")
	ok(t, "convert", base, at("sharded"), "--max-shard-size", "300KB")
	ok(t, "quantize", base, at("nf4"))

	// The rows of rotary projections are in another order in GGUF.
	for _, other := range []string{base, at("f32.gguf"), at("sharded"), base + "/model.safetensors"} {
		require.Equal(t, "equal: 47 tensors bit for bit", lastLine(differ(t, exitDone, base, other)), other)
		require.Equal(t, "equal: 47 tensors bit for bit", lastLine(differ(t, exitDone, other, base)), other)
	}
	text := differ(t, exitDone, at("bf16"), at("wide"))
	require.Equal(t, "equal: 47 in their values", lastLine(text))
	require.Contains(t, text, "BF16 | F32")
	require.Contains(t, text, "equal values")

	text = differ(t, exitFailed, base, at("f16.gguf"))
	require.Equal(t, "different: 36 of 47 tensors that both have", lastLine(text))
	require.Equal(t, "equal: 11 tensors bit for bit, 36 within 0.001", lastLine(differ(t, exitDone, base, at("f16.gguf"), "--tolerance", "0.001")))

	// Two GGUF files say what they are stored as, which is no difference.
	text = differ(t, exitFailed, at("f32.gguf"), at("f16.gguf"))
	require.Contains(t, text, "general.file_type: 0 | 1")
	require.Equal(t, "different: 36 of 47 tensors that both have", lastLine(text))

	// What quantizing says of its own error is what diff finds.
	var q quantizeResult
	okJSON(t, &q, "quantize", base, at("nf4"), "--force")
	var r struct {
		Equal     bool
		EqualBits int `json:"equal_bits"`
		Tensors   []struct {
			Name   string
			DTypes [2]string
			MaxAbs float64 `json:"max_abs"`
			RelRMS float64 `json:"rel_rms"`
			Cosine float64
		}
	}
	o := nibble(t, "diff", base, at("nf4"), "--json")
	require.Equal(t, exitFailed, o.code)
	decode(t, o.stdout, &r)
	require.False(t, r.Equal)
	require.Equal(t, 12, r.EqualBits)
	require.Len(t, r.Tensors, 35)
	sum := 0.0
	for _, x := range r.Tensors {
		require.Equal(t, [2]string{"F32", "NF4 block 64 double-quantized"}, x.DTypes)
		require.InDelta(t, math.Sqrt(1-x.Cosine*x.Cosine), x.RelRMS, 0.02)
		sum += x.RelRMS
	}
	require.InDelta(t, q.RelRMS, sum/35, 1e-3)
	require.Equal(t, "equal: 47 tensors bit for bit", lastLine(differ(t, exitDone, at("nf4"), at("nf4"))))
}

func TestDiffFigures(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	f := func(name string, values ...float32) tensortest.Tensor {
		return tensortest.Float32(name, tensor.Shape{int64(len(values))}, values)
	}
	raw := func(name string, d tensor.DType, data ...byte) tensortest.Tensor {
		_, size := d.Block()
		return tensortest.Tensor{Info: tensor.Info{Name: name, DType: d, Shape: tensor.Shape{int64(len(data)) / size}}, Data: data}
	}
	long := make([]float32, 3*300_000)
	for i := range long {
		long[i] = float32(i)
	}
	other := append([]float32(nil), long...)
	other[800_000] += 0.5
	a := tensorFile(t, "a", f("same", 1, nan, inf), f("values", 3, 0, -4), f("zero", 0), f("from zero", 0, 0), f("nan", nan, 1, inf), f("inf", inf, 2),
		f("shape", 1, 2), f("only a", 1), raw("ids", tensor.C64, 1, 2, 3, 4, 5, 6, 7, 8), raw("same ids", tensor.U8, 1), raw("types", tensor.C64, 1, 2, 3, 4, 5, 6, 7, 8),
		tensortest.Float32("long", tensor.Shape{3, 300_000}, long))
	b := tensorFile(t, "b", f("same", 1, nan, inf), f("values", 3, 1, -4), f("zero", float32(math.Copysign(0, -1))), f("from zero", 0, 2), f("nan", 1, 1, inf), f("inf", -inf, 2),
		f("shape", 1, 2, 3), f("only b", 1), raw("ids", tensor.C64, 1, 2, 3, 4, 5, 6, 7, 9), raw("same ids", tensor.U8, 1), raw("types", tensor.I8, 1),
		tensortest.Float32("long", tensor.Shape{3, 300_000}, other))
	var r struct {
		OnlyA     []string `json:"only_a"`
		OnlyB     []string `json:"only_b"`
		NonFinite int64    `json:"non_finite"`
		Tensors   []struct {
			Name      string
			Problem   string
			MaxAbs    number `json:"max_abs"`
			RelRMS    number `json:"rel_rms"`
			Cosine    number
			NonFinite int64 `json:"non_finite"`
		}
	}
	o := nibble(t, "diff", a, b, "--json")
	require.Equal(t, exitFailed, o.code)
	decode(t, o.stdout, &r)
	require.Equal(t, o.stdout, nibble(t, "diff", a, b, "--json", "--threads", "1").stdout, "the number of processors changes nothing")
	require.Equal(t, []string{"only a"}, r.OnlyA)
	require.Equal(t, []string{"only b"}, r.OnlyB)
	got := make(map[string]string)
	for _, x := range r.Tensors {
		got[x.Name] = fmt.Sprintf("%.4g %.4g %.4g %d%s", x.MaxAbs, x.RelRMS, x.Cosine, x.NonFinite, x.Problem)
	}
	require.Equal(t, map[string]string{
		"values":    "1 0.2 0.9806 0",
		"zero":      "0 0 1 0",
		"from zero": "2 NaN NaN 0",
		"nan":       "NaN 0 1 1",
		"inf":       "NaN 0 1 1",
		"shape":     "0 0 0 0shapes [2] and [3]",
		"ids":       "0 0 0 0other bytes, which nothing decodes",
		"types":     "0 0 0 0no decoder for C64",
		"long":      fmt.Sprintf("0.5 %.4g 1 0", 0.5/math.Sqrt(899_999.*900_000*1_799_999/6)),
	}, got)
	require.Equal(t, int64(2), r.NonFinite)

	text := differ(t, exitFailed, a, b)
	require.Contains(t, text, "only in A: only a\nonly in B: only b\n")
	require.Contains(t, text, "1 NaN/Inf")
	require.Equal(t, "different: 8 of 11 tensors that both have, 1 only in A, 1 only in B", lastLine(text))
	text = differ(t, exitFailed, a, b, "--tolerance", "1")
	require.Contains(t, text, "in tolerance")
	require.True(t, strings.HasPrefix(lastLine(text), "different: 6 of 11 "), text)
}

func TestDiffMetadata(t *testing.T) {
	dir := workspace(t)
	base, other := filepath.Join(dir, "stories260K"), filepath.Join(dir, "other")
	ok(t, "convert", base, other)
	require.Equal(t, "equal: 47 tensors bit for bit", lastLine(differ(t, exitDone, base, other)))
	edit(t, other+"/config.json", `"max_position_embeddings": 512`, `"max_position_embeddings": 256`)
	edit(t, other+"/tokenizer_config.json", `"add_bos_token": true`, `"add_bos_token": false`)
	text := differ(t, exitFailed, base, other)
	require.Contains(t, text, "max_position_embeddings: 512 | 256")
	require.Contains(t, text, "tokenizer.ggml.add_bos_token: true | false")
	require.Equal(t, "different: 2 keys of metadata", lastLine(text))
	require.Equal(t, "equal: 47 tensors bit for bit", lastLine(differ(t, exitDone, base, other, "--tensors-only")))

	// The same between GGUF files, in their own keys.
	a, b := filepath.Join(dir, "a.gguf"), filepath.Join(dir, "b.gguf")
	ok(t, "convert", base, a)
	ok(t, "convert", other, b)
	text = differ(t, exitFailed, a, b)
	require.Contains(t, text, "llama.context_length: 512 | 256")
	require.Contains(t, text, `general.name: "stories260K" | "Other"`)

	// Without a tokenizer on one side.
	require.NoError(t, os.Remove(other+"/tokenizer.model"))
	require.Contains(t, differ(t, exitFailed, base, other), "tokenizer: 512 tokens | ")
}

func TestDiffOfWhatIsNoModelWeKnow(t *testing.T) {
	dir := workspace(t)
	base, other := filepath.Join(dir, "stories260K"), filepath.Join(dir, "other")
	ok(t, "convert", base, other)
	edit(t, other+"/config.json", `"llama"`, `"bloom"`)
	o := nibble(t, "diff", base, other)
	require.Equal(t, exitDone, o.code, o.stderr)
	require.Contains(t, o.stdout, `"bloom"`)
	require.Equal(t, "equal: 47 tensors bit for bit", lastLine(o.stdout))
	adapters := filepath.Join(goldens, "llama/gqa")
	require.Contains(t, differ(t, exitFailed, adapters+"/adapter_r3", adapters+"/adapter_r1_rslora"), "only in")
	require.Contains(t, lastLine(differ(t, exitDone, adapters+"/adapter_r3", adapters+"/adapter_r3")), "equal: ")
}

func TestFirstDifference(t *testing.T) {
	a, b := firstDifference([]string{"x", "y"}, []string{"x", "z"})
	require.Equal(t, []string{`[1] "y"`, `[1] "z"`}, []string{a, b})
	a, b = firstDifference(uint32(1), int32(1))
	require.Equal(t, []string{"1 (uint32)", "1 (int32)"}, []string{a, b})
	meta := func(v any) tensor.Meta { return tensor.Meta{{Key: "k", Value: v}} }
	require.Equal(t, []keyDiff{{Key: "k", A: "2 × string", B: "3 × string"}}, compareMeta(meta([]string{"a", "b"}), meta([]string{"a", "b", "c"})))
	require.Equal(t, []keyDiff{{Key: "k", A: "-", B: "7"}}, compareMeta(nil, meta(7)))
	require.Equal(t, []keyDiff{{Key: "k", A: "7", B: "-"}}, compareMeta(meta(7), nil))
	require.Empty(t, compareMeta(meta([]int32{1}), meta([]int32{1})))
}
