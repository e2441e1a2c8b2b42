package tensor

import (
	"fmt"
	"sync"
)

// BlockRows returns the rows of a tensor whose rows are stored one after
// another in whole blocks, each decodable on its own. decode turns the bytes of
// whole rows into float32.
//
// The rows are Tiles if data is Memory.
func BlockRows(info Info, data Bytes, decode func(dst []float32, src []byte)) Rows {
	r := &blockRows{info: info, data: data, decode: decode}
	if m, ok := data.(Memory); ok && len(info.Shape) > 0 {
		return &blockTiles{r, m}
	}
	return r
}

// Dotter is Tiles that can be multiplied by a few rows without being decoded to memory.
type Dotter interface {
	Tiles

	// DotRows adds to y[i*ldy+j] the dot product of row i of the m rows of x, one after
	// another, with row row+j, for each j below n.
	DotRows(y []float32, ldy int, x []float32, m, row, n int) error
}

// DotRows is BlockRows of a format with a dot product: dot does what Dotter asks for, for n
// whole rows of cols elements that are stored in src.
//
// The rows are a Dotter if data is Memory.
func DotRows(info Info, data Bytes, decode func(dst []float32, src []byte),
	dot func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int)) Rows {
	r := BlockRows(info, data, decode)
	if t, ok := r.(*blockTiles); ok {
		return &blockDots{t, dot}
	}
	return r
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

// blockTiles is blockRows in memory.
type blockTiles struct {
	*blockRows
	data Memory
}

// TileStep implements Tiles.
func (r *blockTiles) TileStep() int {
	elems, _ := r.info.DType.Block()
	return int(elems)
}

// ReadTile implements Tiles.
func (r *blockTiles) ReadTile(dst []float32, ld int, row int64, rows, col, cols int) error {
	if err := CheckTile(r.info, len(dst), ld, row, rows, col, cols); err != nil || rows == 0 || cols == 0 {
		return err
	}
	elems, bytes := r.info.DType.Block()
	if int64(col)%elems != 0 || int64(cols)%elems != 0 {
		return fmt.Errorf("tensor %q: columns %d to %d are not whole blocks of %v", r.info.Name, col, col+cols, r.info.DType)
	}
	size, n := r.info.RowSize(), int64(cols)/elems*bytes
	at := row*size + int64(col)/elems*bytes
	for i := range rows {
		src, err := r.data.Slice(nil, at+int64(i)*size, n)
		if err != nil {
			return err
		}
		r.decode(dst[i*ld:i*ld+cols], src)
	}
	return nil
}

// blockDots is blockTiles with a dot product.
type blockDots struct {
	*blockTiles
	dot func(y []float32, ldy int, x []float32, m, cols int, src []byte, n int)
}

// DotRows implements Dotter.
func (r *blockDots) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	cols := int(r.info.Shape.Cols())
	if err := CheckRows(r.info, n*cols, int64(row)); err != nil || n == 0 || cols == 0 {
		return err
	}
	size := r.info.RowSize()
	src, err := r.data.Slice(nil, int64(row)*size, int64(n)*size)
	if err != nil {
		return err
	}
	r.dot(y, ldy, x, m, cols, src, n)
	return nil
}

// CheckTile returns an error unless the tile, n floats with ld from row to row,
// lies within the tensor.
func CheckTile(info Info, n, ld int, row int64, rows, col, cols int) error {
	if rows == 0 {
		return nil
	}
	if row < 0 || rows < 0 || row > info.Shape.Rows()-int64(rows) ||
		col < 0 || cols < 0 || int64(col) > info.Shape.Cols()-int64(cols) || ld < cols || n < (rows-1)*ld+cols {
		return fmt.Errorf("tensor %q: columns %d to %d of %d rows from row %d of %v asked for, with %d floats for them",
			info.Name, col, col+cols, rows, row, info.Shape, n)
	}
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
