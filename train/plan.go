package train

import (
	"fmt"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
	"github.com/seed18967229/nibble/train/pages"
	"github.com/seed18967229/nibble/train/stream"
)

// Plan is how much memory a run needs at most, from shapes alone.
type Plan struct {
	engine.Choices

	// Batches and Tokens are engine.Options'.
	Batches, Tokens int

	// Disk is how much the run needs in Choices.Scratch.
	Disk int64

	// Lines add up to Total.
	Lines []PlanLine
	Total int64

	// Trainable and Params are the numbers of parameters trained and in all.
	Trainable, Params int64
}

// PlanLine is one use of memory.
type PlanLine struct {
	What  string
	Bytes int64
}

// programBytes is what the program takes before it does anything: code, the
// runtime and headers. Measured on linux/amd64.
const programBytes = 24 << 20

// defaultSlots is the block that is used and two that are read ahead.
const defaultSlots = 3

// NewPlan plans a run. longest is the length in tokens of the longest example.
// Within a budget (0 is none) it takes as many slots as fit, up to the whole
// model; it returns an error that says what would do if two do not fit.
func NewPlan(base Base, cfg *Config, longest int, budget int64) (*Plan, error) {
	a, p := base.Arch, &Plan{Params: base.Arch.NumParams()}
	block, err := stream.BlockBytes(base.Source, a)
	if err != nil {
		return nil, err
	}
	opt, err := optim.New(cfg.Optimizer, cfg.options())
	if err != nil {
		return nil, err
	}
	t, params, err := NewTrainable(a, base.Source, base.Codecs, cfg)
	if err != nil {
		return nil, err
	}
	p.PagedParams = optim.Paged(cfg.Optimizer)
	micro := int64(cfg.BatchSize) * int64(min(longest, cfg.MaxSeqLength)-1) // tokens of a micro-batch
	tokens := micro * int64(cfg.GradAccumulationSteps)
	h := a.HiddenSize
	for _, x := range params {
		p.Trainable += x.Shape.Elems()
		if cfg.Full() && x.Layer >= 0 {
			block = 0 // every tensor of a block is trained and stays
		}
	}
	var lasting int64
	for _, ad := range t.Adapters {
		lasting += ad.KeptFloats()
	}
	p.Batches, p.Tokens = cfg.GradAccumulationSteps, int(micro)
	need := p.Need(a, t.Adapted(), p.Batches, p.Tokens)
	p.Disk = need.Disk
	var panel int64
	for _, x := range a.Block(0) {
		if len(x.Dims) == 2 {
			panel = max(panel, kernel.PanelBytes(int(tokens), int(x.Dims[0]), int(x.Dims[1])))
		}
	}
	logits := min(tokens*a.VocabSize, max(model.LogitFloats, tokens))

	trained := pages.Measure(params, opt, pages.Options{Paged: p.PagedParams})
	p.add("trained weights, their gradients and the state of "+opt.Name(), trained.Memory)
	p.add("hidden states", need.Hidden)
	p.add("hidden states between blocks", need.Bounds)
	p.add("inside of blocks, kept", need.Kept)
	p.add("on its way to disk and back", need.Ring)
	p.add("inside a block", need.Pass)
	p.add("kept by adapters", 4*lasting)
	p.add("logits and their gradient", 4*(4*h*tokens+logits))
	p.add("panels of decoded weights", panel)
	p.add("tiles of attention", kernel.AttentionBytes(int(a.HeadDim)))
	p.add("rotary table", 4*a.HeadDim*int64(cfg.MaxSeqLength))
	p.add("the program", programBytes)

	p.Slots = min(defaultSlots, int(a.NumHiddenLayers))
	if budget > 0 {
		least := p.Total + 2*block
		if budget < least {
			return nil, hint.Add(fmt.Errorf("the run needs %s of memory, over the budget of %s", memory.FormatSize(least), memory.FormatSize(budget)),
				"give --memory %s or more, or lower --batch-size, --max-seq-length, --grad-accumulation-steps or --rank", memory.AtLeast(least))
		}
		if block > 0 {
			p.Slots = int(min((budget-p.Total)/block, a.NumHiddenLayers))
		}
	}
	p.add(fmt.Sprintf("%d of %d blocks of the base", p.Slots, a.NumHiddenLayers), int64(p.Slots)*block)
	return p, nil
}

func (p *Plan) add(what string, bytes int64) {
	if bytes == 0 {
		return
	}
	p.Lines = append(p.Lines, PlanLine{what, bytes})
	p.Total += bytes
}
