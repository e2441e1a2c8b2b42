package main

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/train/engine"
	trainmodel "github.com/seed18967229/nibble/train/model"
)

// What nibble computes with a directory that it quantized is what transformers
// and bitsandbytes compute with it: the golden's own, since it was made of the
// same flags and the bytes are the same for any machine.
func TestBnbLogits(t *testing.T) {
	var golden struct {
		Tokens []int32
		Cases  []struct {
			Name, Model string
			Flags       []string
		}
	}
	readGolden(t, "bnb_logits.json", &golden)
	require.GreaterOrEqual(t, len(golden.Cases), 26)
	logits, err := safetensors.Open(filepath.Join(goldens, "bnb_logits.safetensors"))
	require.NoError(t, err)
	t.Cleanup(func() { logits.Close() })
	dir := workspace(t)
	for _, c := range golden.Cases {
		plain := filepath.Join(dir, c.Model+"-f32")
		in := filepath.Join(goldens, "families", c.Model)
		if c.Model == "stories260K" {
			in = filepath.Join(dir, c.Model)
		}
		ok(t, "convert", in, plain, "--outtype", "f32", "--force")
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			q := t.TempDir() + "/q"
			ok(t, append([]string{"quantize", plain, q}, c.Flags...)...)
			want := tensortest.Floats(t, logits, c.Name)
			worst := 0.0
			for i, got := range logProbabilities(t, q, golden.Tokens, len(want)) {
				worst = max(worst, abs(got-float64(want[i])))
			}
			t.Logf("logits differ by %.2g at most", worst)
			require.Less(t, worst, 2e-5)
		})
	}
}

func abs(x float64) float64 { return max(x, -x) }

// logProbabilities returns the log of the probability of every token after a
// prefix: of that, the loss tells.
func logProbabilities(t *testing.T, dir string, prefix []int32, vocab int) []float64 {
	t.Helper()
	m, err := openModel(dir)
	require.NoError(t, err)
	defer m.Close()
	trained, err := attach(m.view, m.arch, "")
	require.NoError(t, err)
	e, err := engine.New(m.view, codecs, m.arch, trained, engine.Options{Choices: engine.Choices{Slots: 2}, Positions: len(prefix) + 1})
	require.NoError(t, err)
	defer e.Close()
	var batches []*trainmodel.Batch
	for token := range vocab {
		b := &trainmodel.Batch{}
		b.Add(append(slices.Clone(prefix), int32(token)), len(prefix))
		batches = append(batches, b)
	}
	loss, err := e.Loss(t.Context(), batches)
	require.NoError(t, err)
	for i := range loss {
		loss[i] = -loss[i]
	}
	return loss
}
