package distortion

import (
	"math"

	"github.com/seed18967229/nibble/internal/kernel"
)

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

func finite(v float32) bool { return v-v == 0 }

// block takes a block into account.
func (m *Meter) block(x, y []float32) {
	s := kernel.DistanceOf(x, y)
	at := m.f.Blocks
	m.f.Blocks++
	if !finite(s.TopX) || !finite(s.TopY) {
		x, y = m.pairs(x, y)
		s = kernel.DistanceOf(x, y)
	}
	m.f.Values += int64(len(x))
	m.f.Square += s.Square
	m.f.Error += s.Error
	m.f.MaxAbs = max(m.f.MaxAbs, math.Sqrt(s.TopError))
	switch {
	case s.TopX == 0:
		m.f.EmptyBlocks++
		return
	case s.TopY == 0:
		m.f.ZeroBlocks++
	case s.Error > 0:
		m.f.Clipped += clipped(x, y, s)
	}
	// The squares of a block of subnormal values do not vanish in float64.
	if rel := s.Error / s.Square; s.Error > 0 && rel > m.worst {
		m.worst = rel
		m.f.WorstBlock, m.f.WorstRelRMS = at, math.Sqrt(rel)
	}
}

// pairs returns the pairs of which both are finite and counts the others.
func (m *Meter) pairs(x, y []float32) (fx, fy []float32) {
	for i, v := range x {
		switch w := y[i]; {
		case !finite(v):
			m.f.NonFinite++
		case !finite(w):
			m.f.MadeNonFinite++
		default:
			fx, fy = append(fx, v), append(fy, w)
		}
	}
	return fx, fy
}

// How far a value must be beyond its block's reach to be clipped: so many times the
// largest error within, and that part of the reach.
const (
	beyond   = 1.25
	rounding = 1.0 / 128
)

// clipped counts the clipped values of a block: see the package comment.
func clipped(x, y []float32, s kernel.Distance) (n int64) {
	reach := float64(s.TopY)
	limit := reach + rounding*reach
	if float64(s.TopX) <= limit {
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
