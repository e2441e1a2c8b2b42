package train

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/engine"
)

// blocks is the number of blocks of the model that the choices are about.
const blocks = 5

// written is a model of that many blocks in a directory, as it is or in NF4.
func written(t *testing.T, quantized bool) Base {
	t.Helper()
	a := tensortest.TinyLlama(t, func(c *arch.Config) { c.NumHiddenLayers = blocks })
	src := tensortest.NewModel(t, a, 3)
	dir := filepath.Join(t.TempDir(), "model")
	w, err := hf.Create(dir, hf.Options{Files: []hf.SideFile{{Name: hf.ConfigName, Data: []byte(`{"model_type": "llama"}`)}}})
	require.NoError(t, err)
	if quantized {
		p, _, err := bnb.Plan(src, codecs, nf4Options(a))
		require.NoError(t, err)
		require.NoError(t, pipeline.Run(context.Background(), p, src, w))
	} else {
		tensortest.Copy(t, src, w)
	}
	d, err := hf.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	view, err := bnb.View(d, tensor.Invalid)
	require.NoError(t, err)
	return Base{Arch: a, Source: view, Codecs: codecs}
}

// everyChoice lists what a plan may choose: of slots by themselves, and all else together.
func everyChoice(scratch string) []engine.Choices {
	var out []engine.Choices
	for _, slots := range []int{2, 3, blocks} {
		// One slot at least goes round, with one more that is read ahead.
		for _, pinned := range []int{0, slots - 2, slots} {
			if pinned == slots && slots < blocks || pinned == 0 && slots == 2 {
				continue
			}
			out = append(out, engine.Choices{Slots: slots, Pinned: pinned})
		}
	}
	for i, inside := range [][2]int{{0, 0}, {2, 0}, {blocks, 0}, {0, 3}, {0, blocks}, {1, 2}, {2, 3}} {
		for k, paged := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
			c := []engine.Choices{{Slots: 2}, {Slots: 4, Pinned: 2}}[(i+k)%2]
			c.Kept, c.Spilled, c.PagedBounds, c.PagedParams = inside[0], inside[1], paged[0], paged[1]
			out = append(out, c)
		}
	}
	for i := range out {
		out[i].Scratch = scratch
	}
	return out
}

// Whatever a plan chooses to keep in memory, to have on disk or to compute twice, and
// however many processors there are, a run ends with the same bits.
func TestRunsDoNotDependOnChoices(t *testing.T) {
	_, list := tiny(t)
	for _, c := range []struct {
		name      string
		kind      string
		quantized bool
	}{{"lora", "lora", false}, {"qlora", "lora", true}, {"qdora", "dora", true}, {"full", "full", false}} {
		t.Run(c.name, func(t *testing.T) {
			base := written(t, c.quantized)
			cfg := tinyConfig()
			cfg.FineTuneType, cfg.Iters, cfg.SaveEvery = c.kind, 10, 5
			run := func(choices engine.Choices, procs int) *kept {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				out := &kept{}
				r, err := New(base, cfg, list, list[:4], &Plan{Choices: choices}, out)
				require.NoError(t, err)
				defer r.Close()
				_, err = r.Train(context.Background())
				require.NoError(t, err)
				return out
			}
			want := run(engine.Choices{Slots: blocks}, 1)
			require.Len(t, want.records, 11)
			for i, choices := range everyChoice(t.TempDir()) {
				procs := []int{1, 2, 4}[i%3]
				t.Run(fmt.Sprintf("%d of %d slots pinned, %d kept, %d spilled, paged %t %t, %d processors",
					choices.Pinned, choices.Slots, choices.Kept, choices.Spilled, choices.PagedBounds, choices.PagedParams, procs), func(t *testing.T) {
					got := run(choices, procs)
					require.Equal(t, want.records, got.records)
					for _, step := range []int{5, 10} {
						require.Equal(t, bits(t, want.saves[step].Trained), bits(t, got.saves[step].Trained))
						require.Equal(t, bits(t, want.saves[step].Optimizer), bits(t, got.saves[step].Optimizer))
						require.Equal(t, want.saves[step].State, got.saves[step].State)
					}
				})
			}
		})
	}
}
