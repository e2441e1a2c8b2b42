package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/scratch"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/stream"
)

// Options say how a model is run.
type Options struct {
	Choices

	// Positions is the length of the longest sequence.
	Positions int

	// Batches and Tokens are the most micro-batches of a step and the most tokens of
	// one. Room for them is made at once, so that a disk that is too small shows before
	// the first step. A step that is larger has it made again.
	Batches, Tokens int

	// Observer is told what goes into the linear layers; nil tells nobody.
	Observer model.Observer

	// Pager holds what is trained; nil where all of it stays in memory.
	Pager Pager
}

// A Pager brings what is trained of a block into memory.
type Pager interface {
	// Lease makes Param.Data of the block's parameters valid, and with grads
	// Param.Grad, which is zero then, until release is called. With grads, release
	// takes the gradients as complete: it stores them, and returns an error if one is
	// not finite. next are the blocks that come after it, to be read ahead.
	Lease(ctx context.Context, block int, grads bool, next ...int) (release func() error, err error)
}

// Stats is what an engine has read and waited for.
type Stats struct {
	stream.Stats

	// Scratch is of what it has put on disk itself, but for what is trained.
	Scratch scratch.Stats
}

// Engine runs one model. It is not safe for concurrent use.
type Engine struct {
	model   *model.Model
	arch    *arch.Model
	stream  *stream.Stream
	pager   Pager
	choices Choices
	blocks  int
	ahead   int

	// What stays from step to step: the hidden states of every micro-batch, those
	// between the blocks, and what is kept of the inside of blocks.
	hidden        []float32
	xs            [][]float32
	bounds, inner *tape

	// held are blocks that stay bound, for generation; used counts what the model was
	// made to use.
	held []held
	used int
}

// New returns an engine for the model a with the weights of src and what is
// trained of it. Close ends it.
func New(src tensor.Source, codecs tensor.Codecs, a *arch.Model, train model.Trainable, o Options) (*Engine, error) {
	skip := func(name string) bool { return train.Params[name] != nil }
	s, err := stream.New(src, codecs, a, o.Stream(skip))
	if err != nil {
		return nil, err
	}
	m := model.New(a, train, o.Positions)
	m.Observe(o.Observer)
	e := &Engine{
		model:   m,
		arch:    a,
		stream:  s,
		pager:   o.Pager,
		choices: o.Choices,
		blocks:  int(a.NumHiddenLayers),
		ahead:   max(1, o.Slots-1),
	}
	e.bounds, e.inner = o.tapes(a)
	if o.Batches > 0 {
		if err := e.reserve(o.Batches, o.Tokens); err != nil {
			e.Close()
			return nil, err
		}
		e.hidden = make([]float32, o.Batches*o.Tokens*m.Hidden())
	}
	return e, nil
}

// Close releases the engine's reader and what it has on disk.
func (e *Engine) Close() {
	e.release()
	e.stream.Close()
	e.bounds.release()
	e.inner.release()
}

// Stats returns what has been read and waited for so far.
func (e *Engine) Stats() Stats {
	return Stats{e.stream.Stats(), e.bounds.stats().Add(e.inner.stats())}
}

// Vocab returns the number of tokens that the model predicts among.
func (e *Engine) Vocab() int { return e.model.Vocab() }

// reserve makes room for a step, on disk before in memory.
func (e *Engine) reserve(batches, tokens int) error {
	for _, t := range []*tape{e.inner, e.bounds} {
		if err := t.reserve(batches, tokens); err != nil {
			return err
		}
	}
	e.model.Reserve(e.choices.passFloats(e.arch, e.model.Adapted(), tokens))
	e.model.ReserveHead(batches * tokens)
	return nil
}

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
// of each micro-batch. The sums are there as well if the way back fails.
func (e *Engine) Grad(ctx context.Context, batches []*model.Batch, key func(k int) uint64, scale float32) ([]float64, error) {
	lens, most := make([]int, len(batches)), 0
	for k, b := range batches {
		lens[k] = len(b.Tokens)
		most = max(most, lens[k])
	}
	if err := e.reserve(len(lens), most); err != nil {
		return nil, err
	}
	for _, t := range []*tape{e.bounds, e.inner} {
		t.begin(lens)
	}
	if err := e.forward(ctx, batches, key, true); err != nil {
		return nil, err
	}
	sums, err := e.model.Loss(e.xs, batches, e.stream, true, scale)
	if err != nil {
		return nil, err
	}
	e.bounds.rewind()
	e.inner.rewind()
	for l := e.blocks - 1; l >= 0; l-- {
		err := e.withBlock(ctx, l, true, e.order(l, -1), func(b *model.Block) error {
			for k, batch := range batches {
				if err := e.blockBack(b, l, k, batch, keyOf(key, k)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return sums, err
		}
	}
	for k, b := range batches {
		e.model.EmbedGrad(e.xs[k], b.Tokens, b.Pos)
	}
	return sums, nil
}

// blockBack takes micro-batch k back through block l.
func (e *Engine) blockBack(b *model.Block, l, k int, batch *model.Batch, key *uint64) error {
	x, err := e.bounds.get(l, k)
	if err != nil {
		return err
	}
	kept, err := e.inner.get(l, k)
	if err != nil {
		return err
	}
	if err := b.Backward(e.xs[k], x, batch, key, kept); err != nil {
		return err
	}
	e.bounds.used(l, k)
	e.inner.used(l, k)
	return nil
}

// forward takes the batches through all blocks, keeping what the way back needs if one
// is to come.
func (e *Engine) forward(ctx context.Context, batches []*model.Batch, key func(k int) uint64, keep bool) error {
	if err := e.embed(batches); err != nil {
		return err
	}
	for l := range e.blocks {
		next := e.around(l)
		if keep {
			next = e.order(l, 1)
		}
		err := e.withBlock(ctx, l, false, next, func(b *model.Block) error {
			for k, batch := range batches {
				var err error
				if keep {
					err = e.blockForward(b, l, k, batch, keyOf(key, k))
				} else {
					err = b.Forward(e.xs[k], batch, keyOf(key, k), nil)
				}
				if err != nil {
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

// embed fills the hidden states of the batches, which lie end to end.
func (e *Engine) embed(batches []*model.Batch) error {
	h, n := e.model.Hidden(), 0
	for _, b := range batches {
		n += len(b.Tokens) * h
	}
	if n > len(e.hidden) {
		e.hidden = make([]float32, n)
	}
	rest := e.hidden
	e.xs = e.xs[:0]
	for _, b := range batches {
		n := len(b.Tokens) * h
		x := rest[:n:n]
		e.xs, rest = append(e.xs, x), rest[n:]
		if err := e.model.Embed(x, b.Tokens, b.Pos, e.stream); err != nil {
			return err
		}
	}
	return nil
}

// blockForward takes micro-batch k forward through block l and keeps what the way back
// needs.
func (e *Engine) blockForward(b *model.Block, l, k int, batch *model.Batch, key *uint64) error {
	x, err := e.bounds.put(l, k)
	if err != nil {
		return err
	}
	copy(x, e.xs[k])
	e.bounds.written(l, k)
	kept, err := e.inner.put(l, k)
	if err != nil {
		return err
	}
	if err := b.Forward(e.xs[k], batch, key, kept); err != nil {
		return err
	}
	e.inner.written(l, k)
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
