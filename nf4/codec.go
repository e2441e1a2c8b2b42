package nf4

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Codecs returns the codecs of NF4 and FP4. They read only: a tensor is
// quantized as a whole, by an Encoder, since blocks straddle rows and the
// offset of double quantization is known last.
func Codecs() []tensor.Codec { return []tensor.Codec{codec{nf4Book}, codec{fp4Book}} }

type codec struct{ book codebook }

// DType implements tensor.Codec.
func (c codec) DType() tensor.DType { return c.book.dtype }

// Open implements tensor.Codec.
func (c codec) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	if info.DType != c.book.dtype {
		return nil, fmt.Errorf("%w: the codec of %v asked to read %v", tensor.ErrUnsupported, c.book.dtype, info.DType)
	}
	h, err := ReadHeader(info, data)
	if err != nil {
		return nil, err
	}
	s := h.Sections(info.Shape.Elems())
	w := &weight{info: info, data: data, book: c.book, Header: h, scratch: &fromReader}
	w.nestedAt = s.Header + s.Map
	w.absmaxAt = w.nestedAt + s.Nested
	w.codesAt = w.absmaxAt + s.Absmax
	if _, err := data.Slice(nil, s.Size()-1, 1); err != nil {
		return nil, tensor.Truncated(err, fmt.Sprintf("the last of %d bytes", s.Size()))
	}
	if h.Double {
		b, err := data.Slice(nil, s.Header, s.Map)
		if err != nil {
			return nil, err
		}
		for i := range w.dynamic {
			w.dynamic[i], w.offsets[i] = float32At(b, i), h.Offset
		}
	}
	if _, ok := data.(tensor.Memory); !ok {
		return w, nil
	}
	w.scratch = &inMemory
	if info.Shape.Cols()%h.BlockSize == 0 {
		return dotted{tiled{w}}, nil
	}
	return tiled{w}, nil
}

// weight is an opened tensor.
type weight struct {
	Header
	info tensor.Info
	data tensor.Bytes
	book codebook

	nestedAt, absmaxAt, codesAt int64
	dynamic                     [256]float32 // the stored 8-bit map
	offsets                     [nestedBlock]float32

	scratch *sync.Pool // *part
}

// Scratch is shared by all weights: those that are streamed are opened again each time
// they come. What a part has of one in memory is that memory, and never to be read into.
var inMemory, fromReader sync.Pool

// tiled is a weight in memory, any part of which is cheap to reach.
type tiled struct{ *weight }

// dotted is one of which no block straddles rows.
type dotted struct{ tiled }

// part is the stored bytes that a panel needs: those of the blocks from first
// on.
type part struct {
	first, nestedFirst    int64
	nested, absmax, codes []byte
	scales                []float32 // absmax, decoded
}

// ReadRows implements tensor.Rows. A panel read from a file goes through buffers
// of the size of its stored bytes.
func (w *weight) ReadRows(dst []float32, row int64) error {
	if err := tensor.CheckRows(w.info, len(dst), row); err != nil || len(dst) == 0 {
		return err
	}
	p := w.part()
	defer w.put(p)
	return w.read(p, dst, row*w.info.Shape.Cols())
}

// TileStep implements tensor.Tiles.
func (w tiled) TileStep() int { return int(w.BlockSize) }

// ReadTile implements tensor.Tiles.
func (w tiled) ReadTile(dst []float32, ld int, row int64, rows, col, cols int) error {
	if err := tensor.CheckTile(w.info, len(dst), ld, row, rows, col, cols); err != nil || cols == 0 {
		return err
	}
	p := w.part()
	defer w.put(p)
	all := w.info.Shape.Cols()
	if (all|int64(col)|int64(cols))%w.BlockSize == 0 { // a power of two
		w.readBlocks(p, dst, ld, row*all+int64(col), rows, cols)
		return nil
	}
	for i := range rows {
		if err := w.read(p, dst[i*ld:][:cols], (row+int64(i))*all+int64(col)); err != nil {
			return err
		}
	}
	return nil
}

// The rows that follow by rowsAhead are asked for when a tile is decoded, if it is narrow:
// a wide one is read along its rows.
const (
	rowsAhead = 64
	narrow    = 256
)

// readBlocks decodes cols elements from number at on and as many from each of the rows
// below, where no block straddles rows. A product does that for some hundred elements
// at a time, so what read does once for each of its calls would show.
func (w tiled) readBlocks(p *part, dst []float32, ld int, at int64, rows, cols int) {
	mem := w.data.(tensor.Memory)
	blocks := cols / int(w.BlockSize)
	p.scales = slices.Grow(p.scales[:0], blocks)[:blocks]
	if all := int(w.info.Shape.Cols()); cols <= narrow && cols < all {
		// A product goes down the columns, where each row is a cache miss or two.
		soon := int(at) + rowsAhead*all
		kernel.Prefetch(mem, int(w.codesAt)+soon/2, all/2, rows, cols/2)
		if size := int(w.BlockSize); w.Double {
			kernel.Prefetch(mem[:w.codesAt], int(w.absmaxAt)+soon/size, all/size, rows, blocks)
		}
	}
	for i := range rows {
		first := (at + int64(i)*w.info.Shape.Cols()) / w.BlockSize
		if w.Double {
			for j, code := range mem[w.absmaxAt+first:][:blocks] {
				nested := float32At(mem[w.nestedAt:], int(first+int64(j))/nestedBlock)
				p.scales[j] = undouble(w.dynamic[code], nested, w.Offset)
			}
		} else {
			kernel.DecodeF32(p.scales, mem[w.absmaxAt+4*first:][:4*blocks])
		}
		codes := mem[w.codesAt+first*w.BlockSize/2:]
		kernel.Decode4(dst[i*ld:][:cols], codes, &w.book.Values, p.scales, int(w.BlockSize))
	}
}

