package torch

import (
	"cmp"
	"io"
	"slices"
	"sync"
)

// limits are sizes in bytes.
type limits struct {
	// panel is how much of a tensor is gathered at a time, span how much of its
	// storage is read at a time for that. An element fits both.
	panel, span int64

	// gap is the largest hole that is read over rather than jumped: what a call
	// costs.
	gap int64
}

var defaultLimits = limits{panel: 4 << 20, span: 1 << 20, gap: 4 << 10}

// gatherer reads a view that is not contiguous. It computes the tensor in
// panels, and keeps the one that was asked for last: a reader goes from panel to
// panel in small steps.
type gatherer struct {
	r     io.ReaderAt
	begin int64 // of the first element, in r
	elem  int64 // size in bytes
	swap  int64 // what is turned around, 0 if nothing is
	dims  []dim // outermost first
	limits

	// A panel is up to per steps of dims[split], with all of the dimensions
	// inside of it, of inner elements.
	split      int
	inner, per int64

	mu   sync.Mutex
	have int64  // number of the panel in buf, -1 if there is none
	buf  []byte // of a panel
	from []byte // of the storage
}

// plan decides on the panels: as many inner dimensions as fit one, and then as
// many steps of the next.
func (g *gatherer) plan() *gatherer {
	most := g.panel / g.elem
	g.split, g.inner, g.have = len(g.dims)-1, 1, -1
	for g.split > 0 && g.dims[g.split].n <= most/g.inner {
		g.inner *= g.dims[g.split].n
		g.split--
	}
	g.per = min(g.dims[g.split].n, most/g.inner)
	return g
}

// panelOf returns the number of the panel that holds an element, and which
// elements it holds.
func (g *gatherer) panelOf(elem int64) (number, first, count int64) {
	steps := g.dims[g.split].n
	perBlock := (steps-1)/g.per + 1 // panels for each step of the dimensions outside
	block, in := elem/(steps*g.inner), elem%(steps*g.inner)
	at := in / (g.per * g.inner)
	return block*perBlock + at,
		block*steps*g.inner + at*g.per*g.inner,
		min(g.per, steps-at*g.per) * g.inner
}

