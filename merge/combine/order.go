package combine

import (
	"math"

	"github.com/seed18967229/nibble/tensor"
)

// A leading set is that of the first elements of a tensor in order of their magnitude, those
// of equal magnitude in the order in which they lie. It is told by one magnitude and one
// place, whatever its size.
type leading struct {
	order uint32
	key   uint32 // of the last in the set
	last  int64  // where that is
}

// The orders: what the bits of a magnitude are changed by.
const (
	ascending  = 0
	descending = 1<<31 - 1
)

// of returns what an element is ordered by.
func (l leading) of(x float32) uint32 { return math.Float32bits(x)&(1<<31-1) ^ l.order }

// has has all bits set if an element is in the set, and none if not.
func (l leading) has(x float32, at int64) uint32 {
	k := l.of(x)
	if k == l.key && at <= l.last {
		return math.MaxUint32
	}
	return below(uint64(k), uint64(l.key))
}

// A count asks for the set of so many elements, and is given it.
type count struct {
	n int64
	leading

	before, equal int64 // how many have a smaller key, and the same
}

// low is how many bits of a key the second pass counts, and the first leaves.
const low = 15

// lead finds the sets of several counts exactly. One pass counts the elements by the upper
// bits of their magnitudes, a second by the lower bits where the last of a set must be, and a
// third finds its place if others are equal to it that are not in the set.
func lead(shape tensor.Shape, rows tensor.Rows, counts []*count) error {
	all := shape.Elems()
	var open []*count
	for _, c := range counts {
		switch {
		case c.n <= 0:
			c.key, c.last = 0, -1 // no element is before this place
		case c.n >= all:
			c.key, c.last = math.MaxUint32, 0
		default:
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return nil
	}
	var upper [1 << (31 - low)]int64
	err := each(shape, []tensor.Rows{rows}, func(w [][]float32, _ int64) {
		for _, x := range w[0] {
			upper[math.Float32bits(x)&(1<<31-1)>>low]++
		}
	})
	if err != nil {
		return err
	}
	lower := make([][]int64, len(open))
	for i, c := range open {
		at := find(len(upper), c, func(k int) int64 {
			return upper[k^int(c.order>>low)]
		})
		c.key, lower[i] = uint32(at)<<low, make([]int64, 1<<low)
	}
	err = each(shape, []tensor.Rows{rows}, func(w [][]float32, _ int64) {
		for i, c := range open {
			set, in := c.leading, lower[i]
			for _, x := range w[0] {
				if k := set.of(x); k>>low == set.key>>low {
					in[k&(1<<low-1)]++
				}
			}
		}
	})
	if err != nil {
		return err
	}
	var split []*count
	for i, c := range open {
		at := find(1<<low, c, func(k int) int64 { return lower[i][k] })
		c.key |= uint32(at)
		if c.equal, c.last = lower[i][at], all; c.before+c.equal > c.n {
			split = append(split, c)
		}
	}
	if len(split) == 0 {
		return nil
	}
	return each(shape, []tensor.Rows{rows}, func(w [][]float32, at int64) {
		for _, c := range split {
			for i, x := range w[0] {
				if c.before < c.n && c.of(x) == c.key {
					c.before, c.last = c.before+1, at+int64(i)
				}
			}
		}
	})
}

// find returns which of several bins has the n-th element, and adds to before what lies in
// those before it.
func find(bins int, c *count, of func(k int) int64) int {
	for k := range bins {
		if in := of(k); c.before+in < c.n {
			c.before += in
		} else {
			return k
		}
	}
	return bins - 1 // rows that change as they are read
}
