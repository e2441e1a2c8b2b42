package pages

import (
	"github.com/seed18967229/nibble/internal/scratch"
	"github.com/seed18967229/nibble/train/optim"
)

// Options say where what is trained lies.
type Options struct {
	// Paged puts the parameters of blocks into a file in the directory Scratch.
	Paged   bool
	Scratch string

	// Buffers is how many pages are in memory: that of the values leased, that of their
	// gradients, and what is read ahead. 0 is DefaultBuffers, the least is 2.
	Buffers int
}

// DefaultBuffers is enough for reading and writing to go on beside the work.
const DefaultBuffers = 3

// place is where one parameter is.
type place struct {
	fields []optim.Field
	offset []int64 // of each field in the state
	state  int64   // bytes of it, whole pages

	paged  bool
	values int64 // bytes of the values, whole pages, and of the gradient
	at     int64 // where in a page of its block's values it is

	valuesAt, gradAt, stateAt int64 // in the file
}

// block is the part of the file for one block.
type block struct {
	params       []int
	values       int64 // bytes of all values, and of the gradients
	valuesAt, at int64 // of the values and the gradients
}

// layout is where everything is.
type layout struct {
	places []place
	blocks map[int]*block
	page   int64 // bytes of one
	disk   int64 // bytes of the file
	memory int64 // bytes of what stays in memory
	states int64 // bytes of states in the file
}

// align is where the fields of a state begin: a cache line.
const align = 64

func newLayout(params []*optim.Param, opt optim.Optimizer, paged bool) *layout {
	l := &layout{places: make([]place, len(params)), blocks: make(map[int]*block)}
	var order []*block
	for i, p := range params {
		x := &l.places[i]
		x.fields = opt.State(p)
		for _, f := range x.fields {
			x.offset = append(x.offset, x.state)
			x.state += (f.Info(p).Size() + align - 1) / align * align
		}
		x.state = scratch.Pages(x.state)
		x.values = scratch.Pages(4 * p.Shape.Elems())
		b := l.blocks[p.Layer]
		if b == nil {
			b = &block{}
			l.blocks[p.Layer] = b
			order = append(order, b)
		}
		b.params = append(b.params, i)
		if x.paged = paged && p.Layer >= 0; !x.paged {
			l.memory += 8*p.Shape.Elems() + x.state
			continue
		}
		x.at = b.values
		b.values += x.values
		l.page = max(l.page, 2*x.values+x.state)
	}
	for _, b := range order {
		b.valuesAt, b.at = l.disk, l.disk+b.values
		l.disk += 2 * b.values
		l.page = max(l.page, b.values)
		for _, i := range b.params {
			if x := &l.places[i]; x.paged {
				x.valuesAt, x.gradAt, x.stateAt = b.valuesAt+x.at, b.at+x.at, l.disk
				l.disk += x.state
				l.states += x.state
			}
		}
	}
	return l
}

// view returns the fields of a state as slices of it.
func (x *place) view(p *optim.Param, state []byte) [][]byte {
	out := make([][]byte, len(x.fields))
	for k, f := range x.fields {
		out[k] = state[x.offset[k]:][:f.Info(p).Size()]
	}
	return out
}

// Size is what a Store takes.
type Size struct {
	// Memory is all that it has in memory: what is outside the blocks or not paged, and
	// Buffers of Page bytes.
	Memory, Page int64
	Buffers      int

	// Disk is the bytes of the file, Moved at most how many are read and written in one
	// step.
	Disk, Moved int64
}

// Measure returns what a Store of the parameters takes.
func Measure(params []*optim.Param, opt optim.Optimizer, o Options) Size {
	l := newLayout(params, opt, o.Paged)
	s := Size{Memory: l.memory, Disk: l.disk}
	if l.disk > 0 {
		s.Page, s.Buffers = l.page, o.buffers()
		s.Memory += s.Page * int64(s.Buffers)
		values := (l.disk - l.states) / 2
		// Read forward and back and in the step, with gradients and state; gradients
		// written on the way back, values and state in the step.
		s.Moved = 6*values + 2*l.states
	}
	return s
}

func (o Options) buffers() int {
	if o.Buffers == 0 {
		return DefaultBuffers
	}
	return max(2, o.Buffers)
}
