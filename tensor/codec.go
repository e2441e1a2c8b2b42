package tensor

import (
	"fmt"
	"io"
)

// Rows reads a tensor as float32 rows of Shape.Cols elements. It is safe for
// concurrent use.
type Rows interface {
	// ReadRows decodes len(dst)/cols rows, starting at the given row. len(dst)
	// must be a multiple of cols and the rows must exist.
	ReadRows(dst []float32, row int64) error
}

// Tiles is Rows of which parts of rows can be read at the cost of their share:
// Rows in memory.
type Tiles interface {
	Rows

	// TileStep is what the first column of a tile is a multiple of, and its width,
	// unless it ends with the row.
	TileStep() int

	// ReadTile decodes columns col to col+cols of the given number of rows, starting
	// at the given row, to dst, ld floats from row to row.
	ReadTile(dst []float32, ld int, row int64, rows, col, cols int) error
}

// A Codec reads the stored bytes of one DType as float32 rows.
type Codec interface {
	DType() DType

	// Open returns the rows of a tensor of the codec's DType whose stored
	// bytes are data. It checks what it needs of them; ReadRows over Memory
	// then cannot fail.
	Open(info Info, data Bytes) (Rows, error)
}

// An Encoder is a Codec that can also store rows, each independently of the
// others.
type Encoder interface {
	Codec

	// Encode stores whole rows of src in dst. The lengths must correspond by
	// the DType's block.
	Encode(dst []byte, src []float32)
}

// A WeightedEncoder is an Encoder that can mind how much each column matters: an
// importance matrix holds the mean square of what a column is multiplied by.
type WeightedEncoder interface {
	Encoder

	// EncodeWeighted stores whole rows of src in dst, each of len(importance)
	// values.
	EncodeWeighted(dst []byte, src, importance []float32)
}

// A Recoder is an Encoder that knows a way from the stored elements of another
// DType to its own that is shorter than by way of float32. The result is the same.
type Recoder interface {
	Encoder

	// From returns the function that stores the elements in src, which are of
	// DType d, in dst; nil if there is none for that DType.
	From(d DType) func(dst, src []byte)
}

// Bytes is random access to stored bytes, in memory or not, without a copy
// where none is needed.
type Bytes interface {
	// Slice returns the n bytes at off: a part of the memory if that is where
	// they are, else buf, enlarged if it must be and filled. The result is
	// read-only.
	Slice(buf []byte, off, n int64) ([]byte, error)
}

// Memory is Bytes in memory.
type Memory []byte

// Slice implements Bytes; it never copies.
func (m Memory) Slice(_ []byte, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > int64(len(m))-n {
		return nil, fmt.Errorf("bytes %d to %d of %d: %w", off, off+n, len(m), io.ErrUnexpectedEOF)
	}
	return m[off : off+n : off+n], nil
}

// ReaderBytes is Bytes read from R on demand.
type ReaderBytes struct{ R io.ReaderAt }

// Slice implements Bytes.
func (r ReaderBytes) Slice(buf []byte, off, n int64) ([]byte, error) {
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if k, err := r.R.ReadAt(buf, off); int64(k) < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return buf, nil
}

// Codecs is the set of encodings a program was built with.
type Codecs map[DType]Codec

// NewCodecs returns the set. Two codecs of one DType are a programming error
// and panic.
func NewCodecs(list ...Codec) Codecs {
	cs := make(Codecs, len(list))
	for _, c := range list {
		if _, dup := cs[c.DType()]; dup {
			panic("tensor: two codecs for " + c.DType().String())
		}
		cs[c.DType()] = c
	}
	return cs
}

// Open returns the rows of a tensor with the given stored bytes.
func (cs Codecs) Open(info Info, data Bytes) (Rows, error) {
	c, ok := cs[info.DType]
	if !ok {
		return nil, fmt.Errorf("tensor %q: %w: no decoder for %v", info.Name, ErrUnsupported, info.DType)
	}
	rows, err := c.Open(info, data)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", info.Name, err)
	}
	return rows, nil
}

// OpenFrom returns the description and the rows of a tensor of src, read on
// demand.
func (cs Codecs) OpenFrom(src Source, name string) (Info, Rows, error) {
	info, err := src.Info(name)
	if err != nil {
		return Info{}, nil, err
	}
	raw, err := src.Raw(name)
	if err != nil {
		return Info{}, nil, err
	}
	if rows := exactRows(info, raw); rows != nil {
		return info, rows, nil
	}
	rows, err := cs.Open(info, ReaderBytes{raw})
	return info, rows, err
}

// Encoder returns the encoder of a DType.
func (cs Codecs) Encoder(d DType) (Encoder, error) {
	if e, ok := cs[d].(Encoder); ok {
		return e, nil
	}
	return nil, fmt.Errorf("%w: no encoder for %v", ErrUnsupported, d)
}

// ReadAll decodes a whole tensor. It is for the small ones: norms, biases,
// adapters.
func (cs Codecs) ReadAll(src Source, name string) (Info, []float32, error) {
	info, rows, err := cs.OpenFrom(src, name)
	if err != nil {
		return Info{}, nil, err
	}
	dst := make([]float32, info.Shape.Elems())
	if err := rows.ReadRows(dst, 0); err != nil {
		return Info{}, nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	return info, dst, nil
}
