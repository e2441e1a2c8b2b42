package merge

import (
	"slices"

	"github.com/seed18967229/nibble/tensor"
)

// replacement is a tensor that the adapter holds whole, in place of the base's.
type replacement struct {
	target string
	rows   tensor.Rows
}

// Target implements Change.
func (r *replacement) Target() string { return r.target }

// Apply implements Change.
func (r *replacement) Apply(w []float32, row int64) error { return r.rows.ReadRows(w, row) }

// tokenRows are some rows of an embedding that the adapter holds.
type tokenRows struct {
	target string
	cols   int
	at     map[int64]int // where a row is in values
	values []float32
}

// Target implements Change.
func (t *tokenRows) Target() string { return t.target }

// Apply implements Change.
func (t *tokenRows) Apply(w []float32, row int64) error {
	for i := range len(w) / t.cols {
		if at, ok := t.at[row+int64(i)]; ok {
			copy(w[i*t.cols:][:t.cols], t.values[at*t.cols:])
		}
	}
	return nil
}

// chain is several changes of one tensor, one after the other.
type chain []Change

// newChain returns changes of one tensor as one; sums among them that follow each
// other are one sum.
func newChain(list []Change) Change {
	var out chain
	for _, c := range list {
		switch c := c.(type) {
		case chain:
			out = append(out, c...)
			continue
		case *sum:
			if n := len(out); n > 0 {
				if last, ok := out[n-1].(*sum); ok {
					out[n-1] = Sum(slices.Concat(last.deltas, c.deltas)...)
					continue
				}
			}
		}
		out = append(out, c)
	}
	if len(out) == 1 {
		return out[0]
	}
	return out
}

// Target implements Change.
func (c chain) Target() string { return c[0].Target() }

// Apply implements Change.
func (c chain) Apply(w []float32, row int64) error {
	for _, one := range c {
		if err := one.Apply(w, row); err != nil {
			return err
		}
	}
	return nil
}
