package train

import (
	"fmt"
	"sort"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/speed"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
	"github.com/seed18967229/nibble/train/pages"
	"github.com/seed18967229/nibble/train/stream"
)

// programBytes is what the program takes beside what is counted: code, the runtime,
// headers and the tokenizer. Measured on linux/amd64.
const programBytes = 32 << 20

// garbageBytes is the most that is left lying before it is collected. A collector that is
// left little runs all the time.
const garbageBytes = 64 << 20

// fewestSlots is the block that is used and one that is read ahead; usualSlots has one
// more, so that reading goes on while a block is let go of.
const (
	fewestSlots = 2
	usualSlots  = 3
)

// shapes is a run, as far as shapes tell.
type shapes struct {
	Base
	cfg    *Config
	train  model.Trainable
	params []*optim.Param
	opt    optim.Optimizer
	sizes  *stream.Sizes

	resident, paged pages.Size // what is trained, in memory or on disk

	blocks, batches, tokens int
	prompt, sampled         int // tokens of the longest prompt that is continued, and with what follows
	trainable               int64
	fixed                   []PlanLine // what every way takes

	blockWork, headWork float64 // multiply-adds of a token with the matrices of blocks and the head
	adapterWork         float64 // and with adapters
	trainedWork         float64 // and with matrices that are trained themselves
	attentionWork       float64
	experts             int // that the tokens of a block go through
}

func newShapes(base Base, cfg *Config, longest int) (*shapes, error) {
	a := base.Arch
	s := &shapes{Base: base, cfg: cfg, blocks: int(a.NumHiddenLayers), batches: cfg.GradAccumulationSteps}
	var err error
	if s.train, s.params, err = NewTrainable(a, base.Source, base.Codecs, cfg); err != nil {
		return nil, err
	}
	cfg.prepare(s.params)
	if s.opt, err = optim.New(cfg.Optimizer, cfg.options()); err != nil {
		return nil, err
	}
	if s.sizes, err = stream.NewSizes(base.Source, a, func(name string) bool { return s.train.Params[name] != nil }); err != nil {
		return nil, err
	}
	s.tokens = cfg.BatchSize * (min(longest, cfg.MaxSeqLength) - 1)
	if s.prompt = cfg.Sampler.longest(); s.prompt > 0 {
		s.sampled = min(s.prompt+cfg.SampleMaxTokens, cfg.MaxSeqLength)
	}
	for _, p := range s.params {
		s.trainable += p.Shape.Elems()
	}
	s.resident = pages.Measure(s.params, s.opt, pages.Options{})
	s.paged = pages.Measure(s.params, s.opt, pages.Options{Paged: true})
	s.count()
	s.fix()
	return s, nil
}

// count counts the work of a token.
func (s *shapes) count() {
	a := s.Arch
	share := 1.0 // of the experts
	if a.NumExperts > 0 {
		share = float64(a.NumExpertsPerTok) / float64(a.NumExperts)
		s.experts = int(min(a.NumExperts, int64(s.batches*s.tokens)*a.NumExpertsPerTok))
	}
	for _, x := range a.Tensors() {
		if len(x.Dims) != 2 || x.Layer < 0 {
			continue
		}
		n := float64(tensor.Shape(x.Dims).Elems())
		if x.Expert >= 0 {
			n *= share
		}
		s.blockWork += n
		if s.train.Params[x.Name] != nil {
			s.trainedWork += n
		}
		if ad := s.train.Adapters[x.Module()]; ad != nil {
			n := float64(ad.A.Shape.Elems() + ad.B.Shape.Elems())
			if x.Expert >= 0 {
				n *= share
			}
			s.adapterWork += n
		}
	}
	s.headWork = float64(a.VocabSize * a.HiddenSize)
	// Scores and results, of half of the tokens on average.
	s.attentionWork = float64(a.NumHiddenLayers*a.NumAttentionHeads*a.HeadDim) * float64(s.tokens) / float64(s.cfg.BatchSize)
}