// PackTile is ReadTile by columns, as kernel.Packer asks for.
func (w dotted) PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error {
	if err := tensor.CheckTile(w.info, rows*cols, cols, int64(row), rows, col, cols); err != nil {
		return err
	}
	p := w.part()
	defer w.put(p)
	mem := w.data.(tensor.Memory)
	all := int(w.info.Shape.Cols())
	size := int(w.BlockSize)
	blocks := ceilDiv(cols, size)
	p.scales = slices.Grow(p.scales[:0], blocks*rows)[:blocks*rows]
	first, next := (row*all+col)/size, all/size
	for i := range rows {
		w.columnScales(p.scales[i:], rows, first, blocks)
		first += next
	}
	ahead := ((nextRow-row)*all + nextCol - col) / 2
	kernel.Pack4(dst, ld, mem[int(w.codesAt)+(row*all+col)/2:], all/2, &w.book.Values, p.scales, size, rows, cols, ahead)
	return nil
}

// columnScales writes the absmax of n blocks from the given one on, each step floats from
// the one before.
func (w dotted) columnScales(dst []float32, step, first, n int) {
	mem := w.data.(tensor.Memory)
	if !w.Double {
		for j := range n {
			dst[j*step] = float32At(mem[w.absmaxAt:], first+j)
		}
		return
	}
	codes := mem[int(w.absmaxAt)+first:][:n]
	nested, offset := mem[w.nestedAt:w.absmaxAt], w.Offset
	block := first / nestedBlock
	scale := float32At(nested, block)
	for j, code := range codes {
		if b := (first + j) / nestedBlock; b != block {
			block, scale = b, float32At(nested, b)
		}
		dst[j*step] = undouble(w.dynamic[code], scale, offset)
	}
}

// DotRows adds to y[i*ldy+j] the dot product of row i of the m rows of x, one after
// another, with row row+j, for each j below n, without a decoded value in memory. It
// is what kernel.Dots asks for.
func (w dotted) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	cols := w.info.Shape.Cols()
	if err := tensor.CheckRows(w.info, n*int(cols), int64(row)); err != nil || n == 0 || cols == 0 {
		return err
	}
	p := w.part()
	defer w.put(p)
	if err := w.load(p, int64(row)*cols, int64(row+n)*cols); err != nil {
		return err
	}
	kernel.Dot4(y, ldy, x, m, int(cols), p.codes, &w.book.Values, p.scales, int(w.BlockSize), n)
	return nil
}

func (w *weight) part() *part {
	if p, ok := w.scratch.Get().(*part); ok {
		return p
	}
	return new(part)
}

func (w *weight) put(p *part) {
	if w.scratch == &inMemory {
		p.nested, p.absmax, p.codes = nil, nil, nil
	}
	w.scratch.Put(p)
}

// read decodes len(dst) elements, at least one, from number at on.
func (w *weight) read(p *part, dst []float32, at int64) error {
	if err := w.load(p, at, at+int64(len(dst))); err != nil {
		return err
	}
	codes, scales, values := p.codes, p.scales, &w.book.Values
	// What the panel has of a block that began before it.
	if n := min((w.BlockSize-at%w.BlockSize)%w.BlockSize, int64(len(dst))); n > 0 {
		if at%2 != 0 {
			dst[0] = values[codes[0]&15] * scales[0]
			dst, codes, n = dst[1:], codes[1:], n-1
		}
		kernel.Decode4(dst[:n], codes, values, scales[:1], int(w.BlockSize))
		dst, codes, scales = dst[n:], codes[n/2:], scales[1:]
	}
	kernel.Decode4(dst, codes, values, scales, int(w.BlockSize))
	return nil
}

// load fetches the stored bytes of elements from to end and decodes the absmax.
func (w *weight) load(p *part, from, end int64) (err error) {
	p.first = from / w.BlockSize
	blocks := (end-1)/w.BlockSize + 1 - p.first
	width := int64(4)
	if w.Double {
		width = 1
		p.nestedFirst = p.first / nestedBlock
		n := (p.first+blocks-1)/nestedBlock + 1 - p.nestedFirst
		if p.nested, err = w.data.Slice(p.nested, w.nestedAt+4*p.nestedFirst, 4*n); err != nil {
			return err
		}
	}
	if p.absmax, err = w.data.Slice(p.absmax, w.absmaxAt+width*p.first, width*blocks); err != nil {
		return err
	}
	if p.codes, err = w.data.Slice(p.codes, w.codesAt+from/2, ceilDiv(end, 2)-from/2); err != nil {
		return err
	}
	p.scales = slices.Grow(p.scales[:0], int(blocks))[:blocks]
	if !w.Double {
		kernel.DecodeF32(p.scales, p.absmax)
		return nil
	}
	for at := 0; at < len(p.absmax); {
		block := (p.first + int64(at)) / nestedBlock
		end := min(len(p.absmax), int((block+1)*nestedBlock-p.first))
		scales := p.scales[at:end]
		kernel.Decode8(scales, p.absmax[at:end], &w.dynamic, float32At(p.nested, int(block-p.nestedFirst)))
		kernel.AddScaled(scales, 1, w.offsets[:len(scales)])
		at = end
	}
	return nil
}

func float32At(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}
