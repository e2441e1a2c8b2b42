package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/stream"
)

// Options say how a model is run.
type Options struct {
	Choices

	// Positions is the length of the longest sequence.
	Positions int

	// Observer is told what goes into the linear layers; nil tells nobody.
	Observer model.Observer

	// Pager holds what is trained; nil where all of it stays in memory.
	Pager Pager
}

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

// A Pager brings what is trained of a block into memory.
type Pager interface {
	// Lease makes Param.Data of the block's parameters valid, and with grads
	// Param.Grad, which is zero then, until release is called. With grads, release
	// takes the gradients as complete: it stores them, and returns an error if one is
	// not finite. next are the blocks that come after it, to be read ahead.
	Lease(ctx context.Context, block int, grads bool, next ...int) (release func() error, err error)
}

// Engine runs one model. It is not safe for concurrent use.
type Engine struct {
	model  *model.Model
	stream *stream.Stream
	pager  Pager
	blocks int
	ahead  int

	// Buffers that stay from step to step: the hidden states of every
	// micro-batch, and those between the blocks.
	xs     [][]float32
	bounds [][][]float32
}

// New returns an engine for the model a with the weights of src and what is
// trained of it. Close ends it.
func New(src tensor.Source, codecs tensor.Codecs, a *arch.Model, train model.Trainable, o Options) (*Engine, error) {
	skip := func(name string) bool { return train.Params[name] != nil }
	s, err := stream.New(src, codecs, a, stream.Options{Slots: o.Slots, Pinned: o.Pinned, ResidentHead: o.ResidentHead, Skip: skip})
	if err != nil {
		return nil, err
	}
	m := model.New(a, train, o.Positions)
	m.Observe(o.Observer)
	return &Engine{
		model:  m,
		stream: s,
		pager:  o.Pager,
		blocks: int(a.NumHiddenLayers),
		ahead:  max(1, o.Slots-1),
		bounds: make([][][]float32, a.NumHiddenLayers),
	}, nil
}

// Close releases the engine's reader.
func (e *Engine) Close() { e.stream.Close() }

// Stats returns what has been read and waited for so far.
func (e *Engine) Stats() stream.Stats { return e.stream.Stats() }

// Loss returns the sum of the cross-entropies of each batch's labels, in nats.
func (e *Engine) Loss(ctx context.Context, batches []*model.Batch) ([]float64, error) {
	if err := e.forward(ctx, batches, nil, false); err != nil {
		return nil, err
	}
	return e.model.Loss(e.xs, batches, e.stream, false, 1)
}

// compare compares the predictions of each batch's labels with those of a base.
func (e *Engine) compare(ctx context.Context, base *Engine, batches []*model.Batch) ([]model.Comparison, error) {
	for _, x := range []*Engine{base, e} {
		if err := x.forward(ctx, batches, nil, false); err != nil {
			return nil, err
		}
	}
	return model.Compare(e.final(), base.final(), batches)
}

func (e *Engine) final() model.Final { return model.Final{Model: e.model, Xs: e.xs, Weights: e.stream} }

// Grad returns the same, and adds to the gradients of everything trained those
// of the sum over all batches times scale. key, if not nil, chooses the dropout
// of each micro-batch.
func (e *Engine) Grad(ctx context.Context, batches []*model.Batch, key func(k int) uint64, scale float32) ([]float64, error) {
	if err := e.forward(ctx, batches, key, true); err != nil {
		return nil, err
	}
	sums, err := e.model.Loss(e.xs, batches, e.stream, true, scale)
	if err != nil {
		return nil, err
	}
	for l := e.blocks - 1; l >= 0; l-- {
		err := e.withBlock(ctx, l, true, e.order(l, -1), func(b *model.Block) error {
			for k, batch := range batches {
				if err := b.Backward(e.xs[k], e.bounds[l][k], batch, keyOf(key, k)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for k, b := range batches {
		e.model.EmbedGrad(e.xs[k], b.Tokens, b.Pos)
	}
	return sums, nil
}

// forward takes the batches through all blocks, keeping what goes into each
// block if a way back is to come.
func (e *Engine) forward(ctx context.Context, batches []*model.Batch, key func(k int) uint64, keep bool) error {
	h := e.model.Hidden()
	e.xs = grow(e.xs, len(batches))
	for k, b := range batches {
		e.xs[k] = resize(e.xs[k], len(b.Tokens)*h)
		if err := e.model.Embed(e.xs[k], b.Tokens, b.Pos, e.stream); err != nil {
			return err
		}
	}
	for l := range e.blocks {
		next := e.around(l)
		if keep {
			next = e.order(l, 1)
			e.bounds[l] = grow(e.bounds[l], len(batches))
		}
		err := e.withBlock(ctx, l, false, next, func(b *model.Block) error {
			for k, batch := range batches {
				if keep {
					e.bounds[l][k] = resize(e.bounds[l][k], len(e.xs[k]))
					copy(e.bounds[l][k], e.xs[k])
				}
				if err := b.Forward(e.xs[k], batch, keyOf(key, k)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func keyOf(key func(k int) uint64, k int) *uint64 {
	if key == nil {
		return nil
	}
	u := key(k)
	return &u
}

// withBlock leases a block and what is trained of it for as long as f runs.
func (e *Engine) withBlock(ctx context.Context, l int, grads bool, next []int, f func(b *model.Block) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("block %d: %w", l, err)
		}
	}()
	if e.pager != nil {
		release, err := e.pager.Lease(ctx, l, grads, next...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	lease, err := e.stream.Lease(ctx, l, next...)
	if err != nil {
		return err
	}
	defer lease.Release()
	b, err := e.model.Block(l, lease)
	if err != nil {
		return err
	}
	return f(b)
}

// order returns the blocks that come after block l: on up or down from it, and
// at an end back the other way, since forward is followed by backward and
// backward by the next step.
func (e *Engine) order(l, step int) []int {
	var next []int
	for range e.ahead {
		if l+step < 0 || l+step >= e.blocks {
			step = -step // the block at the end is still there
			if l+step < 0 || l+step >= e.blocks {
				break
			}
		}
		l += step
		next = append(next, l)
	}
	return next
}

// grow returns s with at least n elements, keeping their buffers.
func grow(s [][]float32, n int) [][]float32 {
	for len(s) < n {
		s = append(s, nil)
	}
	return s
}

func resize(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}