// fix finds what every way takes.
func (s *shapes) fix() {
	a, cfg := s.Arch, s.cfg
	all := s.batches * s.tokens
	var panel, rank, adapters int64
	for _, x := range append(a.Block(0), a.Block(s.blocks-1)...) {
		if len(x.Dims) != 2 {
			continue
		}
		panel = max(panel, kernel.PanelBytes(max(s.tokens, s.prompt), int(x.Dims[0]), int(x.Dims[1])))
	}
	for _, ad := range s.train.Adapters {
		adapters += 4 * ad.KeptFloats()
		rank = max(rank, kernel.RankBytes(s.tokens, int(ad.A.Shape[0])))
	}
	panel = max(panel, kernel.PanelBytes(all, model.HeadRows(a), int(a.HiddenSize)))
	s.fixed = []PlanLine{
		{"kept by adapters", adapters},
		{"logits and their gradient", 4 * model.HeadFloats(a, int64(all))},
		{"panels of decoded weights", panel + rank},
		{"tiles of attention", kernel.AttentionBytes(int(a.HeadDim))},
		{"rotary table", 4 * a.HeadDim * int64(cfg.MaxSeqLength)},
		{"keys and values of samples", s.sampleBytes()},
		{"the program", programBytes},
	}
}

// sampleBytes returns what continuing a prompt takes beside a step: the keys and values of
// its tokens, which grow by a quarter at a time, the hidden states and the logits.
func (s *shapes) sampleBytes() int64 {
	if s.sampled == 0 {
		return 0
	}
	a := s.Arch
	cache := 2 * a.NumHiddenLayers * a.NumKeyValueHeads * a.HeadDim * int64(s.sampled)
	return 4 * (cache + cache/4 + cache/a.NumHiddenLayers + a.HiddenSize*int64(s.prompt) + a.VocabSize)
}

// ways returns what may be chosen before anything that is left of a budget is used, the
// simplest first.
func (s *shapes) ways(scratch string) (list []engine.Choices) {
	params := []bool{false, true}
	if optim.Paged(s.cfg.Optimizer) {
		params = params[1:]
	}
	for _, params := range params {
		for _, bounds := range []bool{false, true} {
			for _, slots := range []int{usualSlots, fewestSlots} {
				// Spilled stands for all that is not kept.
				for _, spilled := range []int{0, s.blocks} {
					list = append(list, engine.Choices{
						Slots: min(slots, s.blocks), PagedParams: params, PagedBounds: bounds, Spilled: spilled, Scratch: scratch,
					})
				}
			}
		}
	}
	return list
}

// spillLess returns the plan with as much of the inside of blocks on disk as there is
// room for, nil if that is nothing.
func (s *shapes) spillLess(c engine.Choices, disk int64) *Plan {
	all := c.Spilled
	c.Spilled = sort.Search(all, func(n int) bool {
		d := c
		d.Spilled = n + 1
		return s.plan(d).Disk > disk
	})
	if c.Spilled == 0 {
		return nil
	}
	return s.plan(c)
}

// fill uses what is left of the resources: for the inside of blocks, for the head, and
// for blocks of the base.
func (s *shapes) fill(p *Plan, r Resources, rates speed.Probe) *Plan {
	fits := func(c engine.Choices) bool {
		q := s.plan(c)
		return (r.Memory == 0 || q.Total <= r.Memory) && (r.Disk == 0 || q.Disk <= r.Disk)
	}
	// grow returns c with the greatest number that fits.
	grow := func(c engine.Choices, most int, set func(c *engine.Choices, n int)) engine.Choices {
		n := sort.Search(most, func(n int) bool {
			d := c
			set(&d, n+1)
			return !fits(d)
		})
		set(&c, n)
		return c
	}
	c := p.Choices
	spilled := c.Spilled
	c = grow(c, s.blocks, func(c *engine.Choices, n int) {
		c.Kept = n
		c.Spilled = min(spilled, s.blocks-n)
	})
	if head := c; s.sizes.Head > 0 {
		head.ResidentHead = true
		if fits(head) {
			c = head
		}
	}
	p = s.plan(c)
	if s.sizes.Slot == 0 {
		return p
	}
	most := min(int64(s.blocks-c.Slots), r.Cache/s.sizes.Slot)
	pinned := grow(c, int(most), func(c *engine.Choices, n int) { c.Pinned, c.Slots = n, c.Slots+n })
	if q := s.plan(pinned); r.Fill || rates.Seconds(q.Work) < 0.9*rates.Seconds(p.Work) {
		return q
	}
	return p
}

