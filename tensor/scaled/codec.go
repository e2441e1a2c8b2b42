package scaled

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Codecs returns the codecs of FP8 and INT8.
func Codecs() []tensor.Codec { return []tensor.Codec{codec(tensor.FP8), codec(tensor.INT8)} }

type codec tensor.DType

// DType implements tensor.Codec.
func (c codec) DType() tensor.DType { return tensor.DType(c) }

// Open implements tensor.Codec.
func (c codec) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	if info.DType != c.DType() {
		return nil, fmt.Errorf("%w: the codec of %v asked to read %v", tensor.ErrUnsupported, c.DType(), info.DType)
	}
	h, err := ReadHeader(info, data)
	if err != nil {
		return nil, err
	}
	if _, err := data.Slice(nil, info.Size()-1, 1); err != nil {
		return nil, tensor.Truncated(err, fmt.Sprintf("the last of %d bytes", info.Size()))
	}
	w := &weight{Header: h, info: info, data: data, values: codings[h.Element].Values()}
	_, w.down, w.across = h.grid(info.Shape)
	w.elementsAt = headerSize + 4*h.Scales(info.Shape)
	if mem, ok := data.(tensor.Memory); ok && len(info.Shape) > 0 {
		return tiled{w, mem}, nil
	}
	return w, nil
}

// weight is an opened tensor.
type weight struct {
	Header
	info   tensor.Info
	data   tensor.Bytes
	values *[256]float32

	down, across int64 // scales of a matrix
	elementsAt   int64

	scratch sync.Pool // *part
}

// part is the stored bytes that a panel needs.
type part struct{ scales, elements []byte }

// ReadRows implements tensor.Rows. A panel read from a file goes through buffers
// of the size of its stored bytes.
func (w *weight) ReadRows(dst []float32, row int64) error {
	if err := tensor.CheckRows(w.info, len(dst), row); err != nil || len(dst) == 0 {
		return err
	}
	p, _ := w.scratch.Get().(*part)
	if p == nil {
		p = new(part)
	}
	cols := w.info.Shape.Cols()
	rows := int64(len(dst)) / cols
	first := w.scaleRow(row)
	err := w.load(p, row, rows, first)
	if err != nil {
		return err
	}
	for r := range rows {
		at := 4 * (w.scaleRow(row+r) - first) * w.across
		w.decode(dst[r*cols:(r+1)*cols], p.elements[r*cols:(r+1)*cols], p.scales[at:at+4*w.across], 0)
	}
	w.scratch.Put(p)
	return nil
}

// scaleRow returns which row of the scales, over all matrices, is that of a row.
func (w *weight) scaleRow(row int64) int64 { return row/w.Rows*w.down + row%w.Rows/w.BlockRows }

// load fetches the stored bytes of rows from the given one on, and their scales,
// of which first is the first row.
func (w *weight) load(p *part, row, rows, first int64) (err error) {
	n := w.scaleRow(row+rows-1) - first + 1
	if p.scales, err = w.data.Slice(p.scales, headerSize+4*first*w.across, 4*n*w.across); err != nil {
		return err
	}
	cols := w.info.Shape.Cols()
	p.elements, err = w.data.Slice(p.elements, w.elementsAt+row*cols, rows*cols)
	return err
}

// decode decodes the part of a row that begins at a column, given the scales of its blocks.
func (w *weight) decode(dst []float32, src, scales []byte, col int64) {
	scales = scales[4*(col/w.BlockCols):]
	for left := w.BlockCols - col%w.BlockCols; len(dst) > 0; left = w.BlockCols {
		n := min(int64(len(dst)), left)
		kernel.Decode8(dst[:n], src[:n], w.values, math.Float32frombits(binary.LittleEndian.Uint32(scales)))
		if w.Factor != 1 {
			kernel.Scale(dst[:n], w.Factor)
		}
		dst, src, scales = dst[n:], src[n:], scales[4:]
	}
}

// tiled is a weight in memory, any part of which is cheap to reach.
type tiled struct {
	*weight
	mem tensor.Memory
}

// TileStep implements tensor.Tiles.
func (tiled) TileStep() int { return 1 }

// ReadTile implements tensor.Tiles.
func (w tiled) ReadTile(dst []float32, ld int, row int64, rows, col, cols int) error {
	if err := tensor.CheckTile(w.info, len(dst), ld, row, rows, col, cols); err != nil || cols == 0 {
		return err
	}
	for r := row; r < row+int64(rows); r++ {
		w.decode(dst[:cols], w.elements(r)[col:col+cols], w.scales(r), int64(col))
		dst = dst[min(ld, len(dst)):]
	}
	return nil
}

// elements are those of a row.
func (w tiled) elements(row int64) []byte {
	cols := w.info.Shape.Cols()
	return w.mem[w.elementsAt+row*cols:][:cols]
}

// scales are those of the blocks of a row.
func (w tiled) scales(row int64) []byte {
	return w.mem[headerSize+4*w.scaleRow(row)*w.across:][:4*w.across]
}

// codings are how the kernels know an element.
var codings = map[tensor.DType]kernel.ByteCoding{
	tensor.F8_E4M3: kernel.CodingE4M3, tensor.F8_E5M2: kernel.CodingE5M2, tensor.I8: kernel.CodingInt8,
}

// DotRows implements tensor.Dotter.
func (w tiled) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	all := w.info.Shape.Cols()
	if err := tensor.CheckRows(w.info, n*int(all), int64(row)); err != nil || n == 0 || all == 0 {
		return err
	}
	scales := make([]float32, n)
	for col, block := int64(0), int64(0); col < all; col, block = col+w.BlockCols, block+1 {
		for i := range scales {
			scales[i] = math.Float32frombits(binary.LittleEndian.Uint32(w.scales(int64(row + i))[4*block:]))
		}
		cols := int(min(w.BlockCols, all-col))
		src := w.mem[w.elementsAt+int64(row)*all+col:]
		codings[w.Element].Dot(y, ldy, x[col:], int(all), m, cols, src, int(all), scales, w.Factor, n)
	}
	return nil
}
