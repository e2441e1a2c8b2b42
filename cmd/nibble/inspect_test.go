package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// tensorFile writes a safetensors file of the given tensors and returns its
// path.
func tensorFile(t testing.TB, name string, list ...tensortest.Tensor) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".safetensors")
	src := tensortest.NewSource(t, nil, list...)
	plan := &pipeline.Plan{}
	for info := range src.All() {
		plan.Steps = append(plan.Steps, pipeline.Copy(info, info.Name))
	}
	w, err := safetensors.Create(path, false)
	require.NoError(t, err)
	require.NoError(t, pipeline.Run(t.Context(), plan, src, w))
	return path
}

// number reads a figure, where null stands for none.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*n = number(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(n))
}

type statsResult struct {
	Tensors []struct {
		Name   string
		Values *struct {
			Min, Max, Mean, Std, AbsMax number
			Zeros, NaN, Inf             int64
		}
	}
	Values     struct{ Min, Max, Mean, Std number }
	Magnitudes []octave
	Shards     []shardFacts
}

func TestInspectStats(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	long := make([]float32, 3*700_001) // rows that are longer than a panel
	for i := range long {
		long[i] = float32(i%7) - 2
	}
	path := tensorFile(t, "odd",
		tensortest.Float32("odd", tensor.Shape{2, 4}, []float32{0, float32(math.Copysign(0, -1)), nan, inf, -inf, -3, 1, 0.5}),
		tensortest.Float32("nothing finite", tensor.Shape{1}, []float32{nan}),
		tensortest.Float32("empty", tensor.Shape{0, 3}, nil),
		tensortest.Float32("long", tensor.Shape{3, 700_001}, long),
		tensortest.Tensor{Info: tensor.Info{Name: "ids", DType: tensor.C64, Shape: tensor.Shape{1}}, Data: make([]byte, 8)},
		tensortest.Float32("far from 0", tensor.Shape{4}, []float32{1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3}),
	)
	var one statsResult
	okJSON(t, &one, "inspect", path, "--stats", "--threads", "1")
	require.Equal(t, ok(t, "inspect", path, "--stats", "--json", "--threads", "1"),
		ok(t, "inspect", path, "--stats", "--json", "--threads", "7", "--memory", "64MiB"), "the number of processors changes nothing")
	by := make(map[string]int)
	for i, x := range one.Tensors {
		by[x.Name] = i
	}
	v := one.Tensors[by["odd"]].Values
	require.Equal(t, []number{-3, 1, 3}, []number{v.Min, v.Max, v.AbsMax})
	require.Equal(t, []int64{2, 1, 2}, []int64{v.Zeros, v.NaN, v.Inf})
	require.InDelta(t, -1.5/5, float64(v.Mean), 1e-12)
	require.InDelta(t, math.Sqrt((9+1+.25)/5-.09), float64(v.Std), 1e-12)
	v = one.Tensors[by["nothing finite"]].Values
	require.True(t, math.IsNaN(float64(v.Min)) && math.IsNaN(float64(v.Std)))
	require.Equal(t, int64(1), v.NaN)
	require.True(t, math.IsNaN(float64(one.Tensors[by["empty"]].Values.Mean)))
	require.Nil(t, one.Tensors[by["ids"]].Values, "nothing decodes it")
	v = one.Tensors[by["far from 0"]].Values
	require.InDelta(t, math.Sqrt(1.25), float64(v.Std), 1e-9)

	v = one.Tensors[by["long"]].Values
	var sum, squares float64
	for _, x := range long {
		sum, squares = sum+float64(x), squares+float64(x)*float64(x)
	}
	n := float64(len(long))
	require.InDelta(t, sum/n, float64(v.Mean), 1e-9)
	require.InDelta(t, math.Sqrt(squares/n-sum*sum/n/n), float64(v.Std), 1e-9)
	require.Equal(t, int64(300_001), v.Zeros)

	counts := make(map[int]int64)
	for _, o := range one.Magnitudes {
		counts[o.Exponent] = o.Count
	}
	// -2 -1 0 1 2 3 4 over and over, 1 and 3 of "odd", half of it, and the large ones.
	require.Equal(t, map[int]int64{-1: 1, 0: 600_001 + 1, 1: 900_001 + 1, 2: 300_000, 19: 4}, counts)

	text := ok(t, "inspect", path, "--stats")
	require.Contains(t, text, "1/2", "NaN and Inf")
	require.Contains(t, text, "ids")
	narrow(t, text)
}

