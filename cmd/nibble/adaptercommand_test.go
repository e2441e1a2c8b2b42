package main

import (
	"bytes"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// distance returns the norm of the difference of two models to that of the first.
func distance(want, got map[string][]float32) float64 {
	var diff, all float64
	for name, x := range want {
		for i, v := range x {
			d := math.Inf(1)
			if i < len(got[name]) {
				d = float64(v) - float64(got[name][i])
			}
			diff, all = diff+d*d, all+float64(v)*float64(v)
		}
	}
	return math.Sqrt(diff / all)
}

// added returns what merging an adapter adds to a base, in float32.
func added(t *testing.T, base string, adapters ...string) map[string][]float32 {
	t.Helper()
	out := filepath.Join(t.TempDir(), "merged")
	args := []string{"merge", "--base", base, "--out", out, "--dtype", "f32"}
	for _, a := range adapters {
		args = append(args, "--adapter", a)
	}
	ok(t, args...)
	sum := values(t, out)
	for name, x := range values(t, base) {
		for i, v := range x {
			sum[name][i] -= v
		}
	}
	return sum
}

func familyAdapter(name string) string {
	return filepath.Join(goldens, "families/adapters", name)
}

// Every format gives the tensors of PEFT's again, and the same model when it is merged.
func TestAdapterFormats(t *testing.T) {
	for adapter, base := range map[string]string{"llama-lora": "llama", "qwen2-lora": "qwen2"} {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, name) }
		from, base := familyAdapter(adapter), family(base)
		ok(t, "merge", "--base", base, "--adapter", from, "--out", at("want"))
		for _, to := range [][]string{{"lora.gguf", "--base", base}, {"mlx", "--to", "mlx"}, {"lora.safetensors"}, {"d.safetensors", "--to", "diffusers", "--component", "unet"}} {
			ok(t, append([]string{"adapter", "convert", from, at(to[0])}, to[1:]...)...)
			back := []string{"adapter", "convert", at(to[0]), at(to[0] + "-back")}
			if strings.HasSuffix(to[0], ".gguf") {
				back = append(back, "--base", base)
			}
			ok(t, back...)
			if !slices.Contains(to, "diffusers") { // which has the scale in B
				require.Equal(t, tensors(t, from), tensors(t, at(to[0]+"-back")), to[0])
				ok(t, "merge", "--base", base, "--adapter", at(to[0]), "--out", at(to[0]+"-merged"))
				require.Equal(t, tensors(t, at("want")), tensors(t, at(to[0]+"-merged")), to[0])
			}
			want, got := added(t, base, from), added(t, base, at(to[0]+"-back"))
			require.Less(t, distance(want, got), 1e-6, to[0])

			var a, b adapterInspectResult
			okJSON(t, &a, "adapter", "inspect", from)
			okJSON(t, &b, "adapter", "inspect", at(to[0]))
			require.InEpsilon(t, a.Norm, b.Norm, 1e-6, to[0])
			require.Len(t, b.Modules, len(a.Modules))
			require.NotEqual(t, a.Format, b.Format)
		}
	}
}

// An adapter whose modules have ranks and scales of their own keeps its effect in formats that
// have one alpha, one scale or one rank for all.
func TestAdapterPatterns(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base := family("llama")
	ok(t, "adapter", "resize", familyAdapter("llama-lora"), at("mixed"), "--energy", "0.8")
	ok(t, "adapter", "combine", familyAdapter("llama-lora")+":0.7", at("mixed")+":-0.4", "--out", at("both"))
	for _, from := range []string{"mixed", "both"} {
		require.Contains(t, readFile(t, at(from+"/adapter_config.json")), `"rank_pattern": {`+"\n")
		want := added(t, base, at(from))
		for _, to := range [][]string{{".gguf", "--base", base}, {"-mlx", "--to", "mlx"}, {".safetensors"}} {
			ok(t, append([]string{"adapter", "convert", at(from), at(from + to[0])}, to[1:]...)...)
			require.Less(t, distance(want, added(t, base, at(from+to[0]))), 1e-6, "%s%s", from, to[0])
		}
	}
}

// MLX's own adapter is merged into what MLX fuses.
func TestMLXAdapter(t *testing.T) {
	out := filepath.Join(t.TempDir(), "merged")
	ok(t, "merge", "--base", family("qwen2"), "--adapter", "testdata/mlx", "--out", out, "--dtype", "f32")
	merged, fused := values(t, out), values(t, "testdata/mlx/fused.safetensors")
	require.Len(t, fused, 3)
	for name, want := range fused {
		require.InDeltaSlice(t, want, merged[name], 1e-6, name)
	}
	text := ok(t, "adapter", "inspect", "testdata/mlx")
	require.Contains(t, text, "MLX adapter")
	require.Contains(t, text, "rank 3, alpha 5.25, scale 1.75")
}

