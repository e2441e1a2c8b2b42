package train

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
)

// The goldens of ../testdata/llama were made with PyTorch, transformers, PEFT
// and bitsandbytes; ../testdata/README.md tells how.
const goldens = "../testdata/llama"

var codecs = tensor.NewCodecs(append(floats.Codecs(), nf4.Codecs()...)...)

// golden is one tiny model with its micro-batches.
type golden struct {
	dir     string
	base    Base
	batches []*model.Batch
	list    []data.Example
}

func openGolden(t *testing.T, name string, weights string) *golden {
	t.Helper()
	g := &golden{dir: filepath.Join(goldens, name)}
	d, err := hf.Open(filepath.Join(g.dir, weights))
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	a, err := arch.ParseConfig(d.Config())
	require.NoError(t, err)
	src, err := bnb.View(d, tensor.Invalid)
	require.NoError(t, err)
	g.base = Base{Arch: a, Source: src, Codecs: codecs}

	var batch struct {
		MicroBatches [][]struct {
			Tokens   []int32
			LossFrom int `json:"loss_from"`
		} `json:"micro_batches"`
	}
	readJSON(t, filepath.Join(g.dir, "batch.json"), &batch)
	for _, micro := range batch.MicroBatches {
		b := &model.Batch{}
		for _, s := range micro {
			b.Add(s.Tokens, s.LossFrom)
			g.list = append(g.list, lossFrom(s.Tokens, s.LossFrom))
		}
		g.batches = append(g.batches, b)
	}
	return g
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, v))
}

func openTensors(t *testing.T, path string) *safetensors.File {
	t.Helper()
	f, err := safetensors.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// trainable is what a golden trains: everything, or an adapter of PEFT's with
// its B not zero.
func (g *golden) trainable(t *testing.T, adapter string) (model.Trainable, []*optim.Param) {
	t.Helper()
	c := DefaultConfig()
	if adapter == "" {
		c.FineTuneType = "full"
		tr, params, err := NewTrainable(g.base.Arch, g.base.Source, g.base.Codecs, &c)
		require.NoError(t, err)
		return tr, filled(t, params)
	}
	ad, err := peft.Open(filepath.Join(g.dir, "adapter_"+adapter))
	require.NoError(t, err)
	t.Cleanup(func() { ad.Close() })
	c.Rank, c.Alpha, c.UseRSLoRA, c.TargetModules = int(ad.Config.R), ad.Config.LoraAlpha, ad.Config.UseRSLoRA, ad.Config.TargetModules.Names
	tr, params, err := NewTrainable(g.base.Arch, g.base.Source, g.base.Codecs, &c)
	require.NoError(t, err)
	require.NoError(t, optim.LoadValues(filled(t, params), ad), "PEFT's names are ours")
	return tr, params
}

func filled(t *testing.T, params []*optim.Param) []*optim.Param {
	for _, p := range params {
		require.NoError(t, p.Fill())
	}
	return params
}

// lossGolden is one entry of expect.json.
type lossGolden struct {
	LossSum      float64 `json:"loss_sum"`
	LabelTokens  int     `json:"label_tokens"`
	LossMean     float64 `json:"loss_mean_f64"`
	GradError    float64 `json:"grad_error"`
	MicroBatches []struct {
		LossSum     float64 `json:"loss_sum"`
		LabelTokens int     `json:"label_tokens"`
	} `json:"micro_batches"`
}

func TestGradientsAgreeWithPyTorch(t *testing.T) {
	for _, c := range []struct{ model, weights, adapter, expect, key string }{
		{"gqa", ".", "", "expect.json", "full"},
		{"gqa", ".", "r3", "expect.json", "r3"},
		{"gqa", ".", "r1_rslora", "expect.json", "r1_rslora"},
		{"gqa", "nf4", "r3", "nf4/expect.json", "r3"},
		{"mha_tied", ".", "", "expect.json", "full"},
		{"mha_tied", ".", "r3", "expect.json", "r3"},
		{"bias_llama3", ".", "", "expect.json", "full"},
		{"bias_llama3", ".", "r3", "expect.json", "r3"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.model, c.weights, c.key), func(t *testing.T) {
			g := openGolden(t, c.model, c.weights)
			var all map[string]json.RawMessage
			readJSON(t, filepath.Join(g.dir, c.expect), &all)
			var want lossGolden
			require.NoError(t, json.Unmarshal(all[c.key], &want))

			tr, params := g.trainable(t, c.adapter)
			e, err := engine.New(g.base.Source, codecs, g.base.Arch, tr, engine.Options{Choices: engine.Choices{Slots: 2}, Positions: 128})
			require.NoError(t, err)
			defer e.Close()
			labels := 0
			for _, b := range g.batches {
				labels += b.NumLabels()
			}
			require.Equal(t, want.LabelTokens, labels)
			sums, err := e.Grad(context.Background(), g.batches, nil, 1/float32(labels))
			require.NoError(t, err)
			for k, m := range want.MicroBatches {
				require.Equal(t, m.LabelTokens, g.batches[k].NumLabels())
				require.InEpsilon(t, m.LossSum, sums[k], 2e-6)
			}
			require.InEpsilon(t, want.LossMean, (sums[0]+sums[1])/float64(labels), 1e-6)

			grads := openTensors(t, filepath.Join(g.dir, filepath.Dir(c.expect), "grads_"+c.key+".safetensors"))
			var top, worst float64
			n := 0
			for range grads.All() {
				n++
			}
			require.Equal(t, n, len(params), "everything that PyTorch trains is trained here")
			for _, p := range params {
				_, golden, err := codecs.ReadAll(grads, goldenName(grads, p.Name))
				require.NoError(t, err)
				require.Len(t, p.Grad, len(golden))
				for i, v := range golden {
					top = max(top, math.Abs(float64(v)))
					worst = max(worst, math.Abs(float64(v)-float64(p.Grad[i])))
				}
			}
			require.Less(t, worst/top, 10*max(want.GradError, 1e-7), "the largest difference, relative to the largest gradient")
		})
	}
}

