package merge

import (
	"fmt"
	"math"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// dora is weight-decomposed adaptation (Liu et al., 2024): magnitude times the
// direction of the sum of weight and delta, m * (W + D) / |W + D|. The norm is
// that of each output of the layer: a row of the weight, or a column where it
// lies transposed or is an embedding, which PEFT scales by dimension.
type dora struct {
	delta     Delta
	magnitude []float32
	columns   bool

	// base has the rows of the weight that the norm is of: no other adapter is
	// in them. before is what this adapter does to them first; it may be nil.
	base   tensor.Rows
	shape  tensor.Shape
	before Change

	// merged says that w is not those rows any more when Apply gets it.
	merged bool

	// to is what the result is rounded to; tensor.Invalid is not at all.
	to tensor.DType

	once    sync.Once
	factor  []float32 // by column
	failure error
}

// clone returns the change with nothing computed yet.
func (d *dora) clone() *dora {
	return &dora{delta: d.delta, magnitude: d.magnitude, columns: d.columns, base: d.base, shape: d.shape, before: d.before, merged: d.merged, to: d.to}
}

// Target implements Change.
func (d *dora) Target() string { return d.delta.Target() }

// Apply implements Change.
func (d *dora) Apply(w []float32, row int64) error {
	cols := int(d.shape.Cols())
	var factor []float32
	switch {
	case d.columns:
		if d.once.Do(d.columnFactors); d.failure != nil {
			return d.failure
		}
	case d.merged:
		own := make([]float32, len(w))
		if err := d.unmerged(own, row); err != nil {
			return err
		}
		var err error
		if factor, err = d.rowFactors(own, row); err != nil {
			return err
		}
	}
	if err := d.delta.AddRows(w, row, 1); err != nil {
		return err
	}
	if !d.columns && !d.merged {
		var err error
		if factor, err = d.rowFactors(w, row); err != nil {
			return err
		}
	}
	for i := range len(w) / cols {
		x := w[i*cols:][:cols]
		if !d.columns {
			kernel.Scale(x, factor[i])
			continue
		}
		for j := range x {
			x[j] *= d.factor[j]
		}
	}
	round(w, d.to)
	return nil
}

// unmerged fills w with the sum that the norm is of.
func (d *dora) unmerged(w []float32, row int64) error {
	if err := d.base.ReadRows(w, row); err != nil {
		return err
	}
	if d.before != nil {
		if err := d.before.Apply(w, row); err != nil {
			return err
		}
	}
	return d.delta.AddRows(w, row, 1)
}

// rowFactors returns magnitude over norm of rows that are such sums.
func (d *dora) rowFactors(sum []float32, row int64) ([]float32, error) {
	cols := int(d.shape.Cols())
	out := make([]float32, len(sum)/cols)
	for i := range out {
		f, err := d.over(int(row)+i, kernel.SumSquares(sum[i*cols:][:cols]))
		if err != nil {
			return nil, err
		}
		out[i] = f
	}
	return out, nil
}

// over returns one magnitude over the root of a sum of squares, which PEFT holds
// as float32.
func (d *dora) over(i int, squares float64) (float32, error) {
	norm := float32(math.Sqrt(squares))
	if norm == 0 {
		return 0, fmt.Errorf("%w: the norm of output %d with the adapter is 0, by which DoRA divides", tensor.ErrMalformed, i)
	}
	return d.magnitude[i] / norm, nil
}

// columnFactors reads the whole weight for the norms of its columns.
func (d *dora) columnFactors() {
	rows, cols := d.shape.Rows(), int(d.shape.Cols())
	panel := min(rows, max(1, (1<<19)/int64(cols)))
	buf := make([]float32, int(panel)*cols)
	squares := make([]float64, cols)
	for row := int64(0); row < rows; row += panel {
		w := buf[:int(min(panel, rows-row))*cols]
		if d.failure = d.unmerged(w, row); d.failure != nil {
			return
		}
		for ; len(w) > 0; w = w[cols:] {
			for j, v := range w[:cols] {
				squares[j] += float64(v) * float64(v)
			}
		}
	}
	d.factor = make([]float32, cols)
	for j, s := range squares {
		if d.factor[j], d.failure = d.over(j, s); d.failure != nil {
			return
		}
	}
}
