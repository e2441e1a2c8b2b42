package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/tensor"
)

// Option sets how a plan is run. It has no influence on the bytes written.
type Option func(*config)

type config struct {
	workers  int
	memory   int64
	room     int64
	progress func(written int64)
}

// WithWorkers sets how many steps may run at a time; the default is one for
// each processor Go may use.
func WithWorkers(n int) Option { return func(c *config) { c.workers = n } }

// WithMemory sets the budget for the scratch memory of all running steps
// together, in bytes; 0, the default, is no limit.
func WithMemory(n int64) Option { return func(c *config) { c.memory = n } }

// WithRoom is WithMemory as a wish: a step that needs more than n bytes by itself
// runs alone. A budget that is given counts instead.
func WithRoom(n int64) Option { return func(c *config) { c.room = n } }

// WithProgress has f told of written bytes, as they are: each call gives those
// since the last. f is called from any goroutine.
func WithProgress(f func(written int64)) Option { return func(c *config) { c.progress = f } }

// Run checks the plan against src and carries it out: Begin, every step, and
// Finish; or, if anything fails or ctx is done, Abort. What fails is named by
// the first output of its step.
func Run(ctx context.Context, p *Plan, src tensor.Source, dst tensor.Sink, opts ...Option) error {
	c := config{workers: runtime.GOMAXPROCS(0), progress: func(int64) {}}
	for _, o := range opts {
		o(&c)
	}
	if err := p.Check(src, c.memory); err != nil {
		return errors.Join(err, dst.Abort())
	}
	if err := dst.Begin(p.Meta, p.Layout()); err != nil {
		return errors.Join(err, dst.Abort())
	}
	if err := runSteps(ctx, p, src, dst, c); err != nil {
		return errors.Join(err, dst.Abort())
	}
	return dst.Finish()
}

func runSteps(ctx context.Context, p *Plan, src tensor.Source, dst tensor.Sink, c config) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	gate := newGate(cmp.Or(c.memory, c.room), max(1, c.workers))
	var wg sync.WaitGroup
	first := 0
	for _, s := range p.Steps {
		at := first
		first += len(s.Out)
		if !gate.enter(ctx, s.Scratch) {
			break
		}
		wg.Go(func() {
			defer gate.leave(s.Scratch)
			if err := runStep(ctx, s, at, src, dst, c.progress); err != nil {
				cancel(fmt.Errorf("tensor %q: %w", s.Out[0].Name, err))
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func runStep(ctx context.Context, s Step, at int, src tensor.Source, dst tensor.Sink, progress func(int64)) error {
	out := make([]io.WriterAt, len(s.Out))
	for i := range out {
		w, err := dst.Body(at + i)
		if err != nil {
			return err
		}
		out[i] = counting{ctx, w, progress}
	}
	return s.Run(ctx, src, out)
}

// counting reports what is written, and refuses to write for a run that has
// ended.
type counting struct {
	ctx      context.Context
	w        io.WriterAt
	progress func(int64)
}

func (c counting) WriteAt(p []byte, off int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.w.WriteAt(p, off)
	c.progress(int64(n))
	return n, err
}

// MoveFrom implements mover if what is written to does.
func (c counting) MoveFrom(off int64, src *os.File, at, n int64) (int64, error) {
	m, ok := c.w.(mover)
	if !ok {
		return 0, fsx.ErrCannotMove
	}
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	moved, err := m.MoveFrom(off, src, at, n)
	c.progress(moved)
	return moved, err
}

// gate admits steps in order while a worker and their memory are free. The
// first in line waits for its memory, or if that is more than there is for all
// other steps to end, rather than be overtaken, so the order of
// starting, and with it the locality of reading, is that of the plan.
type gate struct {
	mu     sync.Mutex
	free   *sync.Cond
	limit  int64
	inUse  int64
	vacant int
}

func newGate(limit int64, workers int) *gate {
	g := &gate{limit: limit, vacant: workers}
	g.free = sync.NewCond(&g.mu)
	return g
}

// enter waits for room and reports whether ctx is still going.
func (g *gate) enter(ctx context.Context, scratch int64) bool {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.free.Broadcast()
	})
	defer stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for ctx.Err() == nil && (g.vacant == 0 || g.limit > 0 && g.inUse > 0 && g.inUse+scratch > g.limit) {
		g.free.Wait()
	}
	if ctx.Err() != nil {
		return false
	}
	g.vacant--
	g.inUse += scratch
	return true
}

func (g *gate) leave(scratch int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vacant++
	g.inUse -= scratch
	g.free.Broadcast()
}