// cat and linear add what the adapters add; svd says how far it is from that.
func TestAdapterCombine(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base, from := family("qwen2"), familyAdapter("qwen2-lora")
	ok(t, "adapter", "resize", from, at("other"), "--rank", "2")
	want := added(t, base, from+":0.8", at("other")+":-0.5")
	for _, method := range []string{"cat", "linear"} {
		ok(t, "adapter", "combine", from+":0.8", at("other")+":-0.5", "--out", at(method), "--method", method)
		require.Less(t, distance(want, added(t, base, at(method))), 1e-6, method)
	}
	var r adapterWritten
	okJSON(t, &r, "adapter", "combine", from+":0.8", at("other")+":-0.5", "--out", at("svd"), "--method", "svd", "--rank", "1")
	require.InDelta(t, r.Error, distance(want, added(t, base, at("svd"))), 1e-3)
	require.Greater(t, r.Error, 0.1)
	for _, m := range r.Modules {
		require.Equal(t, 1, m.Rank)
	}
	// The order of a sum does not matter.
	ok(t, "adapter", "combine", at("other")+":-0.5", from+":0.8", "--out", at("turned"))
	require.Less(t, distance(want, added(t, base, at("turned"))), 1e-6)
}

func TestAdapterResize(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base, from := family("llama"), familyAdapter("llama-lora")
	ok(t, "adapter", "resize", from, at("same"), "--rank", "4")
	require.Equal(t, tensors(t, from), tensors(t, at("same")), "at full rank it is the same, bit for bit")
	ok(t, "adapter", "resize", from, at("energy"), "--energy", "1")
	want := added(t, base, from)
	require.Less(t, distance(want, added(t, base, at("energy"))), 1e-6)

	var r adapterWritten
	okJSON(t, &r, "adapter", "resize", from, at("small"), "--rank", "2")
	require.InDelta(t, r.Error, distance(want, added(t, base, at("small"))), 1e-3)
	require.Equal(t, r.Was, 2*r.Bytes)
	var b adapterWritten
	okJSON(t, &b, "adapter", "resize", from, at("budget"), "--max-size", itoa(int(r.Bytes)))
	require.LessOrEqual(t, b.Bytes, r.Bytes)
	require.Less(t, b.Error, r.Error, "numbers that go where they are needed do more")
	require.InDelta(t, b.Error, distance(want, added(t, base, at("budget"))), 1e-3)
}

// The adapter of what an adapter was merged into adds the same.
func TestAdapterExtract(t *testing.T) {
	for adapter, name := range map[string]string{"llama-lora": "llama", "qwen2-lora": "qwen2"} {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, name) }
		base, from := family(name), familyAdapter(adapter)
		ok(t, "merge", "--base", base, "--adapter", from, "--out", at("tuned"), "--dtype", "f32")
		var r adapterWritten
		okJSON(t, &r, "adapter", "extract", "--base", base, "--model", at("tuned"), "--out", at("got"), "--rank", "4")
		require.Less(t, r.Error, 1e-4)
		require.Empty(t, r.Whole)
		want := added(t, base, from)
		require.Less(t, distance(want, added(t, base, at("got"))), 1e-4)

		// Both together have no rank that one has not.
		okJSON(t, &r, "adapter", "combine", from, at("got")+":-1", "--out", at("nothing"), "--method", "cat")
		require.Less(t, distance(want, addedTwice(want, added(t, base, at("nothing")))), 1e-4)
	}
}

// addedTwice adds up.
func addedTwice(x, y map[string][]float32) map[string][]float32 {
	out := make(map[string][]float32)
	for name, v := range x {
		out[name] = slices.Clone(v)
		for i, w := range y[name] {
			out[name][i] += w
		}
	}
	return out
}

// perturb writes a model in which all tensors differ.
func perturb(t *testing.T, base, out string) {
	t.Helper()
	in, err := formats.Open(base)
	require.NoError(t, err)
	defer in.Close()
	var list []tensortest.Tensor
	seed := uint64(1)
	for info := range in.All() {
		_, x, err := codecs.ReadAll(in, info.Name)
		require.NoError(t, err)
		seed++
		noise := tensortest.NewSource(t, nil, tensortest.Normal("x", info.Shape, 0.05, seed))
		for i, v := range tensortest.Floats(t, noise, "x") {
			x[i] += v
		}
		list = append(list, tensortest.Float32(info.Name, info.Shape, x))
	}
	require.NoError(t, os.Mkdir(out, 0o777))
	w, err := safetensors.Create(filepath.Join(out, "model.safetensors"), false)
	require.NoError(t, err)
	tensortest.Copy(t, tensortest.NewSource(t, tensor.Meta{{Key: "format", Value: "pt"}}, list...), w)
	put(t, filepath.Join(out, "config.json"), strings.Replace(readFile(t, filepath.Join(base, "config.json")), `"bfloat16"`, `"float32"`, 1))
}

