package tensor

import (
	"io"
	"sync"
)

// panelBytes bounds what a computed reader holds at a time.
const panelBytes = 1 << 20

// RowFunc fills dst with the stored bytes of len(dst)/rowSize whole rows,
// starting at row. It is called concurrently.
type RowFunc func(dst []byte, row int64) error

// ReadRowsAt returns a reader over rows*rowSize bytes that are computed by fill
// when they are read. Whole rows are filled in place, at most a mebibyte at a
// time; a part of a row goes through a buffer of one row.
func ReadRowsAt(rowSize, rows int64, fill RowFunc) io.ReaderAt {
	return &rowReader{rowSize: rowSize, rows: rows, fill: fill}
}

type rowReader struct {
	rowSize, rows int64
	fill          RowFunc
	scratch       sync.Pool // *[]byte of one row
}

func (r *rowReader) ReadAt(p []byte, off int64) (int, error) {
	end := r.rowSize * r.rows
	if off < 0 || off >= end {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > end-off {
		p, eof = p[:end-off], io.EOF
	}
	n := 0
	for n < len(p) {
		row, at := (off+int64(n))/r.rowSize, (off+int64(n))%r.rowSize
		rest := p[n:]
		if whole := int64(len(rest)) / r.rowSize; at == 0 && whole > 0 {
			whole = min(whole, max(1, panelBytes/r.rowSize))
			if err := r.fill(rest[:whole*r.rowSize], row); err != nil {
				return n, err
			}
			n += int(whole * r.rowSize)
			continue
		}
		buf, _ := r.scratch.Get().(*[]byte)
		if buf == nil {
			b := make([]byte, r.rowSize)
			buf = &b
		}
		err := r.fill(*buf, row)
		if err == nil {
			n += copy(rest, (*buf)[at:])
		}
		r.scratch.Put(buf)
		if err != nil {
			return n, err
		}
	}
	return n, eof
}

// Compute returns the entry of a tensor whose rows come from another's, of the
// same shape, through change: rows are decoded by in, changed (change may be
// nil) and stored by enc.
func Compute(info Info, in Rows, change func(w []float32, row int64) error, enc Encoder) Entry {
	cols := info.Shape.Cols()
	rowSize := info.RowSize()
	var scratch sync.Pool
	fill := func(dst []byte, row int64) error {
		n := int64(len(dst)) / rowSize * cols
		buf, _ := scratch.Get().(*[]float32)
		if buf == nil || int64(cap(*buf)) < n {
			b := make([]float32, n)
			buf = &b
		}
		defer scratch.Put(buf)
		w := (*buf)[:n]
		if err := in.ReadRows(w, row); err != nil {
			return err
		}
		if change != nil {
			if err := change(w, row); err != nil {
				return err
			}
		}
		enc.Encode(dst, w)
		return nil
	}
	return Entry{Info: info, Open: func() (io.ReaderAt, error) {
		return &computed{ReadRowsAt(rowSize, info.Shape.Rows(), fill), info, in, change}, nil
	}}
}

// computed is the reader of an entry of Compute.
type computed struct {
	io.ReaderAt
	info   Info
	in     Rows
	change func(w []float32, row int64) error
}

// ReadRows implements Rows: what is stored by enc, before that.
func (c *computed) ReadRows(dst []float32, row int64) error {
	if err := c.in.ReadRows(dst, row); err != nil || c.change == nil {
		return err
	}
	return c.change(dst, row)
}

// exactRows returns the rows of a tensor that Compute makes as F32, which need not be
// stored as bytes and read again; nil if raw is no such tensor.
func exactRows(info Info, raw io.ReaderAt) Rows {
	for {
		switch r := raw.(type) {
		case *io.SectionReader:
			outer, off, n := r.Outer()
			if off != 0 || n != info.Size() {
				return nil
			}
			raw = outer
		case *computed:
			if r.info.DType != F32 || info.DType != F32 || r.info.Shape.Cols() != info.Shape.Cols() || r.info.Size() != info.Size() {
				return nil
			}
			return r
		default:
			return nil
		}
	}
}
