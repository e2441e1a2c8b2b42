package train

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/model"
)

const trl = "../testdata/trl"

// chats opens the chats that TRL's runs were made on, with the small Qwen 2's tokenizer.
func chats(t *testing.T, packing bool) *data.Dataset {
	t.Helper()
	v, err := vocab.OpenDir("../testdata/families/qwen2", vocab.Options{Size: 512})
	require.NoError(t, err)
	tok, err := tokenizer.New(v)
	require.NoError(t, err)
	source, err := os.ReadFile(filepath.Join(trl, "qwen2_5_training.jinja"))
	require.NoError(t, err)
	template, err := chat.Parse(string(source))
	require.NoError(t, err)
	s, err := data.Open(filepath.Join(trl, "short.jsonl"), data.Options{Tokenizer: tok, MaxSeqLength: 256, Template: template, Packing: packing})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s.Train
}

func examplesOf(t *testing.T, d *data.Dataset) (list []data.Example) {
	t.Helper()
	for i := range d.Len() {
		e, err := d.Example(i)
		require.NoError(t, err)
		list = append(list, e)
	}
	return list
}

// A run over chats has the losses of TRL's, packed and not: from the file to the step.
func TestLossCurvesAgreeWithTRL(t *testing.T) {
	var goldens struct {
		Curves map[string]struct {
			Examples int
			Losses   []float64
		}
	}
	readJSON(t, filepath.Join(trl, "goldens.json"), &goldens)
	base := openBase(t, "../testdata/families/qwen2")
	for name, packing := range map[string]bool{"unpacked": false, "packed": true} {
		t.Run(name, func(t *testing.T) {
			want := goldens.Curves[name]
			require.Len(t, want.Losses, 30)
			d := chats(t, packing)
			require.Equal(t, want.Examples, d.Len())
			cfg := DefaultConfig()
			cfg.Iters, cfg.BatchSize, cfg.MaxSeqLength, cfg.Rank, cfg.Alpha = 30, 2, 256, 4, 8
			cfg.LearningRate, cfg.WarmupSteps = 1e-2, 3
			out := &discard{}
			r, err := New(base, cfg, inOrder(examplesOf(t, d), cfg), nil, &Plan{Choices: engine.Choices{Slots: 2}}, out)
			require.NoError(t, err)
			defer r.Close()
			for _, p := range r.Params() {
				if strings.HasSuffix(p.Name, ".lora_A.weight") {
					p.Init = func(dst []float32) error { startValues(p, dst); return nil }
				}
			}
			_, err = r.Train(context.Background())
			require.NoError(t, err)
			worst := 0.0
			for i, got := range out.records {
				worst = max(worst, math.Abs(got.Loss-want.Losses[i]))
			}
			t.Logf("losses within %.1e", worst)
			require.Less(t, worst, 1e-3)
		})
	}
}

// Packed documents have the losses and gradients that they have apart.
func TestPackingChangesNothing(t *testing.T) {
	base := openBase(t, "../testdata/families/qwen2")
	losses, grads := map[bool]float64{}, map[bool][][]float32{}
	for _, packing := range []bool{false, true} {
		d := chats(t, packing)
		cfg := DefaultConfig()
		cfg.Iters, cfg.BatchSize, cfg.MaxSeqLength, cfg.Rank = 1, d.Len(), 256, 4
		r, err := New(base, cfg, d, nil, &Plan{Choices: engine.Choices{Slots: 2}}, &discard{})
		require.NoError(t, err)
		defer r.Close()
		require.NoError(t, r.fill())
		b := &model.Batch{}
		for _, e := range examplesOf(t, d) {
			b.AddDocuments(e.Tokens, e.Loss, e.Ends)
		}
		r.pages.Begin()
		sums, err := r.engine.Grad(context.Background(), []*model.Batch{b}, func(int) uint64 { return 0 }, 1/float32(b.NumLabels()))
		require.NoError(t, err)
		losses[packing] = sums[0]
		for _, p := range r.Params() {
			grads[packing] = append(grads[packing], append([]float32(nil), p.Grad...))
		}
	}
	require.InEpsilon(t, losses[false], losses[true], 1e-6)
	for i, want := range grads[false] {
		for j := range want {
			require.InDelta(t, want[j], grads[true][i][j], 1e-6)
		}
	}
}
