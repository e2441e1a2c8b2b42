package train

import (
	"cmp"
	"fmt"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/speed"
	"github.com/seed18967229/nibble/train/engine"
)

// Plan is what a run does with memory and disk, from shapes alone.
type Plan struct {
	engine.Choices

	// Batches and Tokens are engine.Options'.
	Batches, Tokens int

	// Lines are the uses of memory and add up to Total. Of it, Mapped is memory that the
	// collector does not manage.
	Lines         []PlanLine
	Total, Mapped int64

	// Notes say what was chosen and why.
	Notes []string

	// Disk is how much the run needs in Choices.Scratch; Work is that of a step.
	Disk int64
	speed.Work

	// Seconds is how long a step is predicted to take; 0 if no speed was measured.
	// EvalSeconds is that of an evaluation of as many examples, TokenSeconds of a token
	// of a sample.
	Seconds, EvalSeconds, TokenSeconds float64

	pass, token speed.Work // of these

	// Trainable and Params are the numbers of parameters trained and in all.
	Trainable, Params int64
}

// PlanLine is one use of memory.
type PlanLine struct {
	What  string
	Bytes int64
}

// Resources are what a run may use.
type Resources struct {
	// Memory is the budget; 0 is none.
	Memory int64

	// Cache is the most bytes of the base that are kept in what is left of the budget.
	// Fill says that they are in any case; else only if the run is faster for it.
	Cache int64
	Fill  bool

	// Data is how much the training data takes, in any case.
	Data int64

	// Disk is what Scratch has room for, which is a directory.
	Disk    int64
	Scratch string

	// Speed is what was measured of the machine, to choose by and to predict with.
	Speed speed.Probe
}

// usual is what is chosen by where nothing was measured.
var usual = speed.Probe{Product: 150e9, Read: 1e9, Write: 1e9}

// NewPlan plans a run. longest is the length in tokens of the longest example. Of the ways
// that fit the resources it takes one that is among the fastest, in memory rather than on
// disk, on disk rather than computed twice. It returns an error that says what would do if
// none fits.
func NewPlan(base Base, cfg *Config, longest int, r Resources) (*Plan, error) {
	s, err := newShapes(base, cfg, longest)
	if err != nil {
		return nil, err
	}
	s.fixed = append(s.fixed, PlanLine{"where examples are, and their order", r.Data})
	rates := r.Speed.Or(usual)
	var best *Plan
	least := int64(math.MaxInt64)
	for _, c := range s.ways(r.Scratch) {
		p := s.plan(c)
		if r.Disk > 0 && p.Disk > r.Disk {
			if p = s.spillLess(c, r.Disk); p == nil {
				continue
			}
		}
		least = min(least, p.Total)
		if r.Memory > 0 && p.Total > r.Memory {
			continue
		}
		p = s.fill(p, r, rates)
		// Within so much of each other, the earlier way is the simpler one.
		const equal = 0.98
		if best == nil || rates.Seconds(p.Work) < equal*rates.Seconds(best.Work) {
			best = p
		}
	}
	switch {
	case best == nil && least == math.MaxInt64:
		return nil, hint.Add(fmt.Errorf("the run needs more than the %s that are free in %s", memory.FormatSize(r.Disk), r.Scratch),
			"free some, or name another directory with --scratch-dir")
	case best == nil:
		return nil, hint.Add(fmt.Errorf("the run needs %s of memory, over the budget of %s", memory.FormatSize(least), memory.FormatSize(r.Memory)),
			"give --memory %s or more, or lower --batch-size, --max-seq-length, --grad-accumulation-steps, --rank or --threads", memory.AtLeast(least))
	}
	if r.Speed != (speed.Probe{}) {
		best.Seconds, best.EvalSeconds, best.TokenSeconds = rates.Seconds(best.Work), rates.Seconds(best.pass), rates.Seconds(best.token)
	}
	best.Notes = s.notes(best)
	return best, nil
}

// A Time is how long a run is predicted to take: its steps, the evaluations and the
// samples. That of a run whose examples are all as long as the longest is that long; it
// is less for others.
type Time struct {
	Steps, Evaluations, Samples float64
}

// Total is all of it.
func (t Time) Total() float64 { return t.Steps + t.Evaluations + t.Samples }

// Time predicts how long a run takes over so many training and validation examples.
func (p *Plan) Time(cfg *Config, train, valid int) Time {
	steps, _ := cfg.steps(train)
	times := func(every int) float64 { // before, after, and on the way
		if every <= 0 {
			return 2
		}
		return float64(2 + (steps-1)/every)
	}
	if cfg.ValBatches >= 0 {
		valid = min(valid, cfg.ValBatches*cfg.BatchSize)
	}
	t := Time{Steps: float64(steps) * p.Seconds, Evaluations: times(cfg.StepsPerEval) * math.Ceil(float64(valid)/float64(cfg.perStep())) * p.EvalSeconds}
	if s := cfg.Sampler; s != nil {
		// A prompt goes through the blocks at once, as one token that reads them.
		t.Samples = times(cmp.Or(cfg.SampleEvery, cfg.StepsPerEval)) * float64(len(s.Prompts)*cfg.SampleMaxTokens) * p.TokenSeconds
	}
	return t
}

func (p *Plan) add(what string, bytes int64) {
	if bytes == 0 {
		return
	}
	p.Lines = append(p.Lines, PlanLine{what, bytes})
	p.Total += bytes
}
