package train

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/optim"
)

// tiny is a small model with random examples of different lengths.
func tiny(t *testing.T) (Base, fixed) {
	a := tensortest.TinyLlama(t, nil)
	rng := rand.New(rand.NewPCG(9, 9))
	var list fixed
	for range 13 {
		tokens := make([]int32, 2+rng.IntN(9))
		for i := range tokens {
			tokens[i] = int32(rng.IntN(int(a.VocabSize)))
		}
		list = append(list, lossFrom(tokens, rng.IntN(len(tokens))))
	}
	return Base{Arch: a, Source: tensortest.NewModel(t, a, 1), Codecs: codecs}, list
}

func tinyConfig() Config {
	c := DefaultConfig()
	c.Iters, c.BatchSize, c.GradAccumulationSteps, c.MaxSeqLength, c.Rank, c.Alpha = 9, 3, 2, 16, 3, 5
	c.LearningRate, c.WarmupSteps, c.SaveEvery, c.StepsPerEval, c.Dropout = 1e-2, 2, 4, 3, 0.2
	return c
}

// kept is an Output that keeps everything in memory, as a copy.
type kept struct {
	records []Record
	saves   map[int]Checkpoint
	onLog   func(Record)
	failAt  int
}

var errFull = errors.New("disk full")

func (k *kept) Log(r Record) error {
	timeless(&r)
	k.records = append(k.records, r)
	if k.onLog != nil {
		k.onLog(r)
	}
	return nil
}

func (k *kept) Save(c Checkpoint) error {
	if k.failAt > 0 && c.State.Step >= k.failAt {
		return errFull
	}
	if k.saves == nil {
		k.saves = make(map[int]Checkpoint)
	}
	c.Trained, c.Optimizer, c.Log = snapshot(c.Trained), snapshot(c.Optimizer), slices.Clone(c.Log)
	for i := range c.Log {
		timeless(&c.Log[i])
	}
	k.saves[c.State.Step] = c
	return nil
}

// timeless clears what is of the machine and not of the run.
func timeless(r *Record) {
	r.TokensPerSecond, r.Elapsed, r.BytesRead, r.BytesWritten, r.DiskWait = 0, 0, 0, 0, 0
}

func snapshot(src tensor.Source) tensor.Source {
	var entries []tensor.Entry
	for info := range src.All() {
		r, err := src.Raw(info.Name)
		if err != nil {
			panic(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			panic(err)
		}
		entries = append(entries, tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) { return bytes.NewReader(b), nil }})
	}
	out, err := tensor.NewTable(nil, entries)
	if err != nil {
		panic(err)
	}
	return out
}

func bits(t *testing.T, src tensor.Source) map[string][]byte {
	out := make(map[string][]byte)
	for info := range src.All() {
		out[info.Name] = tensortest.Bytes(t, src, info.Name)
	}
	require.NotEmpty(t, out)
	return out
}

func runTiny(t *testing.T, cfg Config, slots int, from *Checkpoint) *kept {
	t.Helper()
	return runChosen(t, cfg, engine.Choices{Slots: slots}, from)
}

func runChosen(t *testing.T, cfg Config, choices engine.Choices, from *Checkpoint) *kept {
	t.Helper()
	base, list := tiny(t)
	out := &kept{}
	r, err := New(base, cfg, list, list[:4], &Plan{Choices: choices}, out)
	require.NoError(t, err)
	defer r.Close()
	if from != nil {
		require.NoError(t, r.Resume(*from))
	}
	_, err = r.Train(context.Background())
	require.NoError(t, err)
	return out
}

func TestResumedIsUninterrupted(t *testing.T) {
	for _, kind := range FineTuneTypes() {
		t.Run(kind, func(t *testing.T) {
			cfg := tinyConfig()
			cfg.FineTuneType = kind
			whole := runTiny(t, cfg, 2, nil)
			require.Len(t, whole.saves, 3, "every 4 steps and at the end")
			require.Equal(t, 9, whole.saves[9].State.Step)
			for _, at := range []int{4, 8} {
				c := whole.saves[at]
				again := runTiny(t, cfg, 2, &c)
				require.Equal(t, bits(t, whole.saves[9].Trained), bits(t, again.saves[9].Trained), "resumed at step %d", at)
				require.Equal(t, bits(t, whole.saves[9].Optimizer), bits(t, again.saves[9].Optimizer))
				require.Equal(t, whole.saves[9].State, again.saves[9].State)
				require.Equal(t, whole.records[at+1:], again.records, "the log goes on where it stood")
			}
		})
	}
}

