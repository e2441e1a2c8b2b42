package engine

import (
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/stream"
)

// Choices say what of a step is in memory, what is on disk and what is computed
// twice. None of them changes a bit of any result.
type Choices struct {
	// Slots is the number of blocks in memory at a time (stream.Options).
	Slots int

	// Pinned is how many of the slots keep the first blocks for good.
	Pinned int

	// ResidentHead says that the matrix that makes logits stays in memory; else it is
	// read by sections where it is used.
	ResidentHead bool

	// Of the blocks, the last Kept have what the way back needs of their inside kept
	// in memory, the Spilled before those have it on disk, and the rest compute it
	// again.
	Kept, Spilled int

	// PagedBounds says that the hidden states between the blocks are on disk.
	PagedBounds bool

	// PagedParams says that what is trained, its gradients and the optimizer's state
	// are on disk, but for what lies outside the blocks.
	PagedParams bool

	// Scratch is the directory for what is on disk. The files in it have no names
	// there, or lose them when the engine is closed.
	Scratch string
}

// Need is what a step takes, in bytes, beside the blocks themselves, what is trained and
// what the head takes.
type Need struct {
	// Hidden is for the hidden states of all micro-batches, Bounds for those between the
	// blocks and Kept for the inside of blocks, as far as they are in memory.
	Hidden, Bounds, Kept int64

	// Ring is for what is on its way to disk or back.
	Ring int64

	// Pass is for what a block computes with.
	Pass int64

	// Disk is what is on disk.
	Disk int64
}

// Need returns what a step of so many micro-batches of so many tokens takes.
func (c Choices) Need(a *arch.Model, adapted model.Adapted, batches, tokens int) Need {
	bounds, inner := c.tapes(a)
	b, i := bounds.need(batches, tokens), inner.need(batches, tokens)
	return Need{
		Hidden: 4 * int64(batches) * int64(tokens) * a.HiddenSize,
		Bounds: b.memory, Kept: i.memory,
		Ring: b.ring + i.ring,
		Pass: 4 * int64(c.passFloats(a, adapted, tokens)),
		Disk: b.disk + i.disk,
	}
}

// KeptBytes returns the bytes that the inside of a block takes for a micro-batch of so
// many tokens.
func KeptBytes(a *arch.Model, layer, tokens int) int64 {
	return 4 * int64(model.KeptFloats(a, layer, tokens))
}

// tapes returns those of the hidden states between the blocks and of their inside.
func (c Choices) tapes(a *arch.Model) (bounds, inner *tape) {
	blocks := int(a.NumHiddenLayers)
	bounds = &tape{blocks: blocks, kept: blocks, dir: c.Scratch, floats: func(_, tokens int) int { return tokens * int(a.HiddenSize) }}
	if c.PagedBounds {
		bounds.kept, bounds.spilled = 0, blocks
	}
	kept := min(c.Kept, blocks)
	inner = &tape{blocks: blocks, kept: kept, spilled: min(c.Spilled, blocks-kept), dir: c.Scratch, floats: func(l, tokens int) int { return model.KeptFloats(a, l, tokens) }}
	return bounds, inner
}

// passFloats returns the scratch memory of the pass of a block that takes the most,
// an evaluation among them.
func (c Choices) passFloats(a *arch.Model, adapted model.Adapted, tokens int) (most int) {
	_, inner := c.tapes(a)
	for l := range inner.blocks {
		again := l < inner.first()
		most = max(most, model.ForwardFloats(a, adapted, l, tokens, false), model.ForwardFloats(a, adapted, l, tokens, !again), model.BackwardFloats(a, adapted, l, tokens, !again))
	}
	return most
}

// Stream returns the part of the choices that is about the base. skip is
// stream.Options'.
func (c Choices) Stream(skip func(name string) bool) stream.Options {
	return stream.Options{Slots: c.Slots, Pinned: c.Pinned, ResidentHead: c.ResidentHead, Skip: skip}
}
