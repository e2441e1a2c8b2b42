package model

// arena hands out scratch memory, which is taken back all at once, or back to a mark:
// what next was. It is one buffer, so that a training step that was reserved for
// allocates nothing and takes no more than it must.
type arena struct {
	buf        []float32
	next, peak int // in buf, or beyond if it is too small
}

// line is the floats of a cache line, with which everything begins.
const line = 16

// lines returns n rounded up to whole cache lines.
func lines(n int) int { return (n + line - 1) &^ (line - 1) }

// reserve makes room for n floats.
func (a *arena) reserve(n int) {
	if n > len(a.buf) {
		a.buf = nil // for the collector, before there is a second one
		a.buf = make([]float32, n)
	}
}

// take returns n floats with arbitrary content.
func (a *arena) take(n int) []float32 {
	at := a.next
	a.next += lines(n)
	a.peak = max(a.peak, a.next)
	if a.next > len(a.buf) {
		return make([]float32, n) // there is room from the next reset on
	}
	return a.buf[at : at+n : at+n]
}

// zeros returns n zeros.
func (a *arena) zeros(n int) []float32 {
	s := a.take(n)
	clear(s)
	return s
}

func (a *arena) reset() {
	a.reserve(a.peak)
	a.next = 0
}

// mark returns where the arena is; release takes back what was taken since.
func (a *arena) mark() int     { return a.next }
func (a *arena) release(m int) { a.next = m }