// TestPagedIsResident has all optimizers, with what is trained in memory or on disk, go
// on from a checkpoint of the other.
func TestPagedIsResident(t *testing.T) {
	for _, name := range optim.Names() {
		for _, kind := range FineTuneTypes() {
			t.Run(name+" "+kind, func(t *testing.T) {
				cfg := tinyConfig()
				cfg.FineTuneType, cfg.Optimizer, cfg.WeightDecay, cfg.Momentum, cfg.MaxGradNorm = kind, name, 0.1, 0.9, 0.5
				cfg.LoraPlusLRRatio, cfg.BF16StochasticRound = 4, name == "lion"
				cfg.LearningRate = 1e-3
				paging := engine.Choices{Slots: 2, PagedParams: true, Scratch: t.TempDir()}
				resident, paged := runTiny(t, cfg, 2, nil), runChosen(t, cfg, paging, nil)
				require.Equal(t, resident.records, paged.records)
				for _, at := range []int{4, 9} {
					require.Equal(t, bits(t, resident.saves[at].Trained), bits(t, paged.saves[at].Trained))
					require.Equal(t, bits(t, resident.saves[at].Optimizer), bits(t, paged.saves[at].Optimizer))
				}
				a, b := resident.saves[4], paged.saves[4]
				for _, again := range []*kept{runTiny(t, cfg, 2, &b), runChosen(t, cfg, paging, &a)} {
					require.Equal(t, resident.records[5:], again.records)
					require.Equal(t, resident.records, again.saves[9].Log, "a checkpoint has the log from the beginning")
					require.Equal(t, bits(t, resident.saves[9].Trained), bits(t, again.saves[9].Trained))
					require.Equal(t, bits(t, resident.saves[9].Optimizer), bits(t, again.saves[9].Optimizer))
				}
			})
		}
	}
}

func TestLoraPlus(t *testing.T) {
	base, _ := tiny(t)
	cfg := tinyConfig()
	cfg.LoraPlusLRRatio, cfg.BF16StochasticRound = 16, true
	_, params, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
	require.NoError(t, err)
	params = append(params, &optim.Param{Name: "x.lora_magnitude_vector", Shape: tensor.Shape{3}}, &optim.Param{Name: "e.lora_embedding_A", Shape: tensor.Shape{2, 3}})
	cfg.prepare(params)
	require.Equal(t, 0.0, params[0].LRScale, "%s", params[0].Name)
	require.Equal(t, 16.0, params[1].LRScale, "%s", params[1].Name)
	require.Equal(t, 16.0, params[len(params)-2].LRScale)
	require.InEpsilon(t, 1e-6, params[len(params)-1].Rate(cfg.LearningRate), 1e-12)
	require.Equal(t, tensor.BF16, params[0].DType)
}

func TestRunDoesNotDependOnProcessorsOrSlots(t *testing.T) {
	old := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(old)
	want := runTiny(t, tinyConfig(), 2, nil)
	for _, procs := range []int{1, 2, 6} {
		for _, slots := range []int{2, 3} {
			runtime.GOMAXPROCS(procs)
			got := runTiny(t, tinyConfig(), slots, nil)
			require.Equal(t, want.records, got.records)
			require.Equal(t, bits(t, want.saves[9].Trained), bits(t, got.saves[9].Trained))
		}
	}
}

func TestSeedDecides(t *testing.T) {
	a := runTiny(t, tinyConfig(), 2, nil)
	cfg := tinyConfig()
	cfg.Seed = 1
	b := runTiny(t, cfg, 2, nil)
	require.NotEqual(t, a.records, b.records)
}

