package model

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/stream"
)

// finalOf runs a setup up to its head.
func finalOf(t *testing.T, s *setup) (Final, []*Batch) {
	st, err := stream.New(s.src, codecs, s.arch, stream.Options{})
	require.NoError(t, err)
	t.Cleanup(st.Close)
	m := New(s.arch, s.train, 64)
	if s.logits > 0 {
		m.logitFloats = s.logits
	}
	xs, batches := s.final(t, m, st)
	return Final{m, xs, st}, batches
}

// probabilities are those of logits, in the plainest way.
func probabilities(logits []float64) []float64 {
	var sum float64
	for _, l := range logits {
		sum += math.Exp(l)
	}
	out := make([]float64, len(logits))
	for i, l := range logits {
		out[i] = math.Exp(l) / sum
	}
	return out
}

// Comparisons are those of two models written apart, in float64, however many
// logits exist at a time.
func TestCompare(t *testing.T) {
	a := tensortest.TinyModel(t, "gemma2", nil) // which bounds its logits
	own, base := setupOf(t, a), setupOf(t, a)
	base.src = tensortest.NewModel(t, a, 4)
	var want []Comparison
	rOwn, rBase := own.reference(t), base.reference(t)
	for _, list := range own.micro {
		for _, s := range list {
			inputs := s.tokens[:len(s.tokens)-1]
			all, allBase := rOwn.logits(inputs), rBase.logits(inputs)
			for i := range inputs {
				if i+1 < s.from {
					continue
				}
				p, q := probabilities(all[i]), probabilities(allBase[i])
				c := Comparison{Loss: -math.Log(p[s.tokens[i+1]]), Base: -math.Log(q[s.tokens[i+1]])}
				for j := range p {
					c.KL += q[j] * math.Log(q[j]/p[j])
				}
				c.SameTop = slices.Index(p, slices.Max(p)) == slices.Index(q, slices.Max(q))
				want = append(want, c)
			}
		}
	}
	require.NotEmpty(t, want)
	for _, most := range []int{0, 1, 100, 300} {
		own.logits = most
		f, batches := finalOf(t, own)
		g, _ := finalOf(t, base)
		got, err := Compare(f, g, batches)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i, w := range want {
			require.InDelta(t, w.Loss, got[i].Loss, 1e-5)
			require.InDelta(t, w.Base, got[i].Base, 1e-5)
			require.InDelta(t, w.KL, got[i].KL, 1e-5)
			require.Equal(t, w.SameTop, got[i].SameTop)
		}
	}
}

func TestCompareWithItself(t *testing.T) {
	s := newSetup(t, nil)
	f, batches := finalOf(t, s)
	g, _ := finalOf(t, s)
	got, err := Compare(f, g, batches)
	require.NoError(t, err)
	require.NotEmpty(t, got)
	for _, c := range got {
		require.Zero(t, c.KL)
		require.True(t, c.SameTop)
		require.Equal(t, c.Loss, c.Base)
	}

	f.Xs[0][0] = float32(math.NaN())
	_, err = Compare(f, g, batches)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "not all finite")
}

func TestCompareWithAnotherVocabulary(t *testing.T) {
	f, batches := finalOf(t, newSetup(t, nil))
	other, _ := finalOf(t, newSetup(t, func(c *arch.Config) { c.VocabSize++ }))
	require.NotEqual(t, f.Vocab(), other.Vocab())
	_, err := Compare(f, other, batches)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}
