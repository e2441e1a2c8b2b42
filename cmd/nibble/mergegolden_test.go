package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/tensor"
)

// peftMerge is what PEFT made of one case of testdata/merge.
type peftMerge struct {
	Base, DType string
	Tensors     []string
	Config      map[string]any
}

// mergeCase returns the arguments for merging a case, with the base in the type
// that PEFT had it in.
func mergeCase(t *testing.T, name string) (base string, adapters []string, want peftMerge) {
	t.Helper()
	dir := filepath.Join(goldens, "merge", "cases", name)
	readGolden(t, filepath.Join("merge", "cases", name, "merged.json"), &want)
	base = filepath.Join(goldens, "merge", "bases", want.Base)
	if short := map[string]string{"bfloat16": "bf16", "float16": "f16"}[want.DType]; short != "" {
		out := filepath.Join(t.TempDir(), "base")
		ok(t, "convert", base, out, "--outtype", short)
		base = out
	}
	list, err := filepath.Glob(filepath.Join(dir, "adapter*"))
	require.NoError(t, err)
	sort.Strings(list)
	for _, a := range list {
		adapters = append(adapters, "--adapter", a)
	}
	if _, err := os.Stat(filepath.Join(dir, "initial")); err == nil {
		adapters = append(adapters, "--initial-adapter", filepath.Join(dir, "initial"))
	}
	return base, adapters, want
}

// checkMerged compares a merged directory with what PEFT made. near says how far
// the numbers of a changed tensor may be from PEFT's, relative to the largest; 0
// is not at all.
func checkMerged(t *testing.T, out, base, golden string, want peftMerge, near float64) {
	t.Helper()
	got, err := formats.Open(out)
	require.NoError(t, err)
	defer got.Close()
	was, err := formats.Open(base)
	require.NoError(t, err)
	defer was.Close()
	changed, err := safetensors.Open(golden)
	require.NoError(t, err)
	defer changed.Close()
	var names []string
	for info := range got.All() {
		names = append(names, info.Name)
		src := tensor.Source(was)
		if tensor.Has(changed, info.Name) {
			src = changed
		}
		is, err := src.Info(info.Name)
		require.NoError(t, err)
		require.Equal(t, is.Shape, info.Shape, "%s", info.Name)
		require.Equal(t, is.DType, info.DType, "%s", info.Name)
		if near == 0 || src == tensor.Source(was) {
			require.Equal(t, floatsOf(t, src, info.Name), floatsOf(t, got, info.Name), "%s", info.Name)
			continue
		}
		w, g := floatsOf(t, src, info.Name), floatsOf(t, got, info.Name)
		var most float64
		for _, v := range w {
			most = max(most, math.Abs(float64(v)))
		}
		for i, v := range w {
			require.InDelta(t, v, g[i], near*most, "%s, element %d", info.Name, i)
		}
	}
	sort.Strings(names)
	require.Equal(t, want.Tensors, names)
	for key, value := range want.Config {
		require.Equal(t, value, configOf(t, out)[key], "%s", key)
	}
}

func floatsOf(t *testing.T, src tensor.Source, name string) []float32 {
	t.Helper()
	_, w, err := codecs.ReadAll(src, name)
	require.NoError(t, err)
	return w
}

func configOf(t *testing.T, dir string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	var c map[string]any
	require.NoError(t, json.Unmarshal(text, &c))
	return c
}

// ulps are how far apart numbers of a type may be for a step or two of rounding.
var ulps = map[string]float64{"float32": 4e-7, "bfloat16": 0x1p-7, "float16": 0x1p-10}

// TestMergeIsPEFTs merges every case as PEFT does, bit for bit with its
// arithmetic. DoRA's norms are the exception: torch adds up squares in an order of
// its own. In f32 the result is as near as the type of the output lets it be, but
// for what is defined otherwise there.
func TestMergeIsPEFTs(t *testing.T) {
	cases, err := os.ReadDir(filepath.Join(goldens, "merge", "cases"))
	require.NoError(t, err)
	require.Greater(t, len(cases), 30)
	for _, c := range cases {
		t.Run(c.Name(), func(t *testing.T) {
			base, adapters, want := mergeCase(t, c.Name())
			near := 0.0
			if strings.Contains(c.Name(), "dora") {
				near = ulps[want.DType]
			}
			if want.Config["tie_word_embeddings"] != nil || slices.Contains([]string{"pissa", "olora"}, c.Name()) {
				// PEFT's base was rounded once more when training began.
				near = max(near, ulps[want.DType])
			}
			run := func(arithmetic string) string {
				out := filepath.Join(t.TempDir(), "out")
				ok(t, slices.Concat([]string{"merge", "--base", base, "--out", out, "--arithmetic", arithmetic}, adapters)...)
				return out
			}
			dir := filepath.Join(goldens, "merge", "cases", c.Name())
			checkMerged(t, run("peft"), base, filepath.Join(dir, "merged.safetensors"), want, near)
			if _, err := os.Stat(filepath.Join(dir, "safe.safetensors")); err == nil {
				checkMerged(t, run("peft-safe"), base, filepath.Join(dir, "safe.safetensors"), want, near)
			}
			switch c.Name() {
			case "tied-ensured", "two-dora":
				return // see TestMergeDiffersFromPEFT
			}
			checkMerged(t, run("f32"), base, filepath.Join(dir, "merged.safetensors"), want, max(near, ulps[want.DType]))
		})
	}
}
