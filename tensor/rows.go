package tensor

import (
	"fmt"
	"sync"
)

// BlockRows returns the rows of a tensor whose rows are stored one after
// another in whole blocks, each decodable on its own. decode turns the bytes of
// whole rows into float32.
func BlockRows(info Info, data Bytes, decode func(dst []float32, src []byte)) Rows {
	return &blockRows{info: info, data: data, decode: decode}
}

type blockRows struct {
	info    Info
	data    Bytes
	decode  func(dst []float32, src []byte)
	scratch sync.Pool // *[]byte
}

// ReadRows implements Rows. A panel read from a file goes through a buffer of
// the size of its stored bytes.
func (r *blockRows) ReadRows(dst []float32, row int64) error {
	if err := CheckRows(r.info, len(dst), row); err != nil || len(dst) == 0 {
		return err
	}
	size := r.info.RowSize()
	n := int64(len(dst)) / r.info.Shape.Cols()
	buf, _ := r.scratch.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	src, err := r.data.Slice(*buf, row*size, n*size)
	if err != nil {
		return err
	}
	r.decode(dst, src)
	if _, mem := r.data.(Memory); !mem {
		*buf = src
	}
	r.scratch.Put(buf)
	return nil
}

// CheckRows returns an error unless n elements are whole rows of the tensor
// that exist from the given row on.
func CheckRows(info Info, n int, row int64) error {
	cols, rows := info.Shape.Cols(), info.Shape.Rows()
	if n == 0 {
		return nil
	}
	if cols == 0 || int64(n)%cols != 0 || row < 0 || row > rows-int64(n)/cols {
		return fmt.Errorf("tensor %q: %d elements from row %d of %v asked for", info.Name, n, row, info.Shape)
	}
	return nil
}
