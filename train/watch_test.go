package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/optim"
)

// sampled has a run continue two prompts, with every token spelled as its number.
func sampled(cfg *Config) {
	cfg.SamplePrompts, cfg.SampleMaxTokens, cfg.SampleTemperature = []string{"a", "b"}, 5, 0.7
	cfg.Sampler = &Sampler{
		Prompts: [][]int32{{1, 2, 3}, {4}},
		Ends:    func(token int32) bool { return token == 0 },
		Decode:  func(_, tokens []int32) string { return fmt.Sprint(tokens) },
	}
}

// withoutSamples returns the records without what is made of the prompts.
func withoutSamples(list []Record) []Record {
	out := slices.Clone(list)
	for i := range out {
		out[i].Samples = nil
	}
	return out
}

// TestSamplesDisturbNothing trains with samples and without, with what is trained in
// memory and on disk: not a bit is another.
func TestSamplesDisturbNothing(t *testing.T) {
	for name, choices := range map[string]engine.Choices{"resident": {Slots: 2, Kept: 1}, "paged": {Slots: 2, PagedParams: true, PagedBounds: true, Scratch: t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			cfg := tinyConfig()
			off := runChosen(t, cfg, choices, nil)
			sampled(&cfg)
			cfg.SampleEvery = 2
			on := runChosen(t, cfg, choices, nil)
			require.Equal(t, bits(t, off.saves[9].Trained), bits(t, on.saves[9].Trained))
			require.Equal(t, bits(t, off.saves[9].Optimizer), bits(t, on.saves[9].Optimizer))
			require.Equal(t, off.records, withoutSamples(on.records))
			texts := make(map[string]bool)
			for _, r := range on.records {
				require.Equal(t, r.Step%2 == 0 || r.Step == 9, r.Samples != nil, "step %d", r.Step)
				for i, s := range r.Samples {
					require.Equal(t, cfg.SamplePrompts[i], s.Prompt)
					texts[s.Text] = true
				}
			}
			require.Greater(t, len(texts), 2, "they change as the model does")

			// And they are the same when the run is resumed.
			for _, at := range []int{4, 8} {
				c := on.saves[at]
				again := runChosen(t, cfg, choices, &c)
				require.Equal(t, on.records[at+1:], again.records)
				require.Equal(t, on.saves[9].State, again.saves[9].State)
			}
		})
	}
}

func TestSamplesFollowEvaluations(t *testing.T) {
	cfg := tinyConfig()
	sampled(&cfg)
	for _, r := range runTiny(t, cfg, 2, nil).records {
		require.Equal(t, r.EvalLoss != nil, r.Samples != nil, "step %d", r.Step)
	}
	// A token that ends a text is not in it.
	cfg.Sampler.Ends = func(int32) bool { return true }
	for _, r := range runTiny(t, cfg, 2, nil).records[:1] {
		require.Equal(t, []Sample{{"a", "[]"}, {"b", "[]"}}, r.Samples)
	}
}

func TestPromptTooLong(t *testing.T) {
	cfg := tinyConfig()
	sampled(&cfg)
	cfg.Sampler.Prompts[1] = make([]int32, cfg.MaxSeqLength+1)
	base, list := tiny(t)
	_, err := New(base, cfg, list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, &kept{})
	require.ErrorContains(t, err, "17 tokens")
}

// overfit is a run that learns its rows by heart, of which the validation data has none.
func overfit(t *testing.T, cfg *Config) (Base, fixed, fixed) {
	base, list := tiny(t)
	cfg.Iters, cfg.StepsPerEval, cfg.SaveEvery, cfg.LearningRate, cfg.Dropout, cfg.LRSchedulerType = 40, 2, 0, 3e-2, 0, "constant"
	return base, list[:4], list[8:]
}

func runOn(t *testing.T, base Base, cfg Config, train, valid fixed, from *Checkpoint) (*kept, State, string) {
	t.Helper()
	out := &kept{}
	r, err := New(base, cfg, train, valid, &Plan{Choices: engine.Choices{Slots: 2}}, out)
	require.NoError(t, err)
	defer r.Close()
	if from != nil {
		require.NoError(t, r.Resume(*from))
	}
	state, err := r.Train(context.Background())
	require.NoError(t, err)
	return out, state, r.Stopped()
}

// bestOf finds by hand what a run is to know of its evaluations.
func bestOf(records []Record) (step int, loss float64) {
	loss = math.Inf(1)
	for _, r := range records {
		if r.Step > 0 && r.EvalLoss != nil && *r.EvalLoss < loss {
			step, loss = r.Step, *r.EvalLoss
		}
	}
	return step, loss
}

