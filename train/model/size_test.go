package model

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
)

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
	for _, f := range arch.Families() {
		family := f.Name
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
					if s.arch.NumExperts > 0 {
						require.GreaterOrEqual(t, predicted, m.scr.peak)
						return
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

// TestScratchOfMixtures has every token go through the same experts, which takes the
// most that there can be, and then through those that their router chooses.
func TestScratchOfMixtures(t *testing.T) {
	for _, family := range []string{"mixtral", "qwen2moe", "qwen3moe"} {
		for _, kind := range kinds {
			t.Run(family+"/"+kind.name, func(t *testing.T) {
				s := setupOf(t, tensortest.TinyModel(t, family, nil))
				fair := s.src
				s.src = undecided(t, s.arch, fair)
				kind.setup(t, s)
				predicted := func(m *Model, layer, tokens int, back, kept bool) int {
					if back {
						return BackwardFloats(s.arch, m.Adapted(), layer, tokens, kept)
					}
					return ForwardFloats(s.arch, m.Adapted(), layer, tokens, kept)
				}
				s.see = func(m *Model, layer, tokens int, back, kept bool) {
					require.Equal(t, predicted(m, layer, tokens, back, kept), m.scr.peak, "block %d, %d tokens, back %v, kept %v", layer, tokens, back, kept)
				}
				keep := func(l int) bool { return l == 1 }
				s.keep = keep
				s.pass(t, 2)

				s = setupOf(t, s.arch)
				kind.setup(t, s)
				s.keep = keep
				s.see = func(m *Model, layer, tokens int, back, kept bool) {
					require.GreaterOrEqual(t, predicted(m, layer, tokens, back, kept), m.scr.peak)
				}
				s.pass(t, 2)
			})
		}
	}
}
