package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/train/engine"
)

// The figures are those of transformers, and of llama-perplexity to the digits
// that it prints and the 16 bits that it keeps of the base.
func TestEvalKLAgreesWithThePeers(t *testing.T) {
	var want struct {
		NCtx         int `json:"n_ctx"`
		Transformers struct {
			Tokens           int
			Loss, Mean       engine.Figure
			BaseLoss         engine.Figure `json:"base_loss"`
			LogRatio         engine.Figure `json:"log_perplexity_ratio"`
			Median, P99, Max float64
			SameTop          engine.Figure `json:"same_top"`
			RMSDeltaP        engine.Figure `json:"rms_delta_p"`
		}
		Llama struct {
			Perplexity, Mean []float64
			Median, P99, Max float64
			SameTop          []float64 `json:"same_top_percent"`
			RMSDeltaP        []float64 `json:"rms_delta_p_percent"`
		} `json:"llama_perplexity"`
	}
	text, err := os.ReadFile("testdata/kl/stories_q8_0.json")
	require.NoError(t, err)
	unmarshal(t, text, &want)
	dir := workspace(t)
	base := filepath.Join(dir, "stories260K")
	ok(t, "convert", base, filepath.Join(dir, "q8.gguf"), "--outtype", "q8_0")
	var r evalResult
	okJSON(t, &r, "eval", "--model", filepath.Join(dir, "q8.gguf"), "--kl-base", base, "--data", shakespeare, "--max-seq-length", "128")
	kl := r.KL
	require.NotNil(t, kl)
	require.Equal(t, 128, want.NCtx)
	require.Equal(t, llamaRule, kl.Rule)
	require.Equal(t, r.Llama.Tokens, kl.Tokens)

	figure := func(want, got engine.Figure, tolerance float64) {
		t.Helper()
		require.InDelta(t, want.Value, got.Value, tolerance)
		require.InDelta(t, want.Uncertainty, got.Uncertainty, tolerance)
	}
	w := want.Transformers
	require.Equal(t, w.Tokens, kl.Tokens)
	require.InDelta(t, w.Loss.Value, r.Llama.Loss, 1e-6)
	figure(w.LogRatio, kl.LogRatio, 1e-6)
	figure(w.Mean, kl.Mean, 1e-7)
	figure(w.SameTop, kl.SameTop, 1e-12)
	figure(w.RMSDeltaP, kl.RMSDeltaP, 1e-6)
	require.InDelta(t, w.Median, kl.Median, 1e-6)
	require.InDelta(t, w.P99, kl.P99, 1e-5)
	require.InDelta(t, w.Max, kl.Max, 1e-5)

	l := want.Llama
	figure(engine.Figure{Value: l.Perplexity[0], Uncertainty: l.Perplexity[1]}, kl.Perplexity, 1e-4)
	figure(engine.Figure{Value: l.Mean[0], Uncertainty: l.Mean[1]}, kl.Mean, 2e-6)
	figure(engine.Figure{Value: l.SameTop[0] / 100, Uncertainty: l.SameTop[1] / 100}, kl.SameTop, 6e-6)
	figure(engine.Figure{Value: l.RMSDeltaP[0] / 100, Uncertainty: l.RMSDeltaP[1] / 100}, kl.RMSDeltaP, 6e-6)
	require.InDelta(t, l.Median, kl.Median, 1e-5)
	require.InDelta(t, l.P99, kl.P99, 2e-5)
	require.InDelta(t, l.Max, kl.Max, 5e-5)
}