func TestEarlyStopAndBest(t *testing.T) {
	cfg := tinyConfig()
	base, train, valid := overfit(t, &cfg)
	cfg.LoadBestModelAtEnd = true
	whole, state, reason := runOn(t, base, cfg, train, valid, nil)
	require.Empty(t, reason)
	step, loss := bestOf(whole.records)
	require.Less(t, step, 30, "the run must overfit for this test to say anything")
	require.Equal(t, step, state.BestStep)
	require.Equal(t, loss, *state.BestMetric)
	require.Contains(t, whole.saves, step, "a checkpoint of the best, though none was due")

	cfg.EarlyStoppingPatience = 3
	short, state, reason := runOn(t, base, cfg, train, valid, nil)
	require.Contains(t, reason, "in 3 evaluations in a row")
	require.Equal(t, step+6, state.Step, "three evaluations, two steps each, after the best")
	require.Equal(t, step, state.BestStep)
	require.Equal(t, whole.records[:len(short.records)], short.records)
	require.Contains(t, short.saves, state.Step, "the end is saved")

	// From each checkpoint on, a resumed run knows what the first one did, and ends
	// where it did, even if it had ended.
	for at, c := range short.saves {
		again, end, _ := runOn(t, base, cfg, train, valid, &c)
		require.Equal(t, state, end, "resumed at step %d", at)
		require.Len(t, again.records, len(short.records)-at-1)
		for i, r := range again.records {
			require.Equal(t, short.records[at+1+i], r)
		}
	}
	// With more patience it goes on.
	more, last := cfg, short.saves[state.Step]
	more.EarlyStoppingPatience = 4
	_, end, _ := runOn(t, base, more, train, valid, &last)
	require.Equal(t, step+8, end.Step)

	// What is not better by more than the threshold does not count, as in transformers,
	// but is the best all the same.
	cfg.EarlyStoppingThreshold = 1e9
	_, state, reason = runOn(t, base, cfg, train, valid, nil)
	require.Equal(t, 8, state.Step, "the first evaluation is better than none")
	require.Contains(t, reason, "lower by more than 1e+09")
	require.Equal(t, min(step, 8), state.BestStep)
}

func TestWatchRefuses(t *testing.T) {
	for want, set := range map[string]func(c *Config){
		"--early-stopping-patience is -1":    func(c *Config) { c.EarlyStoppingPatience = -1 },
		"--early-stopping-threshold is NaN":  func(c *Config) { c.EarlyStoppingThreshold = math.NaN() },
		"which is not given":                 func(c *Config) { c.EarlyStoppingThreshold = 1 },
		"--sample-max-tokens is 0":           func(c *Config) { c.SampleMaxTokens = 0 },
		"--sample-every without a prompt":    func(c *Config) { c.SampleEvery = 1 },
		"--steps-per-eval 0 has none":        func(c *Config) { c.LoadBestModelAtEnd, c.StepsPerEval = true, 0 },
		"--sample-temperature is -0.5, want": func(c *Config) { c.SampleTemperature = -0.5 },
	} {
		c := DefaultConfig()
		require.NoError(t, c.Validate())
		set(&c)
		require.ErrorContains(t, c.Validate(), want)
	}
	c := DefaultConfig()
	c.LoadBestModelAtEnd = true
	require.NoError(t, c.CheckData(true))
	require.ErrorContains(t, c.CheckData(false), "need validation data")
}

func TestSaveWhen(t *testing.T) {
	base, list := tiny(t)
	cfg := tinyConfig()
	out := &kept{}
	r, err := New(base, cfg, list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, out)
	require.NoError(t, err)
	defer r.Close()
	n := 0
	r.SaveWhen(func() bool { n++; return n == 2 })
	_, err = r.Train(context.Background())
	require.NoError(t, err)
	require.Contains(t, out.saves, 2)
	require.Len(t, out.saves, 4, "2, and 4, 8, 9 as ever")
}

// noted returns what the records warn of that has a text in it.
func noted(list []Record, text string) (steps []int) {
	for _, r := range list {
		for _, n := range r.Notes {
			if strings.Contains(n, text) {
				steps = append(steps, r.Step)
			}
		}
	}
	return steps
}

func TestWarnsOfOverfitting(t *testing.T) {
	cfg := tinyConfig()
	base, train, valid := overfit(t, &cfg)
	out, _, _ := runOn(t, base, cfg, train, valid, nil)
	steps := noted(out.records, "while the training loss falls")
	require.Len(t, steps, 1, "once")
	best, _ := bestOf(out.records)
	require.Greater(t, steps[0], best)

	// A run that learns is not warned of anything.
	quiet := runTiny(t, tinyConfig(), 2, nil)
	require.Empty(t, noted(quiet.records, ""))
}

// Steps that are too small for the type of the weights move nothing.
func TestWarnsOfStandstill(t *testing.T) {
	cfg := tinyConfig()
	cfg.FineTuneType, cfg.BF16StochasticRound, cfg.LearningRate, cfg.Optimizer, cfg.WarmupSteps, cfg.LRSchedulerType = "full", false, 1e-30, "sgd", 0, "constant"
	out := runTiny(t, cfg, 2, nil)
	require.Equal(t, []int{5}, noted(out.records, "has not changed in 5 steps"))
	require.Equal(t, []int{5}, noted(out.records, "lost in rounding"))
	require.Equal(t, 9, out.saves[9].State.Still)

	// A run that is resumed does not warn again.
	c := out.saves[8]
	require.Empty(t, noted(runTiny(t, cfg, 2, &c).records, ""))
	c = out.saves[4]
	require.Equal(t, []int{5}, noted(runTiny(t, cfg, 2, &c).records, "has not changed"))
}