func TestRecords(t *testing.T) {
	out := runTiny(t, tinyConfig(), 2, nil)
	require.Len(t, out.records, 10)
	require.Equal(t, 0, out.records[0].Step)
	require.NotNil(t, out.records[0].EvalLoss, "the loss before training")
	for i, r := range out.records[1:] {
		require.Equal(t, i+1, r.Step)
		require.Equal(t, r.Step%3 == 0 || r.Step == 9, r.EvalLoss != nil, "step %d", r.Step)
		require.Greater(t, r.Loss, 0.0)
		require.Greater(t, r.GradNorm, 0.0)
	}
	last := out.records[9]
	require.InDelta(t, 9*6/13.0, last.Epoch, 1e-9)
	require.Less(t, *last.EvalLoss, *out.records[0].EvalLoss, "it has learnt something")
	s := out.saves[9].State
	require.Equal(t, int64(54), s.Examples)
	require.Equal(t, last.NumTokens, s.NumTokens)
	require.Equal(t, *last.EvalLoss, *s.EvalLoss)
	require.Equal(t, *out.records[0].EvalLoss, *s.FirstEvalLoss)
	require.Equal(t, out.records[1].Loss, s.FirstLoss)
}

func TestEpochs(t *testing.T) {
	cfg := tinyConfig()
	cfg.Iters, cfg.Epochs = 0, 2
	out := runTiny(t, cfg, 2, nil)
	require.Len(t, out.records, 1+5, "26 examples, 6 a step, the last step short")
	require.Equal(t, int64(26), out.saves[5].State.Examples)
	require.InDelta(t, 2, out.records[5].Epoch, 1e-12)

	resolved := cfg.Resolved(13)
	require.Equal(t, 5, resolved.Iters)
	cfg.WarmupSteps, cfg.Epochs = -1, 100
	require.Equal(t, 7, cfg.Resolved(13).WarmupSteps, "3 % of 217 steps, rounded up")

	// Each epoch takes every example once, in an order of its own.
	o := order{seed: 3, n: 13}
	var first, second []int
	at := func(pos int64) int {
		epoch, i := o.at(pos)
		require.Equal(t, pos/13, epoch)
		return i
	}
	for i := range int64(13) {
		first = append(first, at(i))
	}
	for i := range int64(13) {
		second = append(second, at(13+i))
	}
	require.ElementsMatch(t, first, second)
	require.NotEqual(t, first, second)
	require.Equal(t, first[5], at(5), "going back finds the same")
}

func TestInterrupt(t *testing.T) {
	base, list := tiny(t)
	ctx, cancel := context.WithCancel(context.Background())
	out := &kept{onLog: func(r Record) {
		if r.Step == 5 {
			cancel()
		}
	}}
	r, err := New(base, tinyConfig(), list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, out)
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Train(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Contains(t, out.saves, 5, "the step that was under way is finished and saved")
	require.NotContains(t, out.saves, 6)
	c := out.saves[5]

	whole, again := &kept{}, &kept{}
	for _, x := range []struct {
		out  *kept
		from *Checkpoint
	}{{whole, nil}, {again, &c}} {
		r, err := New(base, tinyConfig(), list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, x.out)
		require.NoError(t, err)
		if x.from != nil {
			require.NoError(t, r.Resume(*x.from))
		}
		_, err = r.Train(context.Background())
		require.NoError(t, err)
		r.Close()
	}
	require.Equal(t, bits(t, whole.saves[9].Trained), bits(t, again.saves[9].Trained))
}

func TestResumeRefuses(t *testing.T) {
	saved := runTiny(t, tinyConfig(), 2, nil).saves[4]
	base, list := tiny(t)
	for name, c := range map[string]struct {
		change func(c *Config)
		list   fixed
		says   string
	}{
		"rank":    {func(c *Config) { c.Rank = 4 }, list, "--rank is 4, but the run to be resumed had 3"},
		"seed":    {func(c *Config) { c.Seed = 7 }, list, "--seed"},
		"targets": {func(c *Config) { c.TargetModules = []string{"q_proj"} }, list, "--target-modules"},
		"data":    {func(c *Config) {}, list[:9], "9 examples, but had 13"},
		"done":    {func(c *Config) { c.Iters = 3 }, list, "has done 4 steps, and 3 are asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tinyConfig()
			c.change(&cfg)
			r, err := New(base, cfg, c.list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, &kept{})
			require.NoError(t, err)
			defer r.Close()
			err = r.Resume(saved)
			require.ErrorContains(t, err, c.says)
			require.NotEmpty(t, hint.Of(err))
		})
	}
	cfg := tinyConfig()
	cfg.Iters, cfg.LearningRate = 12, 1e-3
	r, err := New(base, cfg, list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, &kept{})
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, r.Resume(saved), "going on for longer is another run's end, not another run")

	strange := saved
	strange.Optimizer = saved.Trained
	require.ErrorIs(t, r.Resume(strange), tensor.ErrNotFound)
}

