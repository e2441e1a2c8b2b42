package pages

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/scratch"
	"github.com/seed18967229/nibble/train/optim"
)

// Store holds parameters and what belongs to them. It is an engine.Pager, and not safe
// for concurrent use.
type Store struct {
	params []*optim.Param
	*layout
	states  [][][]byte // of what is not paged
	squares []float64  // sums of the squared gradients, of each parameter

	file  *scratch.File // nil if nothing is paged
	pages []*page
}

// page is a buffer of a paged store.
type page struct {
	buf   []byte
	block int // the block whose values it has, -1 if none
	users int
	busy  []*scratch.Transfer
}

// wait returns when nothing is read into or written from the page any more.
func (p *page) wait() error {
	var errs []error
	for _, t := range p.busy {
		errs = append(errs, t.Wait())
	}
	p.busy = p.busy[:0]
	return errors.Join(errs...)
}

// New returns a store of the parameters. They have no values before Init or Load. Close
// ends it.
func New(params []*optim.Param, opt optim.Optimizer, o Options) (*Store, error) {
	s := &Store{
		params: params, layout: newLayout(params, opt, o.Paged),
		states: make([][][]byte, len(params)), squares: make([]float64, len(params)),
	}
	for i, p := range params {
		if x := &s.places[i]; !x.paged {
			n := p.Shape.Elems()
			p.Data, p.Grad = make([]float32, n), make([]float32, n)
			s.states[i] = x.view(p, make([]byte, x.state))
		}
	}
	if s.disk == 0 {
		return s, nil
	}
	var err error
	if s.file, err = scratch.Create(o.Scratch, s.disk); err != nil {
		return nil, err
	}
	for range o.buffers() {
		s.pages = append(s.pages, &page{buf: scratch.Buffer(s.page), block: -1})
	}
	return s, nil
}

// Close removes the file.
func (s *Store) Close() {
	if s.file != nil {
		s.file.Close()
	}
}

// Stats returns what has been read, written and waited for so far.
func (s *Store) Stats() scratch.Stats {
	if s.file == nil {
		return scratch.Stats{}
	}
	return s.file.Stats()
}

// Params returns the parameters.
func (s *Store) Params() []*optim.Param { return s.params }

// Begin begins a step: gradients outside the blocks are zero from now on.
func (s *Store) Begin() {
	clear(s.squares)
	if b := s.blocks[-1]; b != nil {
		s.zero(b)
	}
}

func (s *Store) zero(b *block) {
	for _, i := range b.params {
		clear(s.params[i].Grad)
	}
}

// sum takes the gradients of a block as complete.
func (s *Store) sum(b *block) error {
	for _, i := range b.params {
		p := s.params[i]
		s.squares[i] = kernel.SumSquares(p.Grad)
		if math.IsNaN(s.squares[i]) || math.IsInf(s.squares[i], 0) {
			return fmt.Errorf("the gradient of %s is %w", p.Name, optim.ErrNotFinite)
		}
	}
	return nil
}

// Norm returns the Euclidean norm of all gradients together, after those of every block
// have been released.
func (s *Store) Norm() (float64, error) {
	if b := s.blocks[-1]; b != nil {
		if err := s.sum(b); err != nil {
			return 0, err
		}
	}
	var sum float64
	for _, x := range s.squares {
		sum += x
	}
	return math.Sqrt(sum), nil
}

// Lease implements engine.Pager.
func (s *Store) Lease(_ context.Context, number int, grads bool, next ...int) (release func() error, err error) {
	b := s.blocks[number]
	switch {
	case b == nil:
		if s.file != nil {
			s.readAhead(number, next)
		}
		return func() error { return nil }, nil
	case s.file != nil:
		return s.lease(b, number, grads, next)
	case !grads:
		return func() error { return nil }, nil
	}
	s.zero(b)
	return func() error { return s.sum(b) }, nil
}

// lease is Lease of a block in the file.
func (s *Store) lease(b *block, number int, grads bool, next []int) (func() error, error) {
	values := s.holding(number)
	if values == nil {
		values = s.take(next)
		s.read(values, number)
	}
	values.users++
	if err := values.wait(); err != nil {
		return nil, err
	}
	var g *page
	if grads {
		g = s.take(next)
		if err := g.wait(); err != nil {
			return nil, err
		}
		g.block = -1
		g.users++
		clear(g.buf[:b.values])
	}
	for _, i := range b.params {
		p, x := s.params[i], &s.places[i]
		n := 4 * p.Shape.Elems()
		p.Data = kernel.Floats(values.buf[x.at:][:n])
		if grads {
			p.Grad = kernel.Floats(g.buf[x.at:][:n])
		}
	}
	s.readAhead(number, next)
	return func() error {
		var err error
		if grads {
			if err = s.sum(b); err == nil {
				g.busy = append(g.busy, s.file.Write(g.buf[:b.values], b.at))
			}
			g.users--
		}
		values.users--
		for _, i := range b.params {
			s.params[i].Data, s.params[i].Grad = nil, nil
		}
		return err
	}, nil
}