func TestWarnsOfGuessing(t *testing.T) {
	base, list := tiny(t)
	cfg := tinyConfig()
	cfg.Iters, cfg.LearningRate, cfg.Optimizer, cfg.Dropout = 25, 1e-9, "sgd", 0
	r, err := New(base, cfg, list, nil, &Plan{Choices: engine.Choices{Slots: 2}}, &kept{})
	require.NoError(t, err)
	defer r.Close()
	vocab := float64(base.Arch.VocabSize)
	feed := func(loss float64, steps int) (list []Record) {
		r.log, r.state.Warned = nil, nil
		for i := range steps {
			rec := Record{Step: i + 1, Loss: loss + 1e-3*float64(i%2), LearningRate: 1}
			r.warn(&rec)
			r.log = append(r.log, rec)
		}
		return r.log
	}
	require.Equal(t, []int{20}, noted(feed(math.Log(vocab)*1.015, 25), "guessing among"))
	require.Empty(t, noted(feed(math.Log(vocab)*1.03, 25), ""))
	require.Empty(t, noted(feed(math.Log(vocab), 19), ""))
	require.Equal(t, []int{5}, noted(func() []Record {
		r.log, r.state.Warned = nil, nil
		for i := range 8 {
			rec := Record{Step: i + 1, Loss: 2, LearningRate: 1}
			r.warn(&rec)
			r.log = append(r.log, rec)
		}
		return r.log
	}(), "exactly 2 for 5 steps"))

	// It runs away: above twice what it began with, or above what knowing nothing has.
	first := func(loss float64, then ...float64) []Record {
		r.log, r.state.Warned, r.state.FirstLoss = nil, nil, loss
		for i, x := range append([]float64{loss}, then...) {
			rec := Record{Step: i + 1, Loss: x, LearningRate: 0.5}
			r.warn(&rec)
			r.log = append(r.log, rec)
		}
		return r.log
	}
	const says = "the learning rate, 0.5, is too high"
	guess := math.Log(vocab)
	require.Equal(t, []int{6}, noted(first(1, 2.6, 2.7, 2.8, 2.9, 3, 3.1, 3.2), says), "once")
	require.Equal(t, []int{6}, noted(first(guess-0.1, guess+1, guess+1.1, guess+1.2, guess+1.3, guess+1.4), says))
	require.Empty(t, noted(first(1, 2.6, 2.7, 1.9, 2.8, 2.9, 3), says))
	require.Empty(t, noted(first(guess+1, guess+1.1, guess+1, guess+1.2, guess+1.1, guess+1), says), "it was there before")
	require.Empty(t, noted(first(0.01, 0.1, 0.2, 0.1, 0.3, 0.2, 0.1), says), "next to nothing")

	// A jump, among losses that vary.
	r.log, r.state.Warned = nil, nil
	for i := range 60 {
		rec := Record{Step: i + 1, Loss: 2 + 0.1*math.Sin(float64(i)), LearningRate: 1}
		if i == 40 || i == 50 {
			rec.Loss = 4
		}
		r.warn(&rec)
		r.log = append(r.log, rec)
	}
	require.Equal(t, []int{41}, noted(r.log, "the loss jumped"))
}

// The loss on the validation data may be no number though that of the step was one.
func TestEvaluationThatIsNotFinite(t *testing.T) {
	r := &Run{}
	require.NoError(t, r.finite(1))
	for _, loss := range []float64{math.NaN(), math.Inf(1)} {
		require.True(t, errors.Is(r.finite(loss), optim.ErrNotFinite))
	}
}

func TestPlanOfSamples(t *testing.T) {
	base, _ := tiny(t)
	cfg := tinyConfig()
	without, err := NewPlan(base, &cfg, 16, Resources{})
	require.NoError(t, err)
	sampled(&cfg)
	with, err := NewPlan(base, &cfg, 16, Resources{Speed: usual})
	require.NoError(t, err)
	require.Greater(t, with.Total, without.Total)
	i := slices.IndexFunc(with.Lines, func(l PlanLine) bool { return l.What == "keys and values of samples" })
	a := base.Arch
	require.GreaterOrEqual(t, with.Lines[i].Bytes, 4*2*a.NumHiddenLayers*a.NumKeyValueHeads*a.HeadDim*8)

	time := with.Time(&cfg, 13, 4) // nine steps, evaluated before, after and at 3, 6
	require.InDelta(t, 9*with.Seconds, time.Steps, 1e-12)
	require.InDelta(t, 4*with.EvalSeconds, time.Evaluations, 1e-12)
	require.InDelta(t, 4*10*with.TokenSeconds, time.Samples, 1e-12)
	require.Positive(t, time.Samples)
	require.Zero(t, without.Time(&cfg, 13, 4).Total())
}