// A GGUF file predicts what its checkpoint does, in every family, but where
// llama.cpp's files cannot say what a family does.
func TestEvalKLOfFamilies(t *testing.T) {
	eachFamily(t, func(t *testing.T, dir string) {
		if !llamacppKnows(dir) {
			return
		}
		file := filepath.Join(t.TempDir(), "x.gguf")
		ok(t, "convert", dir, file, "--outtype", "f32")
		var r evalResult
		okJSON(t, &r, "eval", "--model", file, "--kl-base", dir, "--data", shakespeare, "--max-seq-length", "64")
		if filepath.Base(dir) == "mistral" { // its window is not in the file
			require.Greater(t, r.KL.Mean.Value, 1.0)
			require.Less(t, r.KL.SameTop.Value, 0.5)
			return
		}
		require.InDelta(t, 0, r.KL.Max, 1e-6)
		require.InDelta(t, 1, r.KL.SameTop.Value, 0.005)
	})
}

// Rows are compared by their labels, a text that is too short for two chunks as a
// whole, and an adapter counts. The memory that is allowed changes nothing.
func TestEvalKLPasses(t *testing.T) {
	dir := workspace(t)
	base := filepath.Join(dir, "stories260K")
	eval := func(args ...string) *evalResult {
		var r evalResult
		okJSON(t, &r, append([]string{"eval", "--model", base, "--kl-base", base, "--max-seq-length", "64"}, args...)...)
		require.NotNil(t, r.KL)
		return &r
	}
	same := eval("--data", shakespeare)
	require.Equal(t, engine.Figure{}, same.KL.Mean)
	require.Equal(t, engine.Figure{Value: 1}, same.KL.SameTop)
	require.Equal(t, same.KL.Perplexity, same.KL.BasePerplexity)

	rows := filepath.Join(dir, "rows.jsonl")
	put(t, rows, `{"prompt": "Once upon", "completion": " a time there was a cat"}`+"\n"+`{"prompt": "The sun", "completion": " was red."}`+"\n")
	short := filepath.Join(dir, "short.txt")
	put(t, short, "Once upon a time there was a little girl.")
	for _, path := range []string{rows, short} {
		r := eval("--data", path)
		require.Equal(t, "eval", r.KL.Rule)
		require.Equal(t, r.Tokens, r.KL.Tokens)
		require.InDelta(t, r.Perplexity, r.KL.Perplexity.Value, 1e-9)
		require.Nil(t, r.Llama)
	}

	ok(t, "train", "--model", base, "--data", shakespeare, "--output-dir", filepath.Join(dir, "a"),
		"--iters", "3", "--batch-size", "1", "--max-seq-length", "32", "--rank", "2", "--learning-rate", "0.01", "--quiet")
	adapted := eval("--data", shakespeare, "--adapter", filepath.Join(dir, "a"))
	require.Positive(t, adapted.KL.Mean.Value)
	require.InDelta(t, same.KL.BasePerplexity.Value, adapted.KL.BasePerplexity.Value, 1e-9)
	require.InDelta(t, adapted.Llama.Perplexity, adapted.KL.Perplexity.Value, 1e-9)
	streamed := eval("--data", shakespeare, "--adapter", filepath.Join(dir, "a"), "--memory", "1MiB", "--threads", "1")
	require.Equal(t, adapted.KL, streamed.KL)

	out := ok(t, "eval", "--model", base, "--kl-base", base, "--data", short)
	for _, s := range []string{"against           " + base, "KL divergence   0.000000 ± 0.000000", "same top token  100.000 ±", "right token"} {
		require.Contains(t, out, s)
	}
	require.NotContains(t, ok(t, "eval", "--model", base, "--data", short), "KL divergence")
}

func TestEvalKLNeedsOneVocabulary(t *testing.T) {
	for _, c := range []struct{ base, says string }{
		{goldens + "/families/phi3", "512 logits and 528"},
		{goldens + "/families/qwen2", `token 0 is "<unk>" and "!"`},
	} {
		o := nibble(t, "eval", "--model", filepath.Join(workspace(t), "stories260K"), "--kl-base", c.base, "--data", shakespeare)
		require.Equal(t, exitInput, o.code)
		require.Contains(t, o.stderr, c.says)
		require.Contains(t, o.stderr, c.base)
		require.Contains(t, o.stderr, "the one that it was made from")
		require.Equal(t, 2, strings.Count(o.stderr, "\n"))
	}
}
