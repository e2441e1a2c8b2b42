package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/gguf/imatrix"
)

const shakespeare = goldens + "/stories260K/shakespeare.txt"

// imatrixRun is a run of llama-imatrix, as testdata/README.md tells.
type imatrixRun struct {
	Ctx           int
	Chunks        int
	ProcessOutput bool `json:"process_output"`
	Perplexity    float64
}

func (r *imatrixRun) args(model, out string) []string {
	args := []string{"imatrix", "--model", model, "--data", shakespeare, "--out", out, "-c", fmt.Sprint(r.Ctx), "--chunks", fmt.Sprint(r.Chunks)}
	if r.ProcessOutput {
		args = append(args, "--process-output")
	}
	return args
}

// sameImatrix compares two importance matrices, sums to a relative tolerance.
func sameImatrix(t *testing.T, want, got string, tolerance float64) {
	t.Helper()
	w, err := imatrix.Read(want)
	require.NoError(t, err)
	g, err := imatrix.Read(got)
	require.NoError(t, err)
	require.Equal(t, []string{shakespeare}, g.Datasets)
	require.Equal(t, w.Chunks, g.Chunks)
	require.Equal(t, w.ChunkSize, g.ChunkSize)
	require.NotEmpty(t, w.Entries)
	require.Len(t, g.Entries, len(w.Entries))
	for i, e := range w.Entries {
		x := g.Entries[i]
		require.Equal(t, e.Name, x.Name)
		require.Equal(t, e.Mats, x.Mats, e.Name)
		require.Equal(t, e.Counts, x.Counts, e.Name)
		require.Len(t, x.Sums, len(e.Sums), e.Name)
		for j, s := range e.Sums {
			require.InEpsilon(t, 1+s, 1+x.Sums[j], tolerance, "%s, %d", e.Name, j)
			require.InDelta(t, s, x.Sums[j], tolerance*float64(s)+1e-12, "%s, %d", e.Name, j)
		}
	}
}

// tabled are the families whose activation ggml takes from a table of F16.
var tabled = map[string]bool{"gpt2": true, "gemma": true, "gemma2": true, "gemma3": true, "gemma3-vision": true}

// The files are those of llama-imatrix, to the rounding of sums.
func TestImatrixIsLlamaCpps(t *testing.T) {
	var runs map[string]imatrixRun
	text, err := os.ReadFile("testdata/imatrix/runs.json")
	require.NoError(t, err)
	unmarshal(t, text, &runs)
	require.Len(t, runs, 18)
	stories := filepath.Join(workspace(t), "stories260K")
	for name, run := range runs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			model := filepath.Join(goldens, "families", name)
			if name == "stories260K" {
				model = stories
			}
			tolerance, perplexity := 1e-5, 5e-6
			if tabled[name] {
				tolerance, perplexity = 2e-3, 1e-4
			}
			out := filepath.Join(t.TempDir(), "imatrix.gguf")
			var r imatrixResult
			okJSON(t, &r, run.args(model, out)...)
			sameImatrix(t, filepath.Join("testdata/imatrix", name+".gguf"), out, tolerance)
			require.Equal(t, run.Chunks, r.Chunks)
			require.Equal(t, run.Ctx, r.ChunkSize)
			require.InEpsilon(t, run.Perplexity, r.Perplexity, perplexity)
			require.InEpsilon(t, math.Log(run.Perplexity), r.Loss, perplexity)
		})
	}
}

// It is the same file however much of the model is in memory and how many chunks
// go through at a time, and the same sums from a GGUF file.
func TestImatrixOfAnySource(t *testing.T) {
	dir := workspace(t)
	model, out := filepath.Join(dir, "stories260K"), func(name string) string { return filepath.Join(dir, name) }
	run := imatrixRun{Ctx: 128, Chunks: 5}
	ok(t, run.args(model, out("whole.gguf"))...)
	ok(t, append(run.args(model, out("streamed.gguf")), "--memory", "1MiB", "--batch-size", "2", "--threads", "1")...)
	require.Equal(t, readFile(t, out("whole.gguf")), readFile(t, out("streamed.gguf")))

	ok(t, "convert", model, out("model.gguf"), "--outtype", "f32")
	ok(t, run.args(out("model.gguf"), out("from.gguf"))...)
	sameImatrix(t, out("whole.gguf"), out("from.gguf"), 1e-5)

	ok(t, "quantize", model, out("nf4"))
	ok(t, run.args(out("nf4"), out("quantized.gguf"))...)
	plain, err := imatrix.Read(out("whole.gguf"))
	require.NoError(t, err)
	rounded, err := imatrix.Read(out("quantized.gguf"))
	require.NoError(t, err)
	require.Len(t, rounded.Entries, len(plain.Entries))
	for i, e := range plain.Entries {
		var sum, other float64
		for j, s := range e.Sums {
			sum += float64(s)
			other += float64(rounded.Entries[i].Sums[j])
		}
		if !strings.HasPrefix(e.Name, "blk.0.attn_") { // which see what is not quantized
			require.NotEqual(t, sum, other, e.Name)
		}
		require.InEpsilon(t, sum, other, 0.3, e.Name)
	}
}

func TestImatrixSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	// A chunk of four tokens does not reach all experts.
	var r imatrixResult
	okJSON(t, &r, (&imatrixRun{4, 1, true, 0}).args(goldens+"/families/mixtral", filepath.Join(dir, "a.gguf"))...)
	require.NotEmpty(t, r.Unused)
	file, err := imatrix.Read(filepath.Join(dir, "a.gguf"))
	require.NoError(t, err)
	for name, n := range r.Unused {
		unused := 0
		for _, c := range file.Entry(name).Counts {
			if c == 0 {
				unused++
			}
		}
		require.Equal(t, n, unused, name)
	}
	require.Len(t, r.Notes, 2)
	require.Contains(t, r.Notes[0], "no token of the text")
	require.Contains(t, r.Notes[1], "the head is the embeddings")

	// The head is asked for, or not.
	names := func(run imatrixRun) (names []string) {
		out := filepath.Join(t.TempDir(), "x.gguf")
		ok(t, run.args(goldens+"/families/qwen2", out)...)
		file, err := imatrix.Read(out)
		require.NoError(t, err)
		for _, e := range file.Entries {
			names = append(names, e.Name)
		}
		return names
	}
	require.Contains(t, names(imatrixRun{16, 2, true, 0}), "output.weight")
	require.NotContains(t, names(imatrixRun{16, 2, false, 0}), "output.weight")
}

func TestInterruptedImatrix(t *testing.T) {
	dir := workspace(t)
	long := filepath.Join(dir, "long.txt")
	put(t, long, strings.Repeat(readFile(t, shakespeare), 400))
	before := every(t, dir)
	cmd := exec.Command(binary, "imatrix", "--model", filepath.Join(dir, "stories260K"), "--data", long, "--out", filepath.Join(dir, "out.gguf"), "-c", "256")
	require.NoError(t, cmd.Start())
	time.Sleep(600 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode())
	require.Equal(t, before, every(t, dir), "nothing is left behind")
}
