package model

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
)

const families = "../../testdata/families"

// TestLogitsAgreeWithTransformers computes the logits of a checkpoint of every
// family, all at once and token by token, and compares them with what transformers gives for the
// whole sequence.
func TestLogitsAgreeWithTransformers(t *testing.T) {
	list, err := os.ReadDir(families)
	require.NoError(t, err)
	for _, e := range list {
		if !e.IsDir() {
			continue
		}
		if e.Name() == "adapters" {
			continue
		}
		goldens, err := filepath.Glob(filepath.Join(families, e.Name(), "logits*.safetensors"))
		require.NoError(t, err)
		require.NotEmpty(t, goldens)
		for _, g := range goldens {
			t.Run(e.Name()+"/"+filepath.Base(g), func(t *testing.T) { checkLogits(t, filepath.Dir(g), g) })
		}
	}
}

func checkLogits(t *testing.T, dir, golden string) {
	s := openFamily(t, dir)
	a := s.arch
	f, err := safetensors.Open(golden)
	require.NoError(t, err)
	defer f.Close()
	numbers := func(name string) []float32 {
		_, v, err := codecs.ReadAll(f, name)
		require.NoError(t, err)
		return v
	}
	var tokens []int32
	for _, v := range numbers("tokens") {
		tokens = append(tokens, int32(v))
	}
	want := make(map[int][]float32)
	vocab := int(a.VocabSize)
	logits := numbers("logits")
	for i, at := range numbers("positions") {
		want[int(at)] = logits[i*vocab : (i+1)*vocab]
	}
	for _, first := range []int{len(tokens), 1} {
		seen := 0
		s.extend(t, tokens, first, func(at int, got []float32) {
			w, ok := want[at]
			if !ok {
				return
			}
			seen++
			for i, v := range w {
				require.InDelta(t, v, got[i], 1e-4*(1+math.Abs(float64(v))), "token %d, logit %d, first %d", at, i, first)
			}
		})
		require.Equal(t, len(want), seen)
	}
}