// plan adds up what a choice takes.
func (s *shapes) plan(c engine.Choices) *Plan {
	a := s.Arch
	p := &Plan{Choices: c, Batches: s.batches, Tokens: s.tokens, Trainable: s.trainable, Params: a.NumParams()}
	trained := s.resident
	if c.PagedParams {
		trained = s.paged
	}
	need := c.Need(a, s.train.Adapted(), s.batches, s.tokens)
	if s.prompt > s.tokens {
		need.Pass = max(need.Pass, c.Need(a, s.train.Adapted(), 1, s.prompt).Pass)
	}
	o := c.Stream(nil)

	again := s.blocks - min(s.blocks, c.Kept+c.Spilled)
	if s.sizes.Slot > 0 {
		p.add(fmt.Sprintf("%d of %d blocks of the base", c.Slots, s.blocks), int64(c.Slots)*s.sizes.Slot)
		p.add("head", s.sizes.HeadMemory(c.ResidentHead, model.HeadRows(a)))
		p.add("reading", s.sizes.Rest)
	}
	p.Mapped = p.Total
	p.add("trained weights, their gradients and the state of "+s.opt.Name(), trained.Memory)
	p.add("hidden states", need.Hidden)
	p.add("hidden states between blocks", need.Bounds)
	p.add("inside of blocks, kept", need.Kept)
	p.add("on its way to disk and back", need.Ring)
	p.add("inside a block", need.Pass)
	for _, l := range s.fixed {
		p.add(l.What, l.Bytes)
	}
	p.add("what is not collected yet", min(garbageBytes, (p.Total-p.Mapped)/8))

	p.Disk = need.Disk + trained.Disk
	tokens := float64(s.batches * s.tokens)
	share := float64(again) / float64(s.blocks)
	p.Operations = 2 * tokens * ((2+share)*s.blockWork + s.trainedWork + 2*s.headWork + (3+share)*s.adapterWork + (3.5+share)*s.attentionWork)
	p.Read = 2*s.sizes.PassBytes(o, s.experts) + need.Disk + trained.Moved/2
	if !c.ResidentHead {
		p.Read += s.sizes.Head
	}
	p.Written = need.Disk + trained.Moved/2

	forward := 2 * (s.blockWork + s.headWork + s.adapterWork)
	p.pass = speed.Work{Operations: tokens * (forward + 2*s.attentionWork), Read: s.sizes.PassBytes(o, s.experts) + trained.Moved/4}
	p.token = speed.Work{Operations: forward, Read: s.sizes.PassBytes(o, int(a.NumExpertsPerTok)) + trained.Moved/4}
	if !c.ResidentHead {
		p.pass.Read += s.sizes.Head
		p.token.Read += s.sizes.Head
	}
	return p
}

// notes says what was chosen and why.
func (s *shapes) notes(p *Plan) (list []string) {
	note := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	kept := memory.FormatSize(engine.KeptBytes(s.Arch, s.blocks-1, s.tokens) * int64(s.batches))
	note("inside of blocks (%s each): %d kept in memory, %d on disk, %d computed again", kept, p.Kept, p.Spilled, s.blocks-p.Kept-p.Spilled)
	where := func(disk bool) string {
		if disk {
			return "on disk: memory has no room for them beside what is worked with"
		}
		return "in memory"
	}
	note("hidden states between blocks: %s", where(p.PagedBounds))
	switch {
	case p.PagedParams && optim.Paged(s.cfg.Optimizer):
		note("what is trained, with gradients and optimizer state: on disk, as --optimizer %s says", s.cfg.Optimizer)
	default:
		note("what is trained, with gradients and optimizer state: %s", where(p.PagedParams))
	}
	switch {
	case s.sizes.Slot == 0:
	case p.Slots >= s.blocks:
		note("base: all of it in memory, read once")
	default:
		note("base: %d of %d blocks stay in memory, the others are read for every pass", p.Pinned, s.blocks)
	}
	if s.sizes.Head > 0 {
		if p.ResidentHead {
			note("head: in memory")
		} else {
			note("head: read by sections of the vocabulary")
		}
	}
	return list
}