// What is no linear layer is stored whole: the adapter makes the model what it was, whatever
// changed.
func TestAdapterExtractOfAll(t *testing.T) {
	for _, name := range []string{"llama", "qwen2", "gpt2", "phi3"} {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, name) }
		base := family(name)
		perturb(t, base, at("tuned"))
		var r adapterWritten
		okJSON(t, &r, "adapter", "extract", "--base", base, "--model", at("tuned"), "--out", at("got"), "--rank", "1000")
		require.Less(t, r.Error, 1e-5, name)
		require.NotEmpty(t, r.Whole, name)
		ok(t, "merge", "--base", base, "--adapter", at("got"), "--out", at("merged"), "--dtype", "f32")
		require.Less(t, distance(values(t, at("tuned")), values(t, at("merged"))), 1e-5, name)

		r = adapterWritten{}
		okJSON(t, &r, "adapter", "extract", "--base", base, "--model", at("tuned"), "--out", at("less"), "--energy", "0.5", "--embeddings", "skip", "--others", "skip")
		require.Empty(t, r.Whole, name)
		require.NotEmpty(t, r.Dropped, name)
		require.Less(t, r.Error, math.Sqrt(0.5), "half of the energy of each is there")
		require.Greater(t, r.Error, 0.5, "and not much more")
	}
}

func TestAdapterRank(t *testing.T) {
	dir := t.TempDir()
	from := familyAdapter("qwen2-lora")
	for _, name := range []string{"r.png", "r.svg"} {
		var r adapterRankResult
		okJSON(t, &r, "adapter", "rank", from, "--plot", filepath.Join(dir, name))
		require.Len(t, r.Modules, 14)
		require.Len(t, r.Kinds, 7)
		for _, m := range r.Modules {
			require.Len(t, m.Spectrum, m.Rank)
			require.LessOrEqual(t, m.Suggest, m.Rank)
			require.InEpsilon(t, m.Norm, m.Spectrum.Norm(), 1e-9)
		}
		require.NotEmpty(t, r.Budgets)
		for _, b := range r.Budgets {
			require.LessOrEqual(t, b.Greedy, b.Same+1e-9)
		}
		text := readFile(t, filepath.Join(dir, name))
		if strings.HasSuffix(name, ".png") {
			img, err := png.Decode(bytes.NewReader([]byte(text)))
			require.NoError(t, err)
			require.Equal(t, 1440, img.Bounds().Dx())
		} else {
			require.Contains(t, text, "<svg")
			require.Contains(t, text, "mlp.down_proj")
		}
	}
	require.Contains(t, ok(t, "adapter", "rank", from), "adapter resize --max-size")
}

// Methods that combine what is added make an adapter of what merging with them makes, the
// same numbers dropped at random, as far as its rank allows.
func TestAdapterCombineByMethod(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base, from := family("qwen2"), familyAdapter("qwen2-lora")
	ok(t, "adapter", "resize", from, at("other"), "--rank", "3")
	plain := values(t, base)
	for i, method := range [][]string{{"ties", "--density", "0.5"}, {"dare_linear", "--density", "0.6", "--seed", "3"}, {"slerp", "--t", "0.3"}} {
		args := append([]string{"--method"}, method...)
		one, two := from+":0.8", at("other")+":0.3"
		if method[0] == "slerp" {
			one, two = from, at("other")
		}
		merged := at(method[0])
		ok(t, append([]string{"merge", "--base", base, "--adapter", one, "--adapter", two, "--out", merged, "--dtype", "f32"}, args...)...)
		want := values(t, merged)
		for name, x := range plain {
			for j, v := range x {
				want[name][j] -= v
			}
		}
		for _, rank := range []int{3, 1000} {
			out := at(method[0] + itoa(rank))
			var r adapterWritten
			okJSON(t, &r, append([]string{"adapter", "combine", one, two, "--out", out, "--rank", itoa(rank)}, args...)...)
			require.InDelta(t, r.Error, distance(want, added(t, base, out)), 1e-4, method[0])
			if rank == 1000 {
				require.Less(t, r.Error, 1e-5, "%d", i)
			} else {
				require.Greater(t, r.Error, 0.01, "%d", i)
			}
		}
	}
}
