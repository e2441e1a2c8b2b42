package train

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/train/optim"
)

// Config is everything that decides how a run goes. The names are those of the
// command line, which are mlx-lm's and transformers'.
type Config struct {
	// FineTuneType is "lora", "dora" or "full". LoRA over a 4-bit base is QLoRA.
	FineTuneType string `json:"fine_tune_type"`

	// Iters is the number of optimizer steps; if it is 0, Epochs says how often
	// to go through the data.
	Iters  int     `json:"iters"`
	Epochs float64 `json:"epochs"`

	// BatchSize is the number of examples in a micro-batch,
	// GradAccumulationSteps that of micro-batches in a step.
	BatchSize             int `json:"batch_size"`
	GradAccumulationSteps int `json:"grad_accumulation_steps"`

	Optimizer       string  `json:"optimizer"`
	LearningRate    float64 `json:"learning_rate"`
	LRSchedulerType string  `json:"lr_scheduler_type"`
	MaxGradNorm     float64 `json:"max_grad_norm"`

	// WarmupSteps of -1 is WarmupRatio of all steps.
	WarmupSteps int     `json:"warmup_steps"`
	WarmupRatio float64 `json:"warmup_ratio"`

	// What optimizers are told besides. The betas are Lion's too, Momentum is SGD's.
	WeightDecay float64 `json:"weight_decay"`
	AdamBeta1   float64 `json:"adam_beta1"`
	AdamBeta2   float64 `json:"adam_beta2"`
	AdamEpsilon float64 `json:"adam_epsilon"`
	Momentum    float64 `json:"momentum"`

	// LoraPlusLRRatio is what the learning rate of each B is multiplied by (LoRA+);
	// 0 is 1.
	LoraPlusLRRatio float64 `json:"loraplus_lr_ratio"`

	// BF16StochasticRound keeps what is trained in bfloat16 and rounds it at random
	// after each step.
	BF16StochasticRound bool `json:"bf16_stochastic_round"`

	// MaxSeqLength is where longer examples are cut.
	MaxSeqLength int `json:"max_seq_length"`

	Methods

	// SaveEvery and StepsPerEval count steps; 0 is never but at the end.
	SaveEvery    int `json:"save_every"`
	StepsPerEval int `json:"steps_per_eval"`

	// SaveTotalLimit is how many checkpoints are kept, the last ones; 0 is all.
	SaveTotalLimit int `json:"save_total_limit"`

	// ValBatches is how many batches an evaluation takes; -1 is all.
	ValBatches int `json:"val_batches"`

	Seed uint64 `json:"seed"`

	Watch

	// Start is what adapters begin from; it is no setting, but what settings led to.
	Start Start `json:"-"`
}

// DefaultConfig returns the defaults: LoRA of rank 16 and alpha 32 on all
// linear layers.
func DefaultConfig() Config {
	return Config{
		FineTuneType: "lora", Epochs: 1, BatchSize: 4, GradAccumulationSteps: 1,
		Optimizer: "adamw", LearningRate: 2e-4, LRSchedulerType: "cosine", WarmupSteps: -1, WarmupRatio: 0.03, MaxGradNorm: 1,
		AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8,
		MaxSeqLength: 2048, Methods: defaultMethods(),
		SaveEvery: 100, StepsPerEval: 200, ValBatches: 25,
		Watch: Watch{SampleMaxTokens: 50},
	}
}

// The fine-tuning types.
const (
	lora = "lora"
	dora = "dora"
	full = "full"
)

// FineTuneTypes lists what FineTuneType may be.
func FineTuneTypes() []string { return []string{lora, dora, full} }

// Full reports whether the tensors themselves are trained, and not adapters.
func (c *Config) Full() bool { return c.FineTuneType == full }

