package engine

import (
	"fmt"
	"math"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Squares adds up the squares of what goes into linear layers, column by column:
// what an importance matrix is made of. Its Observe is a model.Observer.
type Squares struct {
	experts int
	want    func(t arch.Tensor) bool
	list    []*Inputs
	byName  map[string]*Inputs
	err     error
}

// Inputs is what has gone into one weight by its name in GGUF, where the experts
// of a layer are one weight of several matrices.
type Inputs struct {
	Name string

	// Sums has for each matrix the sum over all rows of the square of each column.
	Sums []float32

	// Counts has the number of those rows.
	Counts []int64
}

// NewSquares returns the sums of nothing, for the weights of a model that want is
// true of.
func NewSquares(a *arch.Model, want func(t arch.Tensor) bool) *Squares {
	return &Squares{experts: int(a.NumExperts), want: want, byName: make(map[string]*Inputs)}
}

// All returns the sums of all weights that were seen, in the order in which they
// first were, or an error that names the first whose input was not finite.
func (s *Squares) All() ([]*Inputs, error) { return s.list, s.err }

// Err returns that error as soon as it is known.
func (s *Squares) Err() error { return s.err }

// columns is how many columns are added up at a time.
const columns = 256

// Observe adds the squares of the rows of x.
func (s *Squares) Observe(t arch.Tensor, x []float32, rows int) {
	if rows == 0 || !s.want(t) {
		return
	}
	in := s.of(t)
	which, cols := max(0, t.Expert), t.In()
	in.Counts[which] += int64(rows)
	sums := in.Sums[which*cols : (which+1)*cols]
	parts := (cols + columns - 1) / columns
	kernel.Parallel(parts, int64(len(x)), func(i int) {
		var wide [columns]float64
		from := i * columns
		part := sums[from:min(cols, from+columns)]
		for r := range rows {
			for j, v := range x[r*cols+from:][:len(part)] {
				wide[j] += float64(v) * float64(v)
			}
		}
		for j := range part {
			part[j] += float32(wide[j])
		}
	})
	if s.err != nil {
		return
	}
	for j, v := range sums {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			s.err = hint.Add(fmt.Errorf("%w: the squares of what goes into column %d of %s add up to %v", tensor.ErrMalformed, j, t.Name, v),
				"nibble verify tells whether the weights are finite")
			return
		}
	}
}

// of returns the sums of a weight.
func (s *Squares) of(t arch.Tensor) *Inputs {
	in := s.byName[t.GGUFName]
	if in == nil {
		mats := 1
		if t.Expert >= 0 {
			mats = s.experts
		}
		in = &Inputs{Name: t.GGUFName, Sums: make([]float32, mats*t.In()), Counts: make([]int64, mats)}
		s.byName[in.Name] = in
		s.list = append(s.list, in)
	}
	return in
}