// ReadAt implements io.ReaderAt.
func (g *gatherer) ReadAt(p []byte, off int64) (int, error) {
	total := g.elem
	for _, d := range g.dims {
		total *= d.n
	}
	if off < 0 || off >= total {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > total-off {
		p, eof = p[:total-off], io.EOF
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for n < len(p) {
		at := off + int64(n)
		number, first, count := g.panelOf(at / g.elem)
		if number != g.have {
			g.have = -1
			if err := g.fill(first, count); err != nil {
				return n, err
			}
			g.have = number
		}
		n += copy(p[n:], g.buf[at-first*g.elem:])
	}
	return n, eof
}

// axis is a dimension of a panel: steps in the storage and in the panel.
type axis struct{ n, src, dst int64 }

// fill computes the panel that begins with the element first.
func (g *gatherer) fill(first, count int64) error {
	g.buf = slices.Grow(g.buf[:0], int(count*g.elem))[:count*g.elem]
	// Where the panel begins in the storage.
	var src int64
	rest := first / g.inner
	for i := g.split; i >= 0; i-- {
		src += rest % g.dims[i].n * g.dims[i].stride
		rest /= g.dims[i].n
	}
	axes := []axis{{count / g.inner, g.dims[g.split].stride, g.inner}}
	dst := g.inner
	for _, d := range g.dims[g.split+1:] {
		dst /= d.n
		axes = append(axes, axis{d.n, d.stride, dst})
	}
	// In the order of the storage, innermost first; repeats, of stride 0, come
	// before all.
	slices.SortFunc(axes, func(a, b axis) int { return cmp.Or(cmp.Compare(a.src, b.src), cmp.Compare(b.dst, a.dst)) })
	if err := g.gather(axes, src); err != nil {
		return err
	}
	if g.swap > 0 {
		for b := g.buf; len(b) > 0; b = b[g.swap:] {
			slices.Reverse(b[:g.swap])
		}
	}
	return nil
}

// gather reads the axes' elements into the panel. Axes whose steps lie close
// together are read in one span, or in several along the outermost of them; over
// the others it goes step by step.
func (g *gatherer) gather(axes []axis, src int64) error {
	inside, whole, per := g.spans(axes)
	outer := axes[inside:]
	last := axes[inside-1]
	steps := make([]int64, len(outer))
	for {
		s, d := src, int64(0)
		for i, a := range outer {
			s += steps[i] * a.src
			d += steps[i] * a.dst
		}
		for at := int64(0); at < last.n; at += per {
			n := min(per, last.n-at)
			if err := g.read(s+at*last.src, (n-1)*last.src+whole); err != nil {
				return err
			}
			part := slices.Clone(axes[:inside])
			part[inside-1].n = n
			g.scatter(part, d+at*last.dst)
		}
		i := 0
		for i < len(outer) && steps[i] == outer[i].n-1 {
			steps[i] = 0
			i++
		}
		if i == len(outer) {
			return nil
		}
		steps[i]++
	}
}

// spans returns how many axes, at least one, are read together, how many
// elements one step of the outermost of them spans, and how many of its steps
// are read at a time.
func (g *gatherer) spans(axes []axis) (inside int, whole, per int64) {
	whole = 1
	for i, a := range axes {
		room := g.span/g.elem - whole
		close := (a.src-whole)*g.elem <= g.gap
		fits := a.src == 0 || (a.n-1) <= room/a.src
		switch {
		case close && fits && i < len(axes)-1:
			whole += (a.n - 1) * a.src
		case close && fits:
			return i + 1, whole, a.n
		case close:
			return i + 1, whole, room/a.src + 1
		case i == 0:
			return 1, whole, 1
		default:
			b := axes[i-1]
			return i, whole - (b.n-1)*b.src, b.n
		}
	}
	return inside, whole, per // not reached: the last axis returns
}

// read reads count elements of the storage from element src on.
func (g *gatherer) read(src, count int64) error {
	g.from = slices.Grow(g.from[:0], int(count*g.elem))[:count*g.elem]
	n, err := g.r.ReadAt(g.from, g.begin+src*g.elem)
	if n == len(g.from) {
		return nil
	}
	return unexpected(err)
}

// scatter puts the elements of the span into their places in the panel, from
// dst on.
func (g *gatherer) scatter(axes []axis, dst int64) {
	// The longest axis is the innermost loop.
	long := 0
	for i, a := range axes {
		if a.n > axes[long].n {
			long = i
		}
	}
	run := axes[long]
	outer := slices.Delete(axes, long, long+1)
	steps := make([]int64, len(outer))
	e := g.elem
	for {
		s, d := int64(0), dst
		for i, a := range outer {
			s += steps[i] * a.src
			d += steps[i] * a.dst
		}
		if run.src == 1 && run.dst == 1 {
			copy(g.buf[d*e:(d+run.n)*e], g.from[s*e:])
		} else {
			scatterRun(g.buf[d*e:], g.from[s*e:], run, e)
		}
		i := 0
		for i < len(outer) && steps[i] == outer[i].n-1 {
			steps[i] = 0
			i++
		}
		if i == len(outer) {
			return
		}
		steps[i]++
	}
}

// scatterRun puts the elements of one axis, of e bytes each, into their places.
func scatterRun(dst, src []byte, a axis, e int64) {
	var d, s int64
	for range a.n {
		switch e {
		case 2:
			*(*[2]byte)(dst[d:]) = [2]byte(src[s:])
		case 4:
			*(*[4]byte)(dst[d:]) = [4]byte(src[s:])
		default:
			copy(dst[d:d+e], src[s:])
		}
		d, s = d+a.dst*e, s+a.src*e
	}
}
