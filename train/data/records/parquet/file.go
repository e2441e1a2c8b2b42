package parquet

import (
	"fmt"
	"io"
	"math"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// MaxRow is the greatest length of a row as JSON.
const MaxRow = 64 << 20

// File is an open file. It is not safe for concurrent use.
type File struct {
	r      io.ReaderAt
	size   int64
	schema *schema
	footer *footer

	group   int   // the next row group
	left    int64 // rows left in the one before
	row     int64 // rows returned
	columns []*column
	buf     []byte
}

// Open reads the footer of a file of the given size. Errors wrap
// tensor.ErrMalformed or tensor.ErrUnsupported, or are those of r.
func Open(r io.ReaderAt, size int64) (*File, error) {
	foot, err := readFooter(r, size)
	if err != nil {
		return nil, err
	}
	s, err := newSchema(foot.schema)
	if err != nil {
		return nil, err
	}
	var rows int64
	for i, g := range foot.groups {
		if len(g.columns) != len(s.leaves) {
			return nil, fmt.Errorf("%w: row group %d has %d columns, the schema %d", tensor.ErrMalformed, i, len(g.columns), len(s.leaves))
		}
		if g.rows < 0 || g.rows > math.MaxInt64-rows {
			return nil, fmt.Errorf("%w: row group %d of %d rows", tensor.ErrMalformed, i, g.rows)
		}
		rows += g.rows
	}
	if rows != foot.rows {
		return nil, fmt.Errorf("%w: %d rows, and %d in the row groups", tensor.ErrMalformed, foot.rows, rows)
	}
	return &File{r: r, size: size, schema: s, footer: foot}, nil
}

// Rows returns the number of rows that the file says it has.
func (f *File) Rows() int64 { return f.footer.rows }

// Next returns the next row as a JSON object, which is valid until the next call,
// and io.EOF after the last.
func (f *File) Next() ([]byte, error) {
	for f.left == 0 {
		if err := f.endGroup(); err != nil {
			return nil, err
		}
		if f.group == len(f.footer.groups) {
			return nil, io.EOF
		}
		if err := f.openGroup(); err != nil {
			return nil, err
		}
	}
	for _, c := range f.columns {
		if c.ended || c.rep != 0 {
			return nil, c.fail(fmt.Errorf("%w: the column's rows are not those of the others", tensor.ErrMalformed))
		}
	}
	var err error
	if f.buf, err = f.object(f.buf[:0], f.schema.root); err != nil {
		return nil, err
	}
	f.left--
	f.row++
	return f.buf, nil
}

// endGroup checks that the columns of a row group end together.
func (f *File) endGroup() error {
	for _, c := range f.columns {
		if !c.ended {
			return c.fail(fmt.Errorf("%w: the column has more rows than the others", tensor.ErrMalformed))
		}
	}
	return nil
}

func (f *File) openGroup() error {
	g := f.footer.groups[f.group]
	f.group++
	f.left = g.rows
	f.columns = f.columns[:0]
	for i, n := range f.schema.leaves {
		c, err := newColumn(n, g.columns[i], f.r, f.size)
		if err == nil {
			err = c.advance()
		}
		if err != nil {
			return err
		}
		f.columns = append(f.columns, c)
	}
	return nil
}

// object writes a group as an object.
func (f *File) object(b []byte, n *node) ([]byte, error) {
	var err error
	b = append(b, '{')
	for i, c := range n.children {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = f.value(append(b, c.key...), c); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// value writes what a node holds: a list if it repeats.
func (f *File) value(b []byte, n *node) ([]byte, error) {
	if n.repeated {
		return f.list(b, n, n)
	}
	if null, err := f.null(n); null || err != nil {
		return append(b, "null"...), err
	}
	return f.content(b, n)
}

// content writes what a node holds that is there.
func (f *File) content(b []byte, n *node) ([]byte, error) {
	switch {
	case n.item != nil:
		return f.list(b, n.many, n.item)
	case len(n.children) > 0:
		return f.object(b, n)
	}
	c := f.columns[n.leaves[0]]
	if c.ended || c.def != n.def {
		return nil, c.fail(fmt.Errorf("%w: no value where one is due", tensor.ErrMalformed))
	}
	b, err := n.json(b, c.datum)
	if err != nil {
		return nil, c.fail(err)
	}
	if len(b) > MaxRow {
		return nil, tooLong()
	}
	return b, c.advance()
}

func tooLong() error {
	return hint.Add(fmt.Errorf("%w: a row of more than %d MiB", tensor.ErrMalformed, MaxRow>>20), "remove the row, or the column that is so large")
}

// list writes the repetitions of many, of which item is to be shown.
func (f *File) list(b []byte, many, item *node) ([]byte, error) {
	none, err := f.null(many)
	if err != nil {
		return nil, err
	}
	b = append(b, '[')
	for first := true; !none; first = false {
		if !first {
			more, err := f.more(many)
			if err != nil {
				return nil, err
			}
			if !more {
				break
			}
			b = append(b, ',')
		}
		if item == many {
			b, err = f.content(b, item)
		} else {
			b, err = f.value(b, item)
		}
		if err != nil {
			return nil, err
		}
		if len(b) > MaxRow {
			return nil, tooLong()
		}
	}
	return append(b, ']'), nil
}

// more reports whether a list goes on, which its columns must agree on.
func (f *File) more(many *node) (bool, error) {
	again := func(c *column) bool { return !c.ended && c.rep == many.rep }
	more := again(f.columns[many.leaves[0]])
	for _, i := range many.leaves[1:] {
		if c := f.columns[i]; again(c) != more {
			return false, c.fail(fmt.Errorf("%w: the column's lists are not as long as those beside it", tensor.ErrMalformed))
		}
	}
	return more, nil
}

// null reports whether a node is not there, and if so passes over the places that
// its columns have for that.
func (f *File) null(n *node) (bool, error) {
	if !n.optional && !n.repeated {
		return false, nil
	}
	null := f.columns[n.leaves[0]].def < n.def
	for _, i := range n.leaves {
		c := f.columns[i]
		if c.ended || (c.def < n.def) != null {
			return false, c.fail(fmt.Errorf("%w: the column's values are not those of the columns beside it", tensor.ErrMalformed))
		}
		if null {
			if err := c.advance(); err != nil {
				return false, err
			}
		}
	}
	return null, nil
}
