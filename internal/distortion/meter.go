package distortion

import "math"

// DefaultBlock is how many values are a block where the encoding has none.
const DefaultBlock = 64

// A Meter compares a tensor with what it was decoded to.
type Meter struct {
	f     Figures
	x, y  []float32 // a block that is not whole yet
	worst float64   // squared relative error of the worst block
}

// NewMeter returns a Meter of blocks of that many values; 0 or 1, which is what plain
// numbers have, is DefaultBlock.
func NewMeter(block int) *Meter {
	if block <= 1 {
		block = DefaultBlock
	}
	return &Meter{
		f: Figures{Block: block, WorstBlock: -1},
		x: make([]float32, 0, block), y: make([]float32, 0, block),
	}
}

// Add compares the next values, in row-major order. Both slices must be of one length,
// which need not be a whole number of blocks.
func (m *Meter) Add(original, decoded []float32) {
	x, y := original, decoded[:len(original)]
	if n := min(len(x), (m.f.Block-len(m.x))%m.f.Block); n > 0 {
		m.x, m.y = append(m.x, x[:n]...), append(m.y, y[:n]...)
		x, y = x[n:], y[n:]
		if len(m.x) < m.f.Block {
			return
		}
		m.flush()
	}
	for len(x) >= m.f.Block {
		m.block(x[:m.f.Block], y[:m.f.Block])
		x, y = x[m.f.Block:], y[m.f.Block:]
	}
	m.x, m.y = append(m.x, x...), append(m.y, y...)
}

func (m *Meter) flush() {
	m.block(m.x, m.y)
	m.x, m.y = m.x[:0], m.y[:0]
}

// Figures ends the tensor and returns its figures.
func (m *Meter) Figures() Figures {
	if len(m.x) > 0 {
		m.flush()
	}
	return m.f
}

// infinite is the ordered number of +Inf; that of -Inf is one less than its negative.
const infinite = 0xff << 23

// block takes a block into account.
func (m *Meter) block(x, y []float32) {
	s := sum(x, y)
	at := m.f.Blocks
	m.f.Blocks++
	if !finite(s.lowX, s.highX) || !finite(s.lowY, s.highY) {
		x, y = m.finite(x, y)
		s = sum(x, y)
	}
	m.f.Values += int64(len(x))
	m.f.Square += s.square
	m.f.Error += s.err
	m.f.MaxAbs = max(m.f.MaxAbs, s.maxAbs())
	switch {
	case zero(s.lowX, s.highX):
		m.f.EmptyBlocks++
		return
	case zero(s.lowY, s.highY):
		m.f.ZeroBlocks++
	case s.err > 0:
		m.f.Clipped += clipped(x, y, s)
	}
	// The squares of a block of subnormal values do not vanish in float64.
	if rel := s.err / s.square; s.err > 0 && rel > m.worst {
		m.worst = rel
		m.f.WorstBlock, m.f.WorstRelRMS = at, math.Sqrt(rel)
	}
}

// finite returns the pairs of which both are finite and counts the others.
func (m *Meter) finite(x, y []float32) (fx, fy []float32) {
	for i, v := range x {
		switch w := y[i]; {
		case v-v != 0:
			m.f.NonFinite++
		case w-w != 0:
			m.f.MadeNonFinite++
		default:
			fx, fy = append(fx, v), append(fy, w)
		}
	}
	return fx, fy
}

// sums are of one block.
type sums struct {
	square, err float64
	topErr      uint64 // the bits of the largest squared error

	// The least and the greatest value, as ordered numbers.
	lowX, highX, lowY, highY int32
}

func (s *sums) maxAbs() float64 { return math.Sqrt(math.Float64frombits(s.topErr)) }

// ordered returns an integer for v that is less than another's if v is less; NaN lie
// beyond the infinities. Integers find the largest without a branch.
func ordered(v float32) int32 {
	b := int32(math.Float32bits(v))
	return b ^ int32(uint32(b>>31)>>1)
}

// number is the value that ordered made o of.
func number(o int32) float32 { return math.Float32frombits(uint32(o ^ int32(uint32(o>>31)>>1))) }

// finite reports whether all values from low to high are.
func finite(low, high int32) bool { return low >= -infinite && high < infinite }

// zero reports whether all of them are; the negative zero is -1.
func zero(low, high int32) bool { return low >= -1 && high <= 0 }

// sum adds up a block. Products are rounded before they are added, on every machine.
func sum(x, y []float32) sums {
	if len(x) == 0 {
		return sums{}
	}
	y = y[:len(x)]
	s := sums{lowX: math.MaxInt32, highX: math.MinInt32, lowY: math.MaxInt32, highY: math.MinInt32}
	var sq, er [2]float64 // two chains of additions
	for len(x) > 1 {
		a, b, c, d := x[0], x[1], y[0], y[1]
		x, y = x[2:], y[2:]
		p, q := ordered(a), ordered(b)
		s.lowX, s.highX = min(s.lowX, p, q), max(s.highX, p, q)
		p, q = ordered(c), ordered(d)
		s.lowY, s.highY = min(s.lowY, p, q), max(s.highY, p, q)
		u, v := float64(a), float64(b)
		e, f := u-float64(c), v-float64(d)
		e, f = float64(e*e), float64(f*f)
		sq[0] += float64(u * u)
		sq[1] += float64(v * v)
		er[0] += e
		er[1] += f
		s.topErr = max(s.topErr, math.Float64bits(e), math.Float64bits(f))
	}
	if len(x) > 0 {
		p, q := ordered(x[0]), ordered(y[0])
		s.lowX, s.highX = min(s.lowX, p), max(s.highX, p)
		s.lowY, s.highY = min(s.lowY, q), max(s.highY, q)
		u := float64(x[0])
		e := u - float64(y[0])
		e = float64(e * e)
		sq[0] += float64(u * u)
		er[0] += e
		s.topErr = max(s.topErr, math.Float64bits(e))
	}
	s.square, s.err = sq[0]+sq[1], er[0]+er[1]
	return s
}

// How far a value must be beyond its block's reach to be clipped: so many times the
// largest error within, and that part of the reach.
const (
	beyond   = 1.25
	rounding = 1.0 / 128
)

// clipped counts the clipped values of a block: see the package comment.
func clipped(x, y []float32, s sums) (n int64) {
	reach := max(-float64(number(s.lowY)), float64(number(s.highY)))
	limit := reach + rounding*reach
	if max(-float64(number(s.lowX)), float64(number(s.highX))) <= limit {
		return 0
	}
	var within float64
	for i, v := range x {
		u := float64(v)
		if e := math.Abs(u - float64(y[i])); e > within && math.Abs(u) <= reach {
			within = e
		}
	}
	limit = max(limit, reach+beyond*within)
	for _, v := range x {
		if math.Abs(float64(v)) > limit {
			n++
		}
	}
	return n
}
