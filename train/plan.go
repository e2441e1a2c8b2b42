package train

import (
	"fmt"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
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

	// Disk is how much the run needs in Choices.Scratch; Read and Written are the bytes of
	// files of a step, and Operations its floating-point operations.
	Disk, Read, Written int64
	Operations          float64

	// Seconds is how long a step is predicted to take; 0 if no speed was measured.
	Seconds float64

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

	// Fill says that what is left of the budget keeps blocks of the base in memory, up to
	// Cache bytes; else they are kept if the run is faster for it.
	Fill  bool
	Cache int64

	// Disk is what Scratch has room for, which is a directory.
	Disk    int64
	Scratch string

	// Speed is what was measured of the machine, to choose by and to predict with.
	Speed Speed
}

// Speed is how fast the machine is. What is 0 was not measured.
type Speed struct {
	// Product is the floating-point operations a second of products with a weight of the
	// base.
	Product float64

	// Read and Write are bytes a second, of the base's files and of Resources.Scratch.
	Read, Write float64
}

// usual is what is chosen by where nothing was measured.
var usual = Speed{Product: 150e9, Read: 1e9, Write: 1e9}

// or returns the speed with what is 0 taken from another.
func (s Speed) or(t Speed) Speed {
	pick := func(a, b float64) float64 {
		if a > 0 {
			return a
		}
		return b
	}
	return Speed{pick(s.Product, t.Product), pick(s.Read, t.Read), pick(s.Write, t.Write)}
}

// seconds is how long a step takes: its products or its files, whichever takes longer, as
// one goes on behind the other.
func (s Speed) seconds(p *Plan) float64 {
	return max(p.Operations/s.Product, float64(p.Read)/s.Read+float64(p.Written)/s.Write)
}

// NewPlan plans a run. longest is the length in tokens of the longest example. Of the ways
// that fit the resources it takes one that is among the fastest, in memory rather than on
// disk, on disk rather than computed twice. It returns an error that says what would do if
// none fits.
func NewPlan(base Base, cfg *Config, longest int, r Resources) (*Plan, error) {
	s, err := newShapes(base, cfg, longest)
	if err != nil {
		return nil, err
	}
	speed := r.Speed.or(usual)
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
		p = s.fill(p, r, speed)
		// Within so much of each other, the earlier way is the simpler one.
		const equal = 0.98
		if best == nil || speed.seconds(p) < equal*speed.seconds(best) {
			best = p
		}
	}
	switch {
	case best == nil && least == math.MaxInt64:
		return nil, hint.Add(fmt.Errorf("the run needs more than the %s that are free in %s", memory.FormatSize(r.Disk), r.Scratch),
			"free some, or name another directory with --scratch-dir")
	case best == nil:
		return nil, hint.Add(fmt.Errorf("the run needs %s of memory, over the budget of %s", memory.FormatSize(least), memory.FormatSize(r.Memory)),
			"give --memory %s or more, or lower --batch-size, --max-seq-length, --grad-accumulation-steps or --rank", memory.AtLeast(least))
	}
	if r.Speed != (Speed{}) {
		best.Seconds = speed.seconds(best)
	}
	best.Notes = s.notes(best)
	return best, nil
}

func (p *Plan) add(what string, bytes int64) {
	if bytes == 0 {
		return
	}
	p.Lines = append(p.Lines, PlanLine{what, bytes})
	p.Total += bytes
}
