package merge

import (
	"sync"

	"github.com/seed18967229/nibble/tensor"
)

// A Delta is what is added to one base tensor. It is pure: rows may be added
// concurrently, in any order, any number of times. One that depends on the
// whole of a tensor, by a norm or a threshold, finds out once.
type Delta interface {
	// Target names the base tensor.
	Target() string

	// AddRows adds scale times the delta to whole rows of the target, w, the
	// first of which is row.
	AddRows(w []float32, row int64, scale float32) error

	// Zero reports whether the delta is known to change nothing.
	Zero() bool
}

// A LowRank is a Delta that is scale times the product of b and a, as the target
// lies: b is [rows, rank], a is [rank, columns]. Neither may be changed. They may
// have to be read from the adapter, which can fail.
type LowRank interface {
	Delta
	Factors() (b, a []float32, rank int, scale float32, err error)
}

// Scaled returns a delta times a factor. What is low-rank stays so.
func Scaled(d Delta, factor float32) Delta {
	if factor == 1 {
		return d
	}
	if l, ok := d.(LowRank); ok {
		return scaledLowRank{scaledDelta{d, factor}, l}
	}
	return scaledDelta{d, factor}
}

type scaledDelta struct {
	Delta
	factor float32
}

// AddRows implements Delta.
func (d scaledDelta) AddRows(w []float32, row int64, scale float32) error {
	return d.Delta.AddRows(w, row, scale*d.factor)
}

// Zero implements Delta.
func (d scaledDelta) Zero() bool { return d.factor == 0 || d.Delta.Zero() }

type scaledLowRank struct {
	scaledDelta
	of LowRank
}

// Factors implements LowRank.
func (d scaledLowRank) Factors() (b, a []float32, rank int, scale float32, err error) {
	b, a, rank, scale, err = d.of.Factors()
	return b, a, rank, scale * d.factor, err
}

// Deltas returns what a change adds to the tensor of base that it is done to:
// the deltas of a sum, and of any other change one, which reads the base again.
func Deltas(base tensor.Source, codecs tensor.Codecs, c Change) ([]Delta, error) {
	if s, ok := c.(*sum); ok {
		return s.deltas, nil
	}
	info, rows, err := codecs.OpenFrom(base, c.Target())
	if err != nil {
		return nil, err
	}
	return []Delta{&difference{change: c, rows: rows, shape: info.Shape}}, nil
}

// difference is a Change less what it was done to.
type difference struct {
	change  Change
	rows    tensor.Rows
	shape   tensor.Shape
	scratch sync.Pool // *[]float32
}

// Target implements Delta.
func (d *difference) Target() string { return d.change.Target() }

// Zero implements Delta.
func (d *difference) Zero() bool { return false }

// AddRows implements Delta.
func (d *difference) AddRows(w []float32, row int64, scale float32) error {
	buf, _ := d.scratch.Get().(*[]float32)
	if buf == nil || cap(*buf) < 2*len(w) {
		b := make([]float32, 2*len(w))
		buf = &b
	}
	defer d.scratch.Put(buf)
	was, is := (*buf)[:len(w)], (*buf)[len(w):2*len(w)]
	if err := d.rows.ReadRows(was, row); err != nil {
		return err
	}
	copy(is, was)
	if err := d.change.Apply(is, row); err != nil {
		return err
	}
	for i := range w {
		w[i] += scale * (is[i] - was[i])
	}
	return nil
}
