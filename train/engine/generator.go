package engine

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
)

const (
	// piece is how many tokens of a prompt go through a block at a time.
	piece = 256

	// segment is how many go through all blocks, so that weights that are not in
	// memory are read once for all of them.
	segment = 8 * piece
)

// GenerateBytes returns the memory that generating takes beside the weights, for
// sequences of up to so many tokens: keys and values, and everything else.
func GenerateBytes(a *arch.Model, adapted model.Adapted, positions int) (cache, rest int64) {
	most := 0
	for l := range int(a.NumHiddenLayers) {
		most = max(most, model.ForwardFloats(a, adapted, l, min(piece, positions), false))
	}
	rest = 4 * (int64(most) + int64(min(segment, positions))*a.HiddenSize + 2*a.VocabSize)
	rest += kernel.AttentionBytes(int(a.HeadDim))
	rest += kernel.PanelBytes(min(piece, positions), int(max(a.IntermediateSize, a.HiddenSize)), int(a.HiddenSize))
	return model.CacheBytes(a, positions), rest
}

// A Generator continues sequences. It keeps the keys and values of the last one, so that
// one that begins in the same way costs what is new of it. It is not safe for concurrent
// use, nor together with others of its Engine.
type Generator struct {
	e      *Engine
	cache  *model.Cache
	used   int     // Engine.used, with which the cache was made
	tokens []int32 // in the cache

	// end is the last hidden state of the tokens before the one at at, which begin a
	// sequence that was continued: to continue it in another way.
	end []float32
	at  int

	x      []float32
	pos    []int32
	logits []float32
}

// Turn is what one call of Generate has done.
type Turn struct {
	// Reused is how many tokens of the sequence were there, Read how many were not, and
	// Made how many it was continued by.
	Reused, Read, Made int

	// Reading and Making are how long it took.
	Reading, Making time.Duration
}

// NewGenerator returns a Generator with nothing in its cache.
func (e *Engine) NewGenerator() *Generator {
	return &Generator{e: e, cache: e.model.NewCache(), used: e.used, logits: make([]float32, e.model.Vocab())}
}

// Len returns how many tokens have their keys and values in memory, and Bytes what these
// take there.
func (g *Generator) Len() int     { return g.cache.Len() }
func (g *Generator) Bytes() int64 { return g.cache.Bytes() }

// Generate continues a sequence, calling emit with each new token until it returns false
// or there is no position left. Each new token takes one pass through the blocks.
//
// Tokens that were computed one at a time and those that were computed together are not
// the same in their last bits. So what follows depends on what was in the cache as
// rounding does; with the same calls before it is the same.
func (g *Generator) Generate(ctx context.Context, sequence []int32, o Sampling, emit func(token int32) bool) (Turn, error) {
	var t Turn
	if len(sequence) == 0 {
		return t, fmt.Errorf("%w: nothing to continue: the prompt has no token", tensor.ErrMalformed)
	}
	if err := o.Check(); err != nil {
		return t, err
	}
	if len(sequence) > g.e.model.Positions() {
		return t, nil
	}
	start := time.Now()
	var err error
	if t.Reused, err = g.read(ctx, sequence); err != nil {
		return t, err
	}
	t.Read = len(sequence) - t.Reused
	s := newSampler(len(g.logits), o)
	all := append(make([]int32, 0, len(sequence)+256), sequence...)
	for last := g.end; ; {
		if err := g.e.model.Logits(g.logits, last, g.e.stream); err != nil {
			return t, err
		}
		token := s.choose(g.logits, all)
		if t.Made == 0 {
			t.Reading = time.Since(start)
			start = time.Now()
		}
		t.Made++
		t.Making = time.Since(start)
		if !emit(token) || len(all) == g.e.model.Positions() {
			return t, nil
		}
		all = append(all, token)
		if last, err = g.advance(ctx, all); err != nil {
			return t, err
		}
	}
}

// read brings a sequence into the cache, and its last hidden state into end. It returns
// how much of it was there.
func (g *Generator) read(ctx context.Context, sequence []int32) (reused int, err error) {
	if g.used != g.e.used {
		g.cache, g.used, g.tokens, g.at = g.e.model.NewCache(), g.e.used, g.tokens[:0], 0
	}
	for reused < min(len(sequence), len(g.tokens)) && sequence[reused] == g.tokens[reused] {
		reused++
	}
	if reused == len(sequence) && reused != g.at {
		reused-- // there is no hidden state to make logits of
	}
	if g.cache.Reach(len(sequence)); g.cache.Rewind(reused) < reused {
		reused = 0
	}
	g.tokens = g.tokens[:reused]
	if reused == len(sequence) {
		return reused, nil
	}
	g.at = 0
	last, err := g.advance(ctx, sequence)
	if err != nil {
		return reused, err
	}
	g.end, g.at = append(g.end[:0], last...), len(sequence)
	return reused, nil
}

