package kernel

import "math"

// Table16 is a table of 16 integers from -128 to 127 in order, such as IQ4_NL of ggml
// has, made to find the nearest one in.
type Table16 struct {
	// heap has the middles between neighbours, as a tree: from node j it goes on to 2*j
	// or, of what is not below the middle, 2*j+1. The root is 1.
	heap   [16]float32
	values [16]float32

	// ranks has the number of the value nearest to x at floor(2x)+256: all middles are
	// multiples of a half.
	ranks [512]byte
}

// NewTable16 makes a table.
func NewTable16(values [16]float32) *Table16 {
	t := &Table16{values: values}
	for level := range 4 {
		for i := range 1 << level {
			above := (2*i + 1) << (3 - level)
			t.heap[1<<level+i] = (values[above-1] + values[above]) / 2
		}
	}
	for i := range t.ranks {
		for above := 1; above < 16 && float32(i-256) >= values[above-1]+values[above]; above++ {
			t.ranks[i]++
		}
	}
	return t
}

// rank returns the number of the value nearest to x, the higher of two, and the last
// one for NaN.
func (t *Table16) rank(x float32) int {
	switch {
	case x <= t.values[0]:
		return 0
	case x < t.values[15]:
		return int(t.ranks[int(math.Floor(2*float64(x)))+256&511])
	}
	return 15
}

// Sums16 are sums for each of 16 scales.
type Sums16 struct{ Mixed, Square [16]float32 }

// table16Loops are the inner loops on such tables.
type table16Loops struct {
	fit16     func(s *Sums16, t *Table16, inverse *[16]float32, x, weights *[32]float32)
	nibbles16 func(dst *[16]byte, t *Table16, inverse float32, x *[32]float32)
}

var table16Go = table16Loops{fit16: fit16Go, nibbles16: nibbles16Go}

// Fit tries 16 scales, of which it is given the inverse: with q the value of the table
// nearest to an element x times that, it adds up weight*q*x and weight*q*q, in the order
// of the elements.
func (t *Table16) Fit(s *Sums16, inverse *[16]float32, x, weights *[32]float32) {
	use.fit16(s, t, inverse, x, weights)
}

func fit16Go(s *Sums16, t *Table16, inverse *[16]float32, x, weights *[32]float32) {
	for i, id := range inverse {
		var mixed, square float32
		for j, v := range x {
			q := t.values[t.rank(v*id)]
			wq := weights[j] * q
			mixed += float32(wq * v)
			square += float32(wq * q)
		}
		s.Mixed[i], s.Square[i] = mixed, square
	}
}

// Nibbles stores the numbers of the values nearest to the elements of x times inverse,
// in byte j those of elements j and j+16.
func (t *Table16) Nibbles(dst *[16]byte, inverse float32, x *[32]float32) {
	use.nibbles16(dst, t, inverse, x)
}

func nibbles16Go(dst *[16]byte, t *Table16, inverse float32, x *[32]float32) {
	for j := range dst {
		dst[j] = byte(t.rank(x[j]*inverse) | t.rank(x[j+16]*inverse)<<4)
	}
}
