package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// writeWideCheckpoint writes a checkpoint of which every block type fits all rows, with
// the demo's tokenizer.
func writeWideCheckpoint(t *testing.T, from, dir string) {
	t.Helper()
	require.NoError(t, os.CopyFS(dir, os.DirFS(from)))
	config := readFile(t, filepath.Join(from, "config.json"))
	for _, change := range [][2]string{
		{`"hidden_size": 64`, `"hidden_size": 256`}, {`"intermediate_size": 172`, `"intermediate_size": 512`}, {`"num_hidden_layers": 5`, `"num_hidden_layers": 4`},
	} {
		require.Contains(t, config, change[0])
		config = strings.Replace(config, change[0], change[1], 1)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	m, err := arch.ParseConfig([]byte(config))
	require.NoError(t, err)
	src := tensortest.NewModel(t, m, 5)
	var layout []tensor.Info
	for info := range src.All() {
		layout = append(layout, info)
	}
	w, err := safetensors.Create(filepath.Join(dir, "model.safetensors"), true)
	require.NoError(t, err)
	require.NoError(t, w.Begin(src.Meta(), layout))
	for i, info := range layout {
		body, err := w.Body(i)
		require.NoError(t, err)
		_, err = body.WriteAt(tensortest.Bytes(t, src, info.Name), 0)
		require.NoError(t, err)
	}
	require.NoError(t, w.Finish())
}

// TestTrainOnAnyBase trains on a base in several encodings, GGUF's among them: streamed
// as resident, and as on the decoded numbers, bit for bit.
func TestTrainOnAnyBase(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	wide := at("wide")
	writeWideCheckpoint(t, at("stories260K"), wide)
	require.NoError(t, os.WriteFile(at("text.txt"), []byte(strings.Repeat("Once upon a time there was a base in many encodings. ", 20)), 0o600))
	train := func(base, name string, more ...string) (float64, string) {
		t.Helper()
		var r trainResult
		okJSON(t, &r, append([]string{"train", "--model", base, "--data", at("text.txt"), "--output-dir", at(name), "--iters", "2", "--batch-size", "1",
			"--max-seq-length", "48", "--learning-rate", "1e-2", "--warmup-steps", "0", "--val-batches", "1", "--rank", "4"}, more...)...)
		return r.Loss, readFile(t, filepath.Join(at(name), "adapter_model.safetensors"))
	}
	for _, kind := range []string{"q8_0", "q2_k", "q4_k_m", "nf4", "int8"} {
		base, decode := at(kind+".gguf"), "convert"
		if kind == "nf4" || kind == "int8" {
			base, decode = at(kind), "dequantize"
		}
		ok(t, "quantize", wide, base, "--type", kind)
		decoded := []string{decode, base, at(kind + "-decoded"), "--dtype", "f32"}
		if decode == "convert" {
			decoded[3] = "--outtype"
		}
		ok(t, decoded...)
		want, adapter := train(at(kind+"-decoded"), kind+"-a")
		resident, same := train(base, kind+"-b", "--memory", "2GiB")
		require.Equal(t, want, resident, kind)
		require.True(t, adapter == same, kind)
		streamed, same := train(base, kind+"-c")
		require.Equal(t, want, streamed, kind)
		require.True(t, adapter == same, kind)
		if decode == "convert" {
			ok(t, "convert", at(kind+"-c"), at(kind+"-c.gguf"), "--base", base)
		}
	}
}
