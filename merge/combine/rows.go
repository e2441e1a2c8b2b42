package combine

import (
	"fmt"
	"sync"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/tensor"
)

// panel is how many elements are read at a time.
const panel = 1 << 18

// buffers hold what is computed between two reads.
var buffers sync.Pool // *[]float32

func buffer(n int) *[]float32 {
	b, _ := buffers.Get().(*[]float32)
	if b == nil || cap(*b) < n {
		s := make([]float32, n)
		return &s
	}
	*b = (*b)[:n]
	return b
}

// Of returns the rows of what deltas of one target add together.
func Of(deltas ...merge.Delta) tensor.Rows { return sumOfDeltas(deltas) }

type sumOfDeltas []merge.Delta

// ReadRows implements tensor.Rows.
func (ds sumOfDeltas) ReadRows(dst []float32, row int64) error {
	clear(dst)
	for _, d := range ds {
		if err := d.AddRows(dst, row, 1); err != nil {
			return err
		}
	}
	return nil
}

// Difference returns the rows of a tensor less those of a base.
func Difference(rows, base tensor.Rows) tensor.Rows { return difference{rows, base} }

type difference struct{ rows, base tensor.Rows }

// ReadRows implements tensor.Rows.
func (d difference) ReadRows(dst []float32, row int64) error {
	if err := d.rows.ReadRows(dst, row); err != nil {
		return err
	}
	was := buffer(len(dst))
	defer buffers.Put(was)
	if err := d.base.ReadRows(*was, row); err != nil {
		return err
	}
	for i, v := range *was {
		dst[i] -= v
	}
	return nil
}

// Opened returns the rows of a tensor of a source, opened when they are first read.
func Opened(src tensor.Source, codecs tensor.Codecs, name string) tensor.Rows {
	return &opened{open: sync.OnceValues(func() (tensor.Rows, error) {
		_, rows, err := codecs.OpenFrom(src, name)
		return rows, err
	})}
}

type opened struct {
	open func() (tensor.Rows, error)
}

// ReadRows implements tensor.Rows.
func (o *opened) ReadRows(dst []float32, row int64) error {
	rows, err := o.open()
	if err != nil {
		return err
	}
	return rows.ReadRows(dst, row)
}

// Added returns the delta that adds rows to a target.
func Added(target string, rows tensor.Rows) merge.Delta { return &added{target, rows} }

type added struct {
	target string
	rows   tensor.Rows
}

// Target implements merge.Delta.
func (d *added) Target() string { return d.target }

// Zero implements merge.Delta.
func (d *added) Zero() bool { return false }

// AddRows implements merge.Delta.
func (d *added) AddRows(w []float32, row int64, scale float32) error {
	buf := buffer(len(w))
	defer buffers.Put(buf)
	if err := d.rows.ReadRows(*buf, row); err != nil {
		return err
	}
	for i, v := range *buf {
		w[i] += scale * v
	}
	return nil
}

// Replaced returns the change that puts rows in place of those of a target.
func Replaced(target string, rows tensor.Rows) merge.Change { return &replaced{target, rows} }

type replaced struct {
	target string
	rows   tensor.Rows
}

// Target implements merge.Change.
func (c *replaced) Target() string { return c.target }

// Apply implements merge.Change.
func (c *replaced) Apply(w []float32, row int64) error { return c.rows.ReadRows(w, row) }

// each calls f with all rows of several tensors of one shape, some at a time: w[i] is a panel
// of the i-th, the first of whose elements is at. A value that is not finite is an error.
func each(shape tensor.Shape, rows []tensor.Rows, f func(w [][]float32, at int64)) error {
	cols, all := shape.Cols(), shape.Rows()
	if cols == 0 {
		return nil
	}
	some := min(all, max(1, panel/cols))
	w := make([][]float32, len(rows))
	for i := range w {
		buf := buffer(int(some * cols))
		defer buffers.Put(buf)
		w[i] = *buf
	}
	for row := int64(0); row < all; row += some {
		n := int(min(some, all-row) * cols)
		for i, r := range rows {
			w[i] = w[i][:n]
			if err := r.ReadRows(w[i], row); err != nil {
				return err
			}
			if err := finite(w[i], row*cols); err != nil {
				return err
			}
		}
		f(w, row*cols)
	}
	return nil
}

func finite(w []float32, at int64) error {
	for i, v := range w {
		if v-v != 0 { // NaN or Inf
			return hint.Add(fmt.Errorf("%w: element %d of what is combined is %v", tensor.ErrMalformed, at+int64(i), v),
				"nibble verify lists every tensor with NaN or Inf")
		}
	}
	return nil
}
