package train

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/optim"
)

// Watch is how a run is watched while it goes on, and when that ends it. It changes
// nothing of what a step does. What transformers has too has its name and meaning.
type Watch struct {
	// SamplePrompts are continued before the first step, after the last one and every
	// SampleEvery steps, or if that is 0 with every evaluation: by up to SampleMaxTokens
	// tokens, at temperature 0 the most likely ones.
	SamplePrompts     []string `json:"sample_prompts,omitempty"`
	SampleEvery       int      `json:"sample_every,omitempty"`
	SampleMaxTokens   int      `json:"sample_max_tokens"`
	SampleTemperature float64  `json:"sample_temperature"`

	// LoadBestModelAtEnd makes the weights of the evaluation with the lowest loss the
	// result. A checkpoint is saved of each such evaluation, and kept until there is a
	// better one.
	LoadBestModelAtEnd bool `json:"load_best_model_at_end"`

	// EarlyStoppingPatience is after how many evaluations in a row the run ends of which
	// none was better than the best before it by more than EarlyStoppingThreshold; 0 is
	// never.
	EarlyStoppingPatience  int     `json:"early_stopping_patience"`
	EarlyStoppingThreshold float64 `json:"early_stopping_threshold"`

	// Sampler is what SamplePrompts are in tokens; like Config.Start it is no setting.
	Sampler *Sampler `json:"-"`
}

// Sampler has what a run needs to continue texts.
type Sampler struct {
	// Prompts are those of Watch.SamplePrompts, in their order.
	Prompts [][]int32

	// Ends tells the tokens that end a text.
	Ends func(token int32) bool

	// Decode returns the text that tokens are which follow a prompt.
	Decode func(prompt, tokens []int32) string
}

// longest returns the number of tokens in the longest prompt.
func (s *Sampler) longest() (n int) {
	if s != nil {
		for _, p := range s.Prompts {
			n = max(n, len(p))
		}
	}
	return n
}

// evaluates reports whether something follows from the loss on the validation data.
func (w *Watch) evaluates() bool { return w.LoadBestModelAtEnd || w.EarlyStoppingPatience > 0 }

// validateWatch is the part of Validate that is about Watch.
func (c *Config) validateWatch() error {
	for _, v := range []struct {
		name string
		v    float64
		min  float64
	}{
		{"sample-every", float64(c.SampleEvery), 0}, {"sample-temperature", c.SampleTemperature, 0}, {"sample-max-tokens", float64(c.SampleMaxTokens), 1},
		{"early-stopping-patience", float64(c.EarlyStoppingPatience), 0}, {"early-stopping-threshold", c.EarlyStoppingThreshold, 0},
	} {
		if !(v.v >= v.min) || math.IsInf(v.v, 0) {
			return fmt.Errorf("--%s is %v, want %v or more", v.name, v.v, v.min)
		}
	}
	switch {
	case c.SampleEvery > 0 && len(c.SamplePrompts) == 0:
		return hint.Add(fmt.Errorf("--sample-every without a prompt"), "give one with --sample-prompt or --sample-prompts")
	case c.evaluates() && c.StepsPerEval <= 0:
		return hint.Add(fmt.Errorf("--load-best-model-at-end and --early-stopping-patience follow from evaluations, and --steps-per-eval %d has none on the way", c.StepsPerEval),
			"give --steps-per-eval, 50 say")
	case c.EarlyStoppingThreshold > 0 && c.EarlyStoppingPatience == 0:
		return hint.Add(fmt.Errorf("--early-stopping-threshold says what counts for --early-stopping-patience, which is not given"), "give it, 3 say")
	}
	return nil
}

// CheckData returns an error if the run cannot be watched as the configuration says with
// the data it has.
func (c *Config) CheckData(validation bool) error {
	if c.evaluates() && !validation {
		return hint.Add(fmt.Errorf("--load-best-model-at-end and --early-stopping-patience need validation data, and there is none"),
			"give --val-split, put a valid file beside the training data, or leave them out")
	}
	if n := c.Sampler.longest(); n > c.MaxSeqLength {
		return hint.Add(fmt.Errorf("%w: a prompt to be continued has %d tokens, and sequences have %d at most", tensor.ErrUnsupported, n, c.MaxSeqLength),
			"give a shorter one, or a longer --max-seq-length")
	}
	return nil
}

