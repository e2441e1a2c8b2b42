package main

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/convert"
)

// fileGolden is a file that llama.cpp's converter made, as testdata/README.md
// tells.
type fileGolden struct {
	Size   int64
	SHA256 string
}

func requireFile(t *testing.T, want fileGolden, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want.Size, int64(len(data)), path)
	require.Equal(t, want.SHA256, fmt.Sprintf("%x", sha256.Sum256(data)), path)
}

// eachFamily runs a test for every checkpoint in testdata/families.
func eachFamily(t *testing.T, f func(t *testing.T, dir string)) {
	configs, err := filepath.Glob(filepath.Join(goldens, "families/*/config.json"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(configs), 18)
	for _, c := range configs {
		dir := filepath.Dir(c)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			f(t, dir)
		})
	}
}

// llamacppKnows reports whether llama.cpp's converter takes a checkpoint.
func llamacppKnows(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "convert_f32.json"))
	return err == nil
}

// Every file is that of llama.cpp's converter, to the byte.
func TestFamiliesToGGUF(t *testing.T) {
	eachFamily(t, func(t *testing.T, dir string) {
		if !llamacppKnows(dir) {
			o := nibble(t, "convert", dir, filepath.Join(t.TempDir(), "x.gguf"))
			require.Equal(t, exitInput, o.code)
			require.Contains(t, o.stderr, "GGUF")
			return
		}
		out := t.TempDir()
		for _, outType := range convert.OutTypes() {
			var want struct{ File fileGolden }
			readGolden(t, filepath.Join("families", filepath.Base(dir), "convert_"+outType+".json"), &want)
			path := filepath.Join(out, outType+".gguf")
			ok(t, "convert", dir, path, "--outtype", outType)
			requireFile(t, want.File, path)
		}
	})
}

// A checkpoint that has become a GGUF file and a directory again has the same
// tensors, bit for bit, and becomes the same GGUF file.
func TestFamiliesThereAndBack(t *testing.T) {
	eachFamily(t, func(t *testing.T, dir string) {
		if !llamacppKnows(dir) {
			return
		}
		work := t.TempDir()
		at := func(name string) string { return filepath.Join(work, name) }
		cast := map[string]string{"f32": dir, "f16": dir, "bf16": dir}
		for outType := range cast {
			cast[outType] = at(outType)
			ok(t, "convert", dir, cast[outType], "--outtype", outType)
			first, back := at(outType+"-a.gguf"), at(outType+"-back")
			ok(t, "convert", cast[outType], first, "--outtype", outType)
			ok(t, "convert", first, back)
			o := nibble(t, "diff", cast[outType], back, "--tensors-only")
			require.Contains(t, []int{exitDone, exitFailed}, o.code, o.stderr)
			for _, line := range strings.Split(o.stdout, "\n") {
				// A vision tower has no place in the file.
				if strings.HasPrefix(line, "only in A") {
					require.Regexp(t, "vision_tower|multi_modal_projector", line)
					require.NotContains(t, line, "language_model")
				}
			}
			require.Regexp(t, `(bit for bit|only in A)`, lastLine(o.stdout), o.stdout)
			require.NotContains(t, lastLine(o.stdout), "only in B")

			second := at(outType + "-b.gguf")
			ok(t, "convert", back, second, "--outtype", outType)
			require.Equal(t, tensors(t, first), tensors(t, second))
		}
		require.Len(t, cast, 3)
	})
}

// greedyGolden is greedy text after some prompts.
type greedyGolden struct {
	Results []struct {
		Prompt, Text, Stopped string
		PromptTokens          []int32 `json:"prompt_tokens"`
		Tokens                []int32
	}
}

func (g *greedyGolden) check(t *testing.T, model string) {
	require.NotEmpty(t, g.Results)
	for _, w := range g.Results {
		most := len(w.Tokens)
		if w.Stopped == "end" {
			most++
		}
		var got generateResult
		okJSON(t, &got, "generate", "--model", model, "--prompt", w.Prompt, "--max-tokens", strconv.Itoa(most), "--temp", "0", "--repetition-penalty", "1")
		require.Equal(t, w.PromptTokens, got.PromptTokens, model)
		require.Equal(t, w.Tokens, got.Tokens, model)
		require.Equal(t, w.Text, got.Text, model)
		require.Equal(t, w.Stopped == "end", got.Stopped == "eos", model)
	}
}

// Greedy text is that of transformers, from the directory and from its GGUF file.
func TestFamiliesGenerate(t *testing.T) {
	eachFamily(t, func(t *testing.T, dir string) {
		var transformers greedyGolden
		name := filepath.Join("families", filepath.Base(dir))
		readGolden(t, name+"/greedy.json", &transformers)
		transformers.check(t, dir)
		if !llamacppKnows(dir) {
			return
		}
		file := filepath.Join(t.TempDir(), "m.gguf")
		ok(t, "convert", dir, file, "--outtype", "f32")
		if filepath.Base(dir) == "mistral" {
			// The file does not say that there is a window.
			var llamacpp struct {
				F32 greedyGolden `json:"converted_f32"`
			}
			readGolden(t, name+"/llamacpp_greedy.json", &llamacpp)
			llamacpp.F32.check(t, file)
			return
		}
		transformers.check(t, file)
	})
}

// The parts of a file are those that llama.cpp's converter writes.
func TestSplitsAreTheConverters(t *testing.T) {
	for _, name := range []string{"llama", "qwen2"} {
		var want struct {
			OutType string
			Options []string
			Parts   map[string]struct{ File fileGolden }
		}
		readGolden(t, filepath.Join("families", name, "splits.json"), &want)
		require.NotEmpty(t, want.Parts)
		work := t.TempDir()
		first := slices.Sorted(maps.Keys(want.Parts))[0]
		stem := first[:strings.LastIndex(first, "-00001-of-")]
		whole := filepath.Join(work, "whole.gguf")
		ok(t, "convert", filepath.Join(goldens, "families", name), whole, "--outtype", want.OutType)
		for _, from := range []string{filepath.Join(goldens, "families", name), whole} {
			args := []string{"convert", from, filepath.Join(work, stem+".gguf"), "--force"}
			if from != whole {
				args = append(args, "--outtype", want.OutType)
			}
			var r writeResult
			okJSON(t, &r, append(args, want.Options...)...)
			require.Len(t, r.Files, len(want.Parts))
			for part, w := range want.Parts {
				requireFile(t, w.File, filepath.Join(work, part))
			}
			again := filepath.Join(work, "again.gguf")
			ok(t, "convert", filepath.Join(work, first), again, "--force")
			require.Equal(t, readFile(t, whole), readFile(t, again), "merged, it is what was split")
		}
	}
}
