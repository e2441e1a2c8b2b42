package stream

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed18967229/nibble/internal/kernel"
)

// slot has place for one block.
type slot struct {
	pinned bool // to the block it gets first, one of the first ones
	block  int  // -1 while empty
	users  int
	busy   int  // parts that have been asked for and are not there yet
	failed bool // one of its parts could not be read

	mem    []byte
	floats []float32
	parts  []part // of the block, as its layout has them
}

func (x *slot) free() {
	freeRegion(x.mem)
	x.mem, x.parts, x.block = nil, nil, -1
}

// Lease is one block in memory. It gives the tensors outside the blocks too. It is
// safe for concurrent use until it is released.
type Lease struct {
	s     *Stream
	ctx   context.Context
	slot  *slot
	block int
}

// Lease begins to read block number i, unless it is there, and then the next ones into
// what slots are free. It returns when there is a slot; Matrix and Vector wait for what
// they return. The caller must Release it.
func (s *Stream) Lease(ctx context.Context, i int, next ...int) (*Lease, error) {
	if i < 0 || i >= len(s.blocks) {
		return nil, fmt.Errorf("block %d: the model has %d", i, len(s.blocks))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	start := time.Now()
	order := append([]int{i}, next...)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.stats.Waited += time.Since(start) }()
	own := s.find(i)
	for ; own == nil; own = s.find(i) {
		if s.closing {
			return nil, fmt.Errorf("block %d: %w", i, errClosed)
		}
		if x := s.vacate(order, 0); x != nil {
			s.fill(x, i, true)
			break
		}
		// Every slot is leased or being filled. One that is being filled will
		// be free to take.
		if !slices.ContainsFunc(s.slots, func(x *slot) bool { return x.users == 0 && x.busy > 0 }) {
			return nil, fmt.Errorf("block %d: all %d slots are leased", i, len(s.slots))
		}
		quiet := s.quiet
		s.mu.Unlock()
		select {
		case <-quiet:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	own = s.find(i)
	own.users++
	s.hurry(own)
	for at, j := range order {
		if j < 0 || j >= len(s.blocks) || s.find(j) != nil {
			continue
		}
		ahead := s.vacate(order, at)
		if ahead == nil {
			break
		}
		s.fill(ahead, j, false)
	}
	return &Lease{s, ctx, own, i}, nil
}

// find returns the slot that has or is getting a block, unless that failed.
func (s *Stream) find(block int) *slot {
	for _, x := range s.slots {
		if x.block == block && !x.failed {
			return x
		}
	}
	return nil
}

// vacate returns a slot that may be filled anew: one that is empty, or whose
// block is there, not leased, and of those the one whose next use is farthest.
// order is what is to come; a block that is used at position after or before is
// kept.
func (s *Stream) vacate(order []int, after int) *slot {
	if pinned := s.pinned(order[after]); pinned != nil {
		return pinned
	}
	var found *slot
	farthest := after
	for _, x := range s.slots {
		if x.pinned || x.busy > 0 || x.users > 0 {
			continue
		}
		if x.block < 0 {
			return x
		}
		use := slices.Index(order, x.block)
		if use < 0 || x.failed {
			use = len(order)
		}
		if use > farthest {
			found, farthest = x, use
		}
	}
	return found
}

// pinned returns the slot that is the block's own, if it has one, and that may be
// filled: the first blocks have the first slots.
func (s *Stream) pinned(block int) *slot {
	if block >= len(s.slots) {
		return nil
	}
	if x := s.slots[block]; x.pinned && x.users == 0 && x.busy == 0 {
		return x
	}
	return nil
}

// fill has a block read into a vacant slot, but for its experts.
func (s *Stream) fill(x *slot, block int, urgent bool) {
	l := s.blocks[block]
	x.block, x.failed = block, false
	x.parts = slices.Grow(x.parts[:0], len(l.places))[:len(l.places)]
	var list []*part
	for i, p := range l.places {
		size := p.info.Size()
		x.parts[i] = part{
			name: p.info.Name, info: p.info, size: size, open: true, slot: x,
			room: x.mem[p.at:][:roomOf(size):roomOf(size)],
		}
		if len(p.info.Shape) == 1 {
			n := int(p.info.Shape[0])
			x.parts[i].vector = x.floats[p.floats:][:n:n]
		}
		if p.expert < 0 {
			list = append(list, &x.parts[i])
		}
	}
	s.ask(list, urgent)
}

// Experts starts reading experts of the block, those that are there excepted. wait
// waits for one of them; then Matrix has its tensors.
func (l *Lease) Experts(which []int) (wait func(expert int) error) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []*part
	for _, e := range which {
		for _, i := range s.blocks[l.block].experts[e] {
			if p := &l.slot.parts[i]; p.state == idle {
				missing = append(missing, p)
			}
		}
	}
	s.ask(missing, true)
	return func(expert int) error {
		for _, i := range s.blocks[l.block].experts[expert] {
			if err := l.wait(&l.slot.parts[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

// part returns a tensor of the block once it is there, nil if the block has none of
// that name. An expert that nobody has asked for is read.
func (l *Lease) part(name string) (*part, error) {
	i, ok := l.s.blocks[l.block].index[name]
	if !ok {
		return nil, nil
	}
	p := &l.slot.parts[i]
	return p, l.wait(p)
}

// wait waits for a part of the block.
func (l *Lease) wait(p *part) error {
	s := l.s
	s.mu.Lock()
	if p.state == idle {
		s.ask([]*part{p}, true)
	}
	ready := p.ready
	s.mu.Unlock()
	return s.await(l.ctx, ready, p)
}

// await waits until a part is ready, and counts for how long.
func (s *Stream) await(ctx context.Context, ready <-chan struct{}, p *part) error {
	select {
	case <-ready:
		return p.err
	default:
	}
	start := time.Now()
	defer func() {
		s.mu.Lock()
		s.stats.Waited += time.Since(start)
		s.mu.Unlock()
	}()
	select {
	case <-ready:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Release ends the lease; nothing of it may be used afterwards.
func (l *Lease) Release() {
	s, x := l.s, l.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.users--; x.users == 0 && s.closing {
		x.free()
	}
}

// Matrix implements model.Weights.
func (l *Lease) Matrix(name string) (kernel.Matrix, error) {
	p, err := l.part(name)
	if err != nil {
		return nil, err
	}
	if p != nil && p.matrix != nil {
		return p.matrix, nil
	}
	return l.s.Matrix(name)
}

// Vector implements model.Weights.
func (l *Lease) Vector(name string) ([]float32, error) {
	p, err := l.part(name)
	if err != nil {
		return nil, err
	}
	if p != nil && p.vector != nil {
		return p.vector, nil
	}
	return l.s.Vector(name)
}
