package model

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/train/stream"
)

// trainable lists the families that can be trained: all.
func trainable() (out []string) {
	for _, f := range arch.Families() {
		out = append(out, f.Name)
	}
	return out
}

// kinds is what can be trained of a model.
var kinds = []struct {
	name  string
	setup func(t *testing.T, s *setup)
}{
	{"full", func(t *testing.T, s *setup) { s.full(t) }},
	{"lora", func(t *testing.T, s *setup) { s.adapt(t, 2, 0.7, s.arch.LinearModules()...) }},
	{"lora with dropout", func(t *testing.T, s *setup) {
		s.adapt(t, 17, 0.7, s.arch.LinearModules()...)
		s.dropout = true
		for _, a := range s.train.Adapters {
			a.Dropout = 0.3
		}
	}},
}

// TestKeptOrComputedAgain compares every gradient where the inside of all blocks, of
// some or of none is kept, and scratch memory with what was predicted.
func TestKeptOrComputedAgain(t *testing.T) {
	for _, family := range trainable() {
		for _, kind := range kinds {
			t.Run(family+"/"+kind.name, func(t *testing.T) {
				s := setupOf(t, tensortest.TinyModel(t, family, func(c *arch.Config) { c.WindowPattern = 2 }))
				kind.setup(t, s)
				want, loss := s.grads(t, 2)
				s.see = func(m *Model, layer, tokens int, back, kept bool) {
					predicted := ForwardFloats(s.arch, m.Adapted(), layer, tokens, kept)
					if back {
						predicted = BackwardFloats(s.arch, m.Adapted(), layer, tokens, kept)
					}
					if s.arch.NumExperts > 0 && m.scr.peak < predicted {
						return // an expert does not get every token
					}
					require.Equal(t, predicted, m.scr.peak, "block %d, %d tokens, back %v, kept %v", layer, tokens, back, kept)
				}
				for name, keep := range map[string]func(l int) bool{
					"none": nil,
					"some": func(l int) bool { return l == 1 },
					"all":  func(int) bool { return true },
				} {
					s.keep = keep
					got, gotLoss := s.grads(t, 2)
					require.Equal(t, loss, gotLoss, name)
					require.Equal(t, want, got, name)
				}
			})
		}
	}
}

// A mixture of experts takes no more than if all tokens had gone through one expert.
func TestScratchOfMixtures(t *testing.T) {
	for _, family := range []string{"mixtral", "qwen2moe", "qwen3moe"} {
		s := setupOf(t, tensortest.TinyModel(t, family, nil))
		s.adapt(t, 2, 0.7, s.arch.LinearModules()...)
		st, err := stream.New(s.src, codecs, s.arch, stream.Options{})
		require.NoError(t, err)
		defer st.Close()
		m := New(s.arch, s.train, 64)
		s.final(t, m, st)
		most := 0
		for l := range int(s.arch.NumHiddenLayers) {
			most = max(most, ForwardFloats(s.arch, m.Adapted(), l, len(s.micro[1][0].tokens)+len(s.micro[1][2].tokens)-2, false))
		}
		require.LessOrEqual(t, m.scr.peak, most, family)
	}
}