func TestStopsThatLoseNothing(t *testing.T) {
	base, list := tiny(t)
	run := func(cfg Config, base Base, list Examples, out Output) error {
		r, err := New(base, cfg, list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, out)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = r.Train(context.Background())
		return err
	}
	t.Run("NaN", func(t *testing.T) {
		w := tensortest.Floats(t, base.Source, "lm_head.weight")
		w[3] = float32(math.NaN())
		broken := base
		broken.Source = replaced(t, base.Source, tensortest.Float32("lm_head.weight", tensor.Shape{37, 18}, w))
		err := run(tinyConfig(), broken, list, &kept{})
		require.ErrorContains(t, err, "step 1: the loss is NaN")
		require.Contains(t, hint.Of(err), "--learning-rate")
		require.NotContains(t, hint.Of(err), "checkpoint", "there is none")
	})
	t.Run("a gradient that is not finite", func(t *testing.T) {
		// Only what goes back meets the weight: the value's gradient is that of the
		// attention's result times it.
		for _, paged := range []bool{false, true} {
			r, err := New(base, tinyConfig(), list, nil, &Plan{Choices: engine.Choices{Slots: 2, PagedParams: paged, Scratch: t.TempDir()}}, &kept{})
			require.NoError(t, err)
			defer r.Close()
			r.pages.Params()[9].Init = func(dst []float32) error {
				for i := range dst {
					dst[i] = 3e38
				}
				return nil
			}
			_, err = r.Train(context.Background())
			require.ErrorIs(t, err, optim.ErrNotFinite)
			require.NotContains(t, hint.Of(err), "checkpoint")
			r.saved = 3
			require.Contains(t, hint.Of(r.diverged(err)), "last checkpoint is still good, that of step 3")
		}
	})
	t.Run("an update that is not finite", func(t *testing.T) {
		cfg := tinyConfig()
		cfg.LearningRate, cfg.WarmupSteps, cfg.Optimizer, cfg.MaxGradNorm = 1e39, 0, "sgd", 0
		out := &kept{}
		err := run(cfg, base, list, out)
		require.ErrorIs(t, err, optim.ErrNotFinite)
		require.ErrorContains(t, err, "step 1: block 0: tensor \"model.layers.0.")
		require.ErrorContains(t, err, "after the update")
		require.Empty(t, out.saves)
	})
	t.Run("diverging", func(t *testing.T) {
		cfg := tinyConfig()
		cfg.LearningRate, cfg.MaxGradNorm, cfg.Iters = 1e30, 0, 50
		err := run(cfg, base, list, &kept{})
		require.Error(t, err)
		require.Contains(t, hint.Of(err), "--learning-rate")
	})
	t.Run("disk full", func(t *testing.T) {
		out := &kept{failAt: 8}
		require.ErrorIs(t, run(tinyConfig(), base, list, out), errFull)
		require.Contains(t, out.saves, 4)
	})
	t.Run("nothing to train on", func(t *testing.T) {
		err := run(tinyConfig(), base, fixed{lossFrom([]int32{1, 2}, 2)}, &kept{})
		require.ErrorIs(t, err, tensor.ErrMalformed)
		require.ErrorContains(t, err, "token to be trained on")
	})
	t.Run("no examples", func(t *testing.T) {
		require.ErrorIs(t, run(tinyConfig(), base, fixed{}, &kept{}), tensor.ErrMalformed)
	})
	t.Run("a token that the model lacks", func(t *testing.T) {
		err := run(tinyConfig(), base, fixed{{Tokens: []int32{1, 99, 2}}}, &kept{})
		require.ErrorIs(t, err, tensor.ErrMalformed)
		require.ErrorContains(t, err, "token 99")
	})
	t.Run("an unreadable example", func(t *testing.T) {
		require.ErrorIs(t, run(tinyConfig(), base, unreadable{list}, &kept{}), errFull)
	})
	t.Run("full fine-tuning of a quantized base", func(t *testing.T) {
		cfg := tinyConfig()
		cfg.FineTuneType = "full"
		g := openGolden(t, "gqa", "nf4")
		err := run(cfg, g.base, list, &kept{})
		require.ErrorIs(t, err, tensor.ErrUnsupported)
		require.Contains(t, hint.Of(err), "lora")
	})
	t.Run("a target that the model lacks", func(t *testing.T) {
		cfg := tinyConfig()
		cfg.TargetModules = []string{"q_proj", "qkv_proj"}
		err := run(cfg, base, list, &kept{})
		require.ErrorContains(t, err, `"qkv_proj"`)
		require.Contains(t, hint.Of(err), "q_proj, k_proj")
	})
}