// goldenName is a parameter's name in PyTorch's file: PEFT puts a prefix before
// those of adapters.
func goldenName(src tensor.Source, name string) string {
	if tensor.Has(src, name) {
		return name
	}
	return "base_model.model." + name
}

// fixed gives the same examples at every step.
type fixed []data.Example

func (f fixed) Len() int                            { return len(f) }
func (f fixed) Example(i int) (data.Example, error) { return f[i], nil }

// discard is an Output that keeps records only.
type discard struct{ records []Record }

func (d *discard) Log(r Record) error      { d.records = append(d.records, r); return nil }
func (d *discard) Save(c Checkpoint) error { return nil }

func TestRunsAgreeWithPyTorch(t *testing.T) {
	for _, c := range []struct{ model, run, adapter string }{
		{"gqa", "r3_cosine", "r3"}, {"gqa", "r3_linear", "r3"}, {"gqa", "r3_constant", "r3"}, {"gqa", "r3_clip2.2", "r3"},
		{"mha_tied", "full_norms_spared", ""},
	} {
		t.Run(c.run, func(t *testing.T) {
			g := openGolden(t, c.model, ".")
			var runs map[string]struct {
				Schedule    string
				WarmupSteps int `json:"warmup_steps"`
				Steps       int
				MaxGradNorm float64 `json:"max_grad_norm"`
				LR          float64
				WeightDecay float64 `json:"weight_decay"`
				Log         []struct {
					Loss     float64
					GradNorm float64 `json:"grad_norm"`
					LR       float64
				}
			}
			readJSON(t, filepath.Join(g.dir, "train.json"), &runs)
			want := runs[c.run]
			require.NotEmpty(t, want.Log)

			cfg := DefaultConfig()
			cfg.Iters, cfg.BatchSize, cfg.MaxSeqLength = want.Steps, len(g.list), 128
			cfg.LearningRate, cfg.LRSchedulerType, cfg.WarmupSteps = want.LR, want.Schedule, want.WarmupSteps
			cfg.MaxGradNorm, cfg.WeightDecay = want.MaxGradNorm, want.WeightDecay
			if c.adapter == "" {
				cfg.FineTuneType = "full"
			} else {
				cfg.Rank, cfg.Alpha = 3, 7
			}
			out := &discard{}
			r, err := New(g.base, cfg, fixed(g.list), nil, &Plan{Choices: engine.Choices{Slots: 2}}, out)
			require.NoError(t, err)
			defer r.Close()
			if c.adapter != "" {
				_, start := g.trainable(t, c.adapter)
				require.NoError(t, r.fill())
				require.NoError(t, optim.LoadValues(r.Params(), optim.Values(start)))
			}
			_, err = r.Train(context.Background())
			require.NoError(t, err)
			require.Len(t, out.records, len(want.Log))
			for i, w := range want.Log {
				require.InEpsilon(t, w.Loss, out.records[i].Loss, 5e-6, "step %d", i+1)
				require.InEpsilon(t, w.GradNorm, out.records[i].GradNorm, 1e-5, "step %d", i+1)
				require.InDelta(t, w.LR, out.records[i].LearningRate, 1e-12, "step %d", i+1)
			}
			final := openTensors(t, filepath.Join(g.dir, "train_"+c.run+".safetensors"))
			for _, p := range r.Params() {
				_, golden, err := codecs.ReadAll(final, goldenName(final, p.Name))
				require.NoError(t, err)
				for i, v := range golden {
					require.InDelta(t, v, p.Data[i], 1e-5, "%s element %d", p.Name, i)
				}
			}
		})
	}
}

func TestLogitsAgreeWithPyTorch(t *testing.T) {
	for _, c := range []struct{ model, weights, adapter string }{
		{"gqa", ".", ""}, {"gqa", ".", "r3"}, {"gqa", ".", "r1_rslora"}, {"gqa", "nf4", ""}, {"mha_tied", ".", "r3"}, {"bias_llama3", ".", "r3"},
	} {
		g := openGolden(t, c.model, c.weights)
		tr := model.Trainable{}
		key := "base"
		if c.adapter != "" {
			tr, _ = g.trainable(t, c.adapter)
			key = c.adapter
		}
		f := openTensors(t, filepath.Join(g.dir, c.weights, "logits.safetensors"))
		info, want, err := codecs.ReadAll(f, key)
		require.NoError(t, err)
		vocab := int(info.Shape.Cols())
		// The loss of predicting a token after a prefix gives its log
		// probability, so every logit is seen up to a constant.
		e, err := engine.New(g.base.Source, codecs, g.base.Arch, tr, engine.Options{Choices: engine.Choices{Slots: 2}, Positions: 128})
		require.NoError(t, err)
		defer e.Close()
		prefix := g.list[0].Tokens
		for at := range int(info.Shape.Rows()) {
			var lse float64
			row := want[at*vocab : (at+1)*vocab]
			for _, v := range row {
				lse += math.Exp(float64(v))
			}
			var batches []*model.Batch
			for token := range vocab {
				b := &model.Batch{}
				b.Add(append(append([]int32(nil), prefix[:at+1]...), int32(token)), at+1)
				batches = append(batches, b)
			}
			got, err := e.Loss(context.Background(), batches)
			require.NoError(t, err)
			for token, v := range row {
				require.InDelta(t, math.Log(lse)-float64(v), got[token], 2e-5, "%s %s: position %d, token %d", c.model, key, at, token)
			}
		}
	}
}