// advance brings what the cache lacks of a sequence into it, and returns the hidden state
// of the last token.
func (g *Generator) advance(ctx context.Context, sequence []int32) (last []float32, err error) {
	g.cache.Reach(len(sequence))
	g.tokens = g.tokens[:g.cache.Len()]
	for len(g.tokens) < len(sequence) {
		next := sequence[len(g.tokens):]
		next = next[:min(segment, len(next))]
		if err := g.extend(ctx, next); err != nil {
			return nil, err
		}
		h := g.e.model.Hidden()
		last = g.x[(len(next)-1)*h : len(next)*h]
	}
	return last, nil
}

// extend passes the next tokens through all blocks, which leaves their hidden states
// in x.
func (g *Generator) extend(ctx context.Context, next []int32) error {
	e, h := g.e, g.e.model.Hidden()
	if len(g.x) < len(next)*h {
		g.x, g.pos = make([]float32, len(next)*h), make([]int32, len(next))
	}
	x, pos := g.x[:len(next)*h], g.pos[:len(next)]
	for i := range pos {
		pos[i] = int32(g.cache.Len() + i)
	}
	if err := e.model.Embed(x, next, pos, e.stream); err != nil {
		return err
	}
	for l := range e.blocks {
		if err := e.inBlock(ctx, l, func(b *model.Block) error {
			for at := 0; at < len(next); at += piece {
				to := min(len(next), at+piece)
				if err := b.Extend(x[at*h:to*h], pos[at:to], g.cache); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	g.cache.Advance(len(next))
	g.tokens = append(g.tokens, next...)
	return nil
}

// Generate continues a prompt, calling emit with each new token until it returns
// false or there is no position left.
func (e *Engine) Generate(ctx context.Context, prompt []int32, o Sampling, emit func(token int32) bool) error {
	_, err := e.NewGenerator().Generate(ctx, prompt, o, emit)
	return err
}

// around returns the blocks that come after block l when the first follows the
// last.
func (e *Engine) around(l int) []int {
	var next []int
	for i := 1; i <= min(e.ahead, e.blocks-1); i++ {
		next = append(next, (l+i)%e.blocks)
	}
	return next
}

// Use has the model compute with what else is trained of it, such as another adapter.
// Of what that has among its Params, the base's own tensors must not have been left out
// when the engine was made. Nothing of the base is read again.
func (e *Engine) Use(train model.Trainable) {
	e.model.Use(train)
	e.release()
	e.used++
}

// Perplexity returns e to the mean of n cross-entropies with that sum.
func Perplexity(sum float64, n int) float64 { return math.Exp(sum / float64(n)) }

// A held block is bound once and for all.
type held struct {
	block   *model.Block
	release func()
}

// inBlock calls f with a block for the next tokens. Where all blocks stay in memory they
// stay bound, too.
func (e *Engine) inBlock(ctx context.Context, l int, f func(b *model.Block) error) error {
	if e.pager != nil || e.choices.Slots < e.blocks {
		return e.withBlock(ctx, l, false, e.around(l), f)
	}
	if e.held == nil {
		e.held = make([]held, e.blocks)
	}
	if x := &e.held[l]; x.block == nil {
		if err := e.hold(ctx, l); err != nil {
			return fmt.Errorf("block %d: %w", l, err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("block %d: %w", l, err)
	}
	if err := f(e.held[l].block); err != nil {
		return fmt.Errorf("block %d: %w", l, err)
	}
	return nil
}

// hold binds a block for good.
func (e *Engine) hold(ctx context.Context, l int) error {
	// The block is read under ctx, which can end that, and bound beyond it.
	first, err := e.stream.Lease(ctx, l, e.around(l)...)
	if err != nil {
		return err
	}
	defer first.Release()
	if _, err := e.model.Block(l, first); err != nil {
		return err
	}
	lease, err := e.stream.Lease(context.WithoutCancel(ctx), l)
	if err != nil {
		return err
	}
	b, err := e.model.Block(l, lease)
	if err != nil {
		lease.Release()
		return err
	}
	e.held[l] = held{b, lease.Release}
	return nil
}

// release lets go of the blocks that are held.
func (e *Engine) release() {
	for _, x := range e.held {
		if x.block != nil {
			x.release()
		}
	}
	e.held = nil
}
