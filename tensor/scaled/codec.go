package scaled

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
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
	w := &weight{Header: h, info: info, data: data, values: tables()[h.Element]}
	_, w.down, w.across = h.grid(info.Shape)
	w.elementsAt = headerSize + 4*h.Scales(info.Shape)
	return w, nil
}

// tables are the values of all codes of an element, by its dtype.
var tables = sync.OnceValue(func() map[tensor.DType]*[256]float32 {
	plain := tensor.NewCodecs(floats.Codecs()...)
	m := make(map[tensor.DType]*[256]float32)
	var codes [256]byte
	for i := range codes {
		codes[i] = byte(i)
	}
	for _, e := range elements {
		t := new([256]float32)
		if e.dtype == tensor.I8 {
			for i := range t {
				t[i] = float32(int8(i))
			}
		} else if rows, err := plain.Open(tensor.Info{DType: e.dtype, Shape: tensor.Shape{256}}, tensor.Memory(codes[:])); err != nil {
			panic(err) // floats has the 8-bit floats
		} else if err := rows.ReadRows(t[:], 0); err != nil {
			panic(err)
		}
		m[e.dtype] = t
	}
	return m
})

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
		w.decode(dst[r*cols:(r+1)*cols], p.elements[r*cols:(r+1)*cols], p.scales[at:at+4*w.across])
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

// decode decodes a row, given the scales of its blocks.
func (w *weight) decode(dst []float32, src, scales []byte) {
	for len(dst) > 0 {
		n := min(int64(len(dst)), w.BlockCols)
		scale := math.Float32frombits(binary.LittleEndian.Uint32(scales))
		if w.Factor == 1 {
			for i, c := range src[:n] {
				dst[i] = w.values[c] * scale
			}
		} else {
			for i, c := range src[:n] {
				dst[i] = float32(w.values[c]*scale) * w.Factor
			}
		}
		dst, src, scales = dst[n:], src[n:], scales[4:]
	}
}