type unreadable struct{ fixed }

func (unreadable) Example(int) (data.Example, error) { return data.Example{}, errFull }

func replaced(t *testing.T, src tensor.Source, with tensortest.Tensor) tensor.Source {
	var entries []tensor.Entry
	for info := range src.All() {
		if info.Name == with.Info.Name {
			one := tensortest.NewSource(t, nil, with)
			entries = append(entries, tensor.Forward(one, with.Info, with.Info.Name))
			continue
		}
		entries = append(entries, tensor.Forward(src, info, info.Name))
	}
	out, err := tensor.NewTable(nil, entries)
	require.NoError(t, err)
	return out
}

func TestTargets(t *testing.T) {
	base, _ := tiny(t)
	for _, c := range []struct {
		targets []string
		n       int
	}{
		{[]string{"all-linear"}, 21}, {[]string{"q_proj", "down_proj"}, 6}, {[]string{"model.layers.1.self_attn.q_proj"}, 1}, {[]string{"mlp.up_proj"}, 3},
	} {
		cfg := tinyConfig()
		cfg.TargetModules = c.targets
		tr, params, err := NewTrainable(base.Arch, base.Source, codecs, &cfg)
		require.NoError(t, err)
		require.Len(t, tr.Adapters, c.n)
		require.Len(t, params, 2*c.n)
	}
}

func TestConfigValidate(t *testing.T) {
	ok := DefaultConfig()
	require.NoError(t, ok.Validate())
	for says, change := range map[string]func(c *Config){
		"--rank is 0":                    func(c *Config) { c.Rank = 0 },
		"--batch-size is -1":             func(c *Config) { c.BatchSize = -1 },
		"--grad-accumulation-steps is 0": func(c *Config) { c.GradAccumulationSteps = 0 },
		"--learning-rate is NaN":         func(c *Config) { c.LearningRate = math.NaN() },
		"--max-grad-norm is -1":          func(c *Config) { c.MaxGradNorm = -1 },
		"--alpha is +Inf":                func(c *Config) { c.Alpha = math.Inf(1) },
		"--fine-tune-type is \"ia3\"":    func(c *Config) { c.FineTuneType = "ia3" },
		"--iters is -1":                  func(c *Config) { c.Iters = -1 },
		"there is nothing to do":         func(c *Config) { c.Epochs = 0 },
		"--max-seq-length is 1":          func(c *Config) { c.MaxSeqLength = 1 },
		"--dropout is 1":                 func(c *Config) { c.Dropout = 1 },
		"no optimizer \"adam9\"":         func(c *Config) { c.Optimizer = "adam9" },
		"no schedule \"wsd\"":            func(c *Config) { c.LRSchedulerType = "wsd" },
	} {
		c := DefaultConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), says)
	}
	full := DefaultConfig()
	full.FineTuneType, full.Rank = "full", 0
	require.NoError(t, full.Validate(), "full fine-tuning has no rank")
}
