package nf4

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/seed18967229/nibble/tensor"
)

// Codecs returns the codecs of NF4 and FP4. They read only: a tensor is
// quantized as a whole, by an Encoder, since blocks straddle rows and the
// offset of double quantization is known last.
func Codecs() []tensor.Codec { return []tensor.Codec{codec{nf4Book}, codec{fp4Book}} }

type codec struct{ book *codebook }

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
	w := &weight{info: info, data: data, book: c.book, Header: h}
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
			w.dynamic[i] = float32At(b, i)
		}
	}
	return w, nil
}

// weight is an opened tensor.
type weight struct {
	Header
	info tensor.Info
	data tensor.Bytes
	book *codebook

	nestedAt, absmaxAt, codesAt int64
	dynamic                     [256]float32 // the stored 8-bit map

	scratch sync.Pool // *part
}

// part is the stored bytes that a panel needs: those of the blocks from first
// on.
type part struct {
	first, nestedFirst    int64
	nested, absmax, codes []byte
}

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
	at := row * w.info.Shape.Cols()
	if err := w.load(p, at, at+int64(len(dst))); err != nil {
		return err
	}
	codes := p.codes
	for i := p.first; len(dst) > 0; i++ {
		n := min((i+1)*w.BlockSize-at, int64(len(dst)))
		w.decode(dst[:n], codes, at&1, w.absmax(p, i))
		dst = dst[n:]
		codes = codes[(at&1+n)/2:]
		at += n
	}
	w.scratch.Put(p)
	return nil
}

// load fetches the stored bytes of elements from to end.
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
	p.codes, err = w.data.Slice(p.codes, w.codesAt+from/2, ceilDiv(end, 2)-from/2)
	return err
}

// absmax returns that of block i.
func (w *weight) absmax(p *part, i int64) float32 {
	if w.Double {
		return undouble(w.dynamic[p.absmax[i-p.first]], float32At(p.nested, int(i/nestedBlock-p.nestedFirst)), w.Offset)
	}
	return float32At(p.absmax, int(i-p.first))
}

// decode decodes len(dst) elements of one block, the first of them in the high
// (odd 0) or the low nibble (odd 1) of codes[0].
func (w *weight) decode(dst []float32, codes []byte, odd int64, absmax float32) {
	if odd != 0 {
		dst[0] = w.book.pairs[codes[0]][1] * absmax
		dst, codes = dst[1:], codes[1:]
	}
	n := len(dst) / 2
	for i, c := range codes[:n] {
		v := &w.book.pairs[c]
		dst[2*i] = v[0] * absmax
		dst[2*i+1] = v[1] * absmax
	}
	if len(dst)%2 != 0 {
		dst[2*n] = w.book.pairs[codes[n]][0] * absmax
	}
}

func float32At(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}