// read begins to read a block's values into a page. Transfers are done in their order,
// so that one that is still being written from is not harmed.
func (s *Store) read(p *page, number int) {
	b := s.blocks[number]
	p.block = number
	p.busy = append(p.busy, s.file.Read(p.buf[:b.values], b.valuesAt))
}

// readAhead begins to read the values of the blocks that come next into pages that hold
// nothing better.
func (s *Store) readAhead(number int, next []int) {
	for _, n := range next {
		if s.blocks[n] == nil || s.holding(n) != nil {
			continue
		}
		p := s.take(append(slices.Clone(next), number))
		if p == nil || slices.Contains(next, p.block) {
			return
		}
		s.read(p, n)
	}
}

// holding returns the page that has the values of a block, or soon will.
func (s *Store) holding(number int) *page {
	for _, p := range s.pages {
		if p.block == number {
			return p
		}
	}
	return nil
}

// take returns a page that nobody uses, nil if there is none: rather one that is idle,
// and one whose block is not wanted.
func (s *Store) take(wanted []int) *page {
	var best *page
	least := math.MaxInt
	for _, p := range s.pages {
		if p.users > 0 {
			continue
		}
		cost := min(1, len(p.busy))
		if slices.Contains(wanted, p.block) {
			cost += 2
		}
		if cost < least {
			best, least = p, cost
		}
	}
	return best
}

// Init gives all parameters their first values and states of zero.
func (s *Store) Init() error {
	return s.each(false, func(i int, state [][]byte) error {
		p := s.params[i]
		for _, b := range state {
			clear(b)
		}
		if err := p.First(p.Data); err != nil {
			return fmt.Errorf("tensor %q: %w", p.Name, err)
		}
		return nil
	})
}

// Update calls f for each parameter, in memory with its gradient and its state, all of
// which it may change but the gradient, and keeps what it made of them. Gradients are
// spent then.
func (s *Store) Update(f func(p *optim.Param, state [][]byte) error) error {
	return s.each(true, func(i int, state [][]byte) error { return f(s.params[i], state) })
}

// each is Update by the numbers of the parameters; without read what was there before is
// not read.
func (s *Store) each(read bool, f func(i int, state [][]byte) error) error {
	var paged []int
	for i := range s.params {
		if s.places[i].paged {
			paged = append(paged, i)
		} else if err := f(i, s.states[i]); err != nil {
			return err
		}
	}
	for _, p := range s.pages {
		p.block = -1 // what was read ahead is not what will be
	}
	// A page holds gradient, values and state of one parameter. The next one's is read
	// and the last one's written beside the work.
	at := func(k int) *page { return s.pages[k%len(s.pages)] }
	start := func(k int) {
		if k < len(paged) && read {
			x, p := &s.places[paged[k]], at(k)
			v := x.values
			p.busy = append(p.busy, s.file.Read(p.buf[:v], x.gradAt), s.file.Read(p.buf[v:2*v], x.valuesAt), s.file.Read(p.buf[2*v:2*v+x.state], x.stateAt))
		}
	}
	start(0)
	var err error
	for k, i := range paged {
		start(k + 1)
		if err = s.one(i, at(k), f); err != nil {
			break
		}
	}
	for _, p := range s.pages {
		err = errors.Join(err, p.wait())
	}
	return err
}

// one calls f for a parameter in a page, and begins to write what it made of it.
func (s *Store) one(i int, g *page, f func(i int, state [][]byte) error) error {
	if err := g.wait(); err != nil {
		return err
	}
	p, x := s.params[i], &s.places[i]
	n, v := 4*p.Shape.Elems(), x.values
	p.Grad, p.Data = kernel.Floats(g.buf[:n]), kernel.Floats(g.buf[v:][:n])
	err := f(i, x.view(p, g.buf[2*v:2*v+x.state]))
	p.Grad, p.Data = nil, nil
	if err == nil {
		g.busy = append(g.busy, s.file.Write(g.buf[v:2*v], x.valuesAt), s.file.Write(g.buf[2*v:2*v+x.state], x.stateAt))
	}
	return err
}