// narrow checks that a text fits a terminal of 120 columns.
func narrow(t *testing.T, text string) {
	t.Helper()
	for _, l := range strings.Split(text, "\n") {
		require.LessOrEqual(t, len([]rune(l)), 120, l)
	}
}

// TestStatsOfEveryFormat compares the statistics of one model in several
// formats: what is lossless has the same.
func TestStatsOfEveryFormat(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "convert", at("stories260K"), at("f32.gguf"), "--outtype", "f32")
	ok(t, "convert", at("stories260K"), at("sharded"), "--max-shard-size", "300KB")
	ok(t, "quantize", at("stories260K"), at("nf4"))
	stats := func(path string) statsResult {
		var r statsResult
		okJSON(t, &r, "inspect", path, "--stats")
		return r
	}
	base := stats(at("stories260K"))
	byName := func(r statsResult) map[string]string {
		out := make(map[string]string)
		for _, x := range r.Tensors {
			out[x.Name] = fmt.Sprint(*x.Values)
		}
		return out
	}
	require.Len(t, base.Shards, 1)
	for name, shards := range map[string]int{"f32.gguf": 1, "sharded": 4} {
		other := stats(at(name))
		require.Equal(t, byName(base), byName(other), name)
		require.Equal(t, base.Magnitudes, other.Magnitudes)
		require.Len(t, other.Shards, shards)
	}
	q := stats(at("nf4"))
	require.InDelta(t, float64(base.Values.Std), float64(q.Values.Std), 0.01)
	require.Contains(t, ok(t, "inspect", at("sharded")), "4 of ")

	for _, path := range []string{"stories260K", "nf4", "f32.gguf", "stories260K/model.safetensors"} {
		text := ok(t, "inspect", at(path), "--plot", at("w.png"), "--force")
		narrow(t, text)
		require.Contains(t, text, "model.layers.4.mlp.up_proj.weight", "--plot implies --stats")
		img, err := png.Decode(bytes.NewReader([]byte(readFile(t, at("w.png")))))
		require.NoError(t, err)
		require.Equal(t, 960, img.Bounds().Dx())
	}
}

// sharded writes a model of many shards, whose tensors are holes of that many
// bytes each.
func sharded(t testing.TB, n int, size int64) string {
	t.Helper()
	dir := t.TempDir()
	index := map[string]string{}
	for i := range n {
		name, shard := fmt.Sprintf("model.layers.%d.weight", i), fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, n)
		header, err := json.Marshal(map[string]any{name: map[string]any{"dtype": "F32", "shape": []int64{size / 4}, "data_offsets": []int64{0, size}}})
		require.NoError(t, err)
		f, err := os.Create(filepath.Join(dir, shard))
		require.NoError(t, err)
		_, err = f.Write(append([]byte{byte(len(header)), byte(len(header) >> 8), 0, 0, 0, 0, 0, 0}, header...))
		require.NoError(t, err)
		require.NoError(t, f.Truncate(8+int64(len(header))+size))
		require.NoError(t, f.Close())
		index[name] = shard
	}
	text, err := json.Marshal(map[string]any{"weight_map": index})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, hf.IndexName), text, 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, hf.ConfigName), []byte(`{"model_type": "unknown to nibble"}`), 0o666))
	return dir
}

// TestInspectReadsHeadersOnly inspects 100 shards of 2 GiB each, which it could
// not read while anybody waits.
func TestInspectReadsHeadersOnly(t *testing.T) {
	text := ok(t, "inspect", sharded(t, 100, 2<<30))
	require.Contains(t, text, "200.00 GiB")
	require.Contains(t, text, "100 of 2.00 GiB")
}

func BenchmarkInspect100Shards(b *testing.B) {
	dir := sharded(b, 100, 2<<30)
	for b.Loop() {
		a := &app{out: io.Discard, err: io.Discard}
		require.NoError(b, a.exec(b.Context(), "inspect", dir))
	}
}

func BenchmarkStats(b *testing.B) {
	path := tensorFile(b, "x", tensortest.Normal("x", tensor.Shape{4096, 4096}, 1, 1))
	b.SetBytes(4 * 4096 * 4096)
	for b.Loop() {
		a := &app{out: io.Discard, err: io.Discard, quiet: true}
		require.NoError(b, a.exec(b.Context(), "inspect", path, "--stats"))
	}
}
