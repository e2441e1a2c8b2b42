package engine

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChoose(t *testing.T) {
	logits := []float32{1, 3, 3, 0}
	require.Equal(t, int32(1), newSampler(4, Sampling{}).choose(slices.Clone(logits), nil), "the first of the most likely")
	s := newSampler(4, Sampling{Temperature: 1, Seed: 1})
	counts := make([]int, 4)
	const n = 40000
	for range n {
		counts[s.choose(slices.Clone(logits), nil)]++
	}
	var sum float64
	for _, l := range logits {
		sum += math.Exp(float64(l))
	}
	for i, l := range logits {
		require.InDelta(t, math.Exp(float64(l))/sum, float64(counts[i])/n, 0.01, "token %d", i)
	}
}

// What is kept, and how likely it is, is what transformers' logits processors make of it.
func TestSamplingIsTransformers(t *testing.T) {
	text, err := os.ReadFile("testdata/sampling.json")
	require.NoError(t, err)
	var golden struct {
		Inputs []struct {
			Logits   []float32
			Sequence []int32
		}
		Cases []struct {
			Input, Top  int
			Temperature float64
			TopK        int     `json:"top_k"`
			TopP        float64 `json:"top_p"`
			MinP        float64 `json:"min_p"`
			Penalty     float64 `json:"repetition_penalty"`
			Kept        any     // the tokens, or how many they are
			P           []float64
		}
	}
	require.NoError(t, json.Unmarshal(text, &golden))
	require.Greater(t, len(golden.Cases), 100)
	for _, c := range golden.Cases {
		in := golden.Inputs[c.Input]
		s := newSampler(len(in.Logits), Sampling{Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, MinP: c.MinP, RepetitionPenalty: c.Penalty})
		w := slices.Clone(in.Logits)
		if s.penalizes() {
			s.penalize(w, in.Sequence)
		}
		require.Equal(t, w[c.Top], slices.Max(w), "%+v", c)
		sum := s.weigh(w, w[c.Top])
		var kept []any
		added := 0.0
		for i, x := range w {
			if x > 0 {
				if n := len(kept); n < len(c.P) {
					require.InDelta(t, c.P[n], float64(x)/sum, 2e-6, "token %d of %+v", i, c)
				}
				kept = append(kept, float64(i))
				added += float64(x)
			}
		}
		require.InDelta(t, added, sum, 1e-9*added)
		if n, many := c.Kept.(float64); many {
			require.Equal(t, int(n), len(kept), "%+v", c)
		} else {
			require.Equal(t, c.Kept, kept, "%+v", c)
		}
	}
}

func TestPenaltyOfTheLast(t *testing.T) {
	s := newSampler(4, Sampling{RepetitionPenalty: 2, RepetitionLastN: 2})
	logits := []float32{4, 4, -4, 4}
	s.penalize(logits, []int32{0, 2, 3, 3})
	require.Equal(t, []float32{4, 4, -4, 2}, logits, "each once, and no others")
	s.penalize(logits, []int32{2, 3})
	require.Equal(t, []float32{4, 4, -8, 1}, logits)
	require.Equal(t, int32(1), s.choose([]float32{5, 4, -4, 3}, []int32{0, 0}), "greedy, too")
}

func TestSamplingCheck(t *testing.T) {
	require.NoError(t, Sampling{}.Check())
	require.NoError(t, Sampling{Temperature: 1, TopK: 3, TopP: 1, MinP: 1, RepetitionPenalty: 1.1, RepetitionLastN: 4}.Check())
	for _, bad := range []Sampling{
		{Temperature: -1}, {Temperature: math.NaN()}, {Temperature: math.Inf(1)}, {TopK: -1}, {TopP: 1.1}, {TopP: math.NaN()},
		{MinP: -0.1}, {MinP: math.NaN()}, {RepetitionPenalty: -1}, {RepetitionPenalty: math.NaN()}, {RepetitionLastN: -1},
	} {
		require.Error(t, bad.Check(), "%+v", bad)
	}
}

func BenchmarkChoose(b *testing.B) {
	logits, rng := make([]float32, 151936), rand.New(rand.NewPCG(1, 1))
	for i := range logits {
		logits[i] = float32(2 * rng.NormFloat64())
	}
	for name, o := range map[string]Sampling{"greedy": {}, "temperature": {Temperature: 0.7}, "qwen": {Temperature: 0.7, TopK: 20, TopP: 0.8, RepetitionPenalty: 1.05}, "top-p": {Temperature: 1, TopP: 0.95}} {
		b.Run(name, func(b *testing.B) {
			s, work := newSampler(len(logits), o), slices.Clone(logits)
			for b.Loop() {
				copy(work, logits)
				s.choose(work, []int32{1, 2, 3})
			}
			b.ReportAllocs()
		})
	}
}