// look evaluates and samples after a step, if that is due.
func (r *Run) look(ctx context.Context, rec *Record, last bool) error {
	step := r.state.Step
	if r.valid != nil && (step == 0 || last || due(step, r.cfg.StepsPerEval)) {
		loss, err := r.Evaluate(ctx, r.valid)
		if err != nil {
			return err
		}
		rec.EvalLoss, r.state.EvalLoss = &loss, &loss
		if step == 0 {
			r.state.FirstEvalLoss = &loss
		} else {
			rec.Best = r.judge(loss)
		}
	}
	if step == 0 || last || due(step, cmp.Or(r.cfg.SampleEvery, r.cfg.StepsPerEval)) || r.Stopped() != "" {
		var err error
		if rec.Samples, err = r.samples(ctx); err != nil {
			return err
		}
	}
	return nil
}

// judge compares a loss with those of the evaluations before, and reports whether it is
// the lowest. As in transformers, any lower loss is a better one, and the patience alone
// asks for more than that.
func (r *Run) judge(loss float64) bool {
	s := &r.state
	if s.BestMetric == nil || *s.BestMetric-loss > r.cfg.EarlyStoppingThreshold {
		s.Unimproved = 0
	} else {
		s.Unimproved++
	}
	if s.BestMetric != nil && loss >= *s.BestMetric {
		return false
	}
	s.BestMetric, s.BestStep = &loss, s.Step
	return true
}

// Stopped returns why the run ends before its last step, "" if it does not.
func (r *Run) Stopped() string {
	s := &r.state
	if n := r.cfg.EarlyStoppingPatience; n == 0 || s.Unimproved < n || s.Step == r.steps {
		return ""
	}
	than := "lower"
	if r.cfg.EarlyStoppingThreshold > 0 {
		than = fmt.Sprintf("lower by more than %v", r.cfg.EarlyStoppingThreshold)
	}
	return fmt.Sprintf("stopped after step %d of %d: in %d evaluations in a row the validation loss was not %s than the best one, %.4f after step %d",
		s.Step, r.steps, s.Unimproved, than, *s.BestMetric, s.BestStep)
}

// samples continues the prompts. What chance decides follows from the seed and the
// prompt alone, so that the training goes on as if nothing had been asked.
func (r *Run) samples(ctx context.Context) ([]Sample, error) {
	s := r.cfg.Sampler
	if s == nil {
		return nil, nil
	}
	var out []Sample
	for i, prompt := range s.Prompts {
		var tokens []int32
		err := r.engine.Generate(ctx, prompt, engine.Sampling{Temperature: r.cfg.SampleTemperature, Seed: r.cfg.Seed + uint64(i)}, func(token int32) bool {
			if s.Ends(token) {
				return false
			}
			tokens = append(tokens, token)
			return len(tokens) < r.cfg.SampleMaxTokens
		})
		if err != nil {
			return nil, fmt.Errorf("sample %d: %w", i+1, err)
		}
		out = append(out, Sample{Prompt: r.cfg.SamplePrompts[i], Text: s.Decode(prompt, tokens)})
	}
	return out, nil
}

// finite returns an error if a loss on the validation data is no number.
func (r *Run) finite(loss float64) error {
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return r.diverged(fmt.Errorf("the validation loss is %v, %w", loss, optim.ErrNotFinite))
	}
	return nil
}

// A probe is some of the values of a parameter, to see whether they change.
type probe [256]float32

// look takes values that are spread evenly.
func (p *probe) look(values []float32) {
	n := min(len(p), len(values))
	for i := range n {
		p[i] = values[i*len(values)/n]
	}
}

// changed reports whether the values are others now.
func (p *probe) changed(values []float32) bool {
	var now probe
	now.look(values)
	return !slices.Equal(now[:], p[:])
}
