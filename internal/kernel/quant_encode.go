package kernel

import "math"

// TinyAbsmax stands in for a smaller absmax when values are divided by it.
const TinyAbsmax = float32(1e-38)

// bins divide [-1, 1] so finely that no two thresholds share a bin: the nearest
// two, those around FP4's zero, are 0.0026 apart and a bin is 0.00195 wide.
const bins = 1024

// bin finds the code of a scaled value with one comparison.
type bin struct {
	bound  float32 // the threshold within the bin, +Inf if there is none
	lo, hi uint8   // the codes at or below it and above it
}

// Codebook is a 4-bit code of values in [-1, 1]. A value gets the code of the
// nearest; one halfway between two, that of the lower.
type Codebook struct {
	table codeTable
	bins  [bins + 1]bin

	// Values are those of the codes.
	Values [16]float32
}

// codeTable is a Codebook as the assembly has it. Its layout is known there.
type codeTable struct {
	// heap are the thresholds as a search tree: below node i are 2i, where it is
	// not exceeded, and 2i+1. Element 0 is not used.
	heap   [16]float32
	codes  [16]uint32  // by rank of their values
	ranked [16]float32 // values by rank

	// grid says that the codes are in order and that no two thresholds are nearest to
	// the same multiple of 1/15. Element 16+i of bounds is then the threshold nearest
	// to i/15, Inf if there is none, and that of ranks the number of those nearest to
	// smaller multiples.
	bounds [32]float32
	ranks  [32]uint32
	grid   bool
}

// NewCodebook returns the Codebook of the values of the codes; order has the codes
// in order of their values, which orders codes of the same value too. Two
// thresholds, the midpoints of neighbouring values as float32 rounds them, must be
// at least 1/500 apart.
func NewCodebook(values [16]float32, order [16]uint8) *Codebook {
	c := &Codebook{Values: values}
	for rank, code := range order {
		c.table.codes[rank], c.table.ranked[rank] = uint32(code), values[code]
	}
	threshold := func(rank int) float32 { return float32(c.table.ranked[rank]+c.table.ranked[rank+1]) / 2 }
	var plant func(node, from, to int)
	plant = func(node, from, to int) {
		if node >= 16 {
			return
		}
		mid := (from + to) / 2
		c.table.heap[node] = threshold(mid)
		plant(2*node, from, mid)
		plant(2*node+1, mid+1, to)
	}
	plant(1, 0, 15)
	c.table.lay(threshold)
	rank := 0
	for i := range c.bins {
		e := bin{bound: float32(math.Inf(1)), lo: order[rank], hi: order[rank]}
		if rank < 15 {
			if t := threshold(rank); binOf(t) == i {
				rank++
				e.bound, e.hi = t, order[rank]
			}
		}
		c.bins[i] = e
	}
	return c
}

// gridOf returns where in the grid a value in [-1, 1] is. It never falls as s rises.
func gridOf(s float32) int { return int(math.RoundToEven(15*float64(s))) + 16 }

// lay fills the grid, if these codes can have one.
func (t *codeTable) lay(threshold func(rank int) float32) {
	rank := 0
	for i := range t.bounds {
		t.bounds[i], t.ranks[i] = float32(math.Inf(1)), uint32(rank)
		if rank < 15 && gridOf(threshold(rank)) == i {
			t.bounds[i] = threshold(rank)
			rank++
		}
	}
	t.grid = rank == 15
	for i, code := range t.codes {
		t.grid = t.grid && int(code) == i
	}
}

// binOf never falls as s, from -1 to 1, rises. That is all the search needs:
// a threshold in a lower bin is below s, one in a higher bin above it.
func binOf(s float32) int { return int(float32(s+1) * (bins / 2)) }

// Code returns the code of a value in [-1, 1].
func (c *Codebook) Code(s float32) uint8 {
	e := &c.bins[binOf(s)]
	if s > e.bound {
		return e.hi
	}
	return e.lo
}

// Moments4 are sums over a block scaled to [-1, 1] that give its squared error for
// any absmax it may be decoded with. s is a scaled element, v the value of its code.
// They are added up in 16 lanes, element i in lane i%16, and then lane i to lane
// i+8, i+4, i+2, i+1, so that all variants have the same bits.
type Moments4 struct {
	Err    float32 // sum of (s-v)^2
	Mixed  float32 // sum of (s-v)*v
	Square float32 // sum of v^2
}

// Encode4 encodes len(absmax) whole blocks of x in a 4-bit format: the inverse of
// Decode4. A block is multiplied by the reciprocal of its absmax, of which one below
// 1e-38 counts as 1e-38, and clamped to [-1, 1]. It returns how many blocks it did:
// all, or those before the first with an element that is NaN or infinite. block must
// be even.
func Encode4(codes []byte, absmax []float32, moments []Moments4, x []float32, block int, c *Codebook) int {
	n := len(absmax)
	codes, moments, x = codes[:n*block/2], moments[:n], x[:n*block]
	if n == 0 {
		return 0
	}
	return use.encode4(codes, absmax, moments, x, block, c)
}

func encode4Go(codes []byte, absmax []float32, moments []Moments4, x []float32, block int, c *Codebook) int {
	for i := range absmax {
		part := x[i*block : (i+1)*block]
		top := magnitudeGo(part)
		if !(top <= math.MaxFloat32) {
			return i
		}
		absmax[i] = top
		moments[i] = c.encode(codes[i*block/2:(i+1)*block/2], part, 1/max(top, TinyAbsmax), 1)
	}
	return len(absmax)
}

// Encode4Last encodes a last block that is not whole, which is divided by its absmax
// and not multiplied by its reciprocal; an absmax below 1e-38 is raised to it. An odd
// number of elements leaves the code of zero in the last low nibble. ok is false if
// an element is NaN or infinite.
func Encode4Last(codes []byte, x []float32, c *Codebook) (absmax float32, m Moments4, ok bool) {
	top := magnitudeGo(x)
	if !(top <= math.MaxFloat32) {
		return 0, m, false
	}
	top = max(top, TinyAbsmax)
	return top, c.encode(codes[:(len(x)+1)/2], x, 1, top), true
}

// encode encodes x times mul or, if that is 1, divided by div.
func (c *Codebook) encode(codes []byte, x []float32, mul, div float32) Moments4 {
	var err, mixed, square [16]float32
	for i, v := range x {
		if mul != 1 {
			v *= mul
		} else {
			v /= div
		}
		s := min(max(v, -1), 1)
		code := c.Code(s)
		if i&1 == 0 {
			codes[i>>1] = code << 4
		} else {
			codes[i>>1] |= code
		}
		q := c.Values[code]
		d := s - q
		// The conversions keep a machine that has it from fusing the product and
		// the sum.
		lane := i & 15
		err[lane] += float32(d * d)
		mixed[lane] += float32(d * q)
		square[lane] += float32(q * q)
	}
	if len(x)%2 != 0 {
		codes[len(x)/2] |= c.Code(0)
	}
	return Moments4{sum16(&err), sum16(&mixed), sum16(&square)}
}

// sum16 adds up lanes as assembly does.
func sum16(l *[16]float32) float32 {
	for w := 8; w > 0; w /= 2 {
		for i := range w {
			l[i] += l[i+w]
		}
	}
	return l[0]
}

// Absmax returns the largest magnitude in x, 0 if it is empty. It is an infinity or
// a NaN if there is one in x.
func Absmax(x []float32) float32 { return use.magnitude(x) }