// Validate returns an error that names the first value no run can have.
func (c *Config) Validate() error {
	positive := []struct {
		name string
		n    int
	}{
		{"batch-size", c.BatchSize}, {"grad-accumulation-steps", c.GradAccumulationSteps},
	}
	if !c.Full() {
		positive = append(positive, struct {
			name string
			n    int
		}{"rank", c.Rank})
	}
	for _, v := range positive {
		if v.n <= 0 {
			return fmt.Errorf("--%s is %d, want 1 or more", v.name, v.n)
		}
	}
	finite := []struct {
		name string
		v    float64
	}{
		{"learning-rate", c.LearningRate}, {"weight-decay", c.WeightDecay}, {"max-grad-norm", c.MaxGradNorm},
		{"alpha", c.Alpha}, {"epochs", c.Epochs}, {"warmup-ratio", c.WarmupRatio}, {"loraplus-lr-ratio", c.LoraPlusLRRatio},
	}
	for _, v := range finite {
		if v.v < 0 || math.IsNaN(v.v) || math.IsInf(v.v, 0) {
			return fmt.Errorf("--%s is %v, want 0 or a positive number", v.name, v.v)
		}
	}
	switch {
	case !slices.Contains(FineTuneTypes(), c.FineTuneType):
		return fmt.Errorf("--fine-tune-type is %q, want one of: %s", c.FineTuneType, strings.Join(FineTuneTypes(), ", "))
	case c.Iters < 0:
		return fmt.Errorf("--iters is %d, want 0 or more", c.Iters)
	case c.Iters == 0 && c.Epochs == 0:
		return fmt.Errorf("--iters and --epochs are both 0: there is nothing to do")
	case c.SaveTotalLimit < 0:
		return fmt.Errorf("--save-total-limit is %d, want 0 or more", c.SaveTotalLimit)
	case c.MaxSeqLength < 2:
		return fmt.Errorf("--max-seq-length is %d, want 2 or more", c.MaxSeqLength)
	}
	if err := cmp.Or(c.validateMethods(), c.validateWatch()); err != nil {
		return err
	}
	if _, err := optim.New(c.Optimizer, c.options()); err != nil {
		return err
	}
	return c.schedule(1).Validate()
}

// perStep returns the number of examples in a step.
func (c *Config) perStep() int { return c.BatchSize * c.GradAccumulationSteps }

// steps returns the number of optimizer steps over n examples, and the number
// of examples they take in all: the last step may be short.
func (c *Config) steps(n int) (steps int, examples int64) {
	per := int64(c.perStep())
	if c.Iters > 0 {
		return c.Iters, int64(c.Iters) * per
	}
	examples = int64(math.Round(c.Epochs * float64(n)))
	return int((examples + per - 1) / per), examples
}

// schedule returns the learning rates of a run of total steps.
func (c *Config) schedule(total int) optim.Schedule {
	warmup := c.WarmupSteps
	if warmup < 0 {
		warmup = int(math.Ceil(c.WarmupRatio * float64(total)))
	}
	return optim.Schedule{Type: c.LRSchedulerType, LR: c.LearningRate, Warmup: warmup, Total: total}
}

// Resolved returns the configuration as it works out for n training examples:
// with the number of steps and of warm-up steps.
func (c Config) Resolved(n int) Config {
	c.Iters, _ = c.steps(n)
	c.WarmupSteps = c.schedule(c.Iters).Warmup
	return c
}

// Difference is a setting that is not what it was.
type Difference struct {
	Name     string
	Now, Was any
}

// Differences returns the settings in which the configuration differs from what it was,
// of those that make what is trained and how: not how long it goes on, at what learning
// rate and what is reported of it.
func (c *Config) Differences(was *Config) []Difference {
	list := append([]Difference{
		{"fine-tune-type", c.FineTuneType, was.FineTuneType},
		{"batch-size", c.BatchSize, was.BatchSize},
		{"grad-accumulation-steps", c.GradAccumulationSteps, was.GradAccumulationSteps},
		{"optimizer", optim.Canonical(c.Optimizer), optim.Canonical(was.Optimizer)},
		{"bf16-stochastic-round", c.BF16StochasticRound, was.BF16StochasticRound},
		{"max-seq-length", c.MaxSeqLength, was.MaxSeqLength},
		{"seed", c.Seed, was.Seed},
	}, c.Methods.compared(&was.Methods)...)
	return slices.DeleteFunc(list, func(d Difference) bool { return d.Now == d.Was })
}

// SameRun returns an error naming the first setting in which a run that is
// resumed differs from what it was, if that would make it another run. How long
// it goes on and at what learning rate may change.
func (c *Config) SameRun(was *Config) error {
	for _, d := range c.Differences(was) {
		return hint.Add(fmt.Errorf("--%s is %v, but the run to be resumed had %v", d.Name, d.Now, d.Was),
			"resume with the settings of the first run, or start a new one")
	}
	return nil
}
