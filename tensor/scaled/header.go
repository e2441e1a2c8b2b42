package scaled

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/tensor"
)

const (
	magic      = "nib8"
	headerSize = 48
)

// elements are the dtypes of an element by their number in a header, with the
// DType of the tensors they make.
var elements = []struct {
	dtype, of tensor.DType
	name      string
}{
	{tensor.F8_E4M3, tensor.FP8, "FP8 E4M3"},
	{tensor.F8_E5M2, tensor.FP8, "FP8 E5M2"},
	{tensor.I8, tensor.INT8, "INT8"},
}

// sources are the dtypes a weight can have had, by their number in a header.
var sources = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16}

// Header is how a tensor is stored, apart from its name and shape.
type Header struct {
	Element tensor.DType // F8_E4M3, F8_E5M2 or I8
	Source  tensor.DType // before quantization: F32, F16 or BF16

	// Rows is the number of rows of a matrix, of which BlockRows by BlockCols
	// elements share a scale.
	Rows, BlockRows, BlockCols int64

	// Factor is what every value is multiplied with in the end: 1, but for
	// LLM.int8, whose scales are for 127.
	Factor float32
}

// DType returns the DType of the tensors that elements of that dtype make, Invalid
// if they make none.
func DType(element tensor.DType) tensor.DType {
	for _, e := range elements {
		if e.dtype == element {
			return e.of
		}
	}
	return tensor.Invalid
}

// grid returns how many matrices a tensor of that shape is, and how many scales a
// matrix has down and across.
func (h Header) grid(shape tensor.Shape) (matrices, down, across int64) {
	if shape.Elems() == 0 {
		return 0, 0, 0
	}
	return shape.Rows() / h.Rows, ceilDiv(h.Rows, h.BlockRows), ceilDiv(shape.Cols(), h.BlockCols)
}

// Scales returns the number of scales of a tensor of that shape, which Check has
// accepted.
func (h Header) Scales(shape tensor.Shape) int64 {
	matrices, down, across := h.grid(shape)
	return matrices * down * across
}

// Check returns an error if no tensor of that shape, which is valid, can have such
// a header.
func (h Header) Check(shape tensor.Shape) error {
	elems := shape.Elems()
	switch {
	case DType(h.Element) == tensor.Invalid:
		return fmt.Errorf("%w: elements of %v, want F8_E4M3, F8_E5M2 or I8", tensor.ErrUnsupported, h.Element)
	case !slices.Contains(sources, h.Source):
		return fmt.Errorf("%w: %v as dtype before quantization, want F32, F16 or BF16", tensor.ErrUnsupported, h.Source)
	case h.Rows < 1 || h.BlockRows < 1 || h.BlockCols < 1:
		return fmt.Errorf("%w: matrices of %d rows in blocks of %dx%d", tensor.ErrMalformed, h.Rows, h.BlockRows, h.BlockCols)
	case elems > 0 && shape.Rows()%h.Rows != 0:
		return fmt.Errorf("%w: shape %v is no stack of matrices of %d rows", tensor.ErrMalformed, shape, h.Rows)
	case elems > (math.MaxInt64-headerSize)/5: // at most a scale for each element
		return fmt.Errorf("%w: shape %v has more bytes than 64 bits can count", tensor.ErrMalformed, shape)
	}
	return nil
}

// size returns the number of bytes of a tensor of that shape.
func (h Header) size(shape tensor.Shape) int64 {
	return headerSize + 4*h.Scales(shape) + shape.Elems()
}

// Info returns the description of a tensor of that name and shape, which Check has
// accepted.
func (h Header) Info(name string, shape tensor.Shape) tensor.Info {
	return tensor.NewOpaque(name, DType(h.Element), shape, h.size(shape))
}

// Append appends the header of a tensor of that many elements to b.
func (h Header) Append(b []byte, elems int64) []byte {
	element := 0
	for i, e := range elements {
		if e.dtype == h.Element {
			element = i
		}
	}
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(element))
	b = binary.LittleEndian.AppendUint32(b, uint32(slices.Index(sources, h.Source)))
	b = binary.LittleEndian.AppendUint32(b, math.Float32bits(h.Factor))
	for _, n := range []int64{elems, h.Rows, h.BlockRows, h.BlockCols} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// ReadHeader reads how a tensor is stored from its bytes. It returns an error that
// wraps tensor.ErrMalformed if they are not those of a tensor of info's DType,
// shape and size.
func ReadHeader(info tensor.Info, data tensor.Bytes) (Header, error) {
	if err := info.Validate(); err != nil {
		return Header{}, err
	}
	var buf [headerSize]byte
	b, err := data.Slice(buf[:], 0, headerSize)
	if err != nil {
		return Header{}, tensor.Truncated(err, "header of an 8-bit tensor")
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	long := func(off int) int64 { return int64(binary.LittleEndian.Uint64(b[off:])) }
	if string(b[:4]) != magic || word(4) >= uint32(len(elements)) || word(8) >= uint32(len(sources)) {
		return Header{}, fmt.Errorf("%w: not the header of an 8-bit tensor", tensor.ErrMalformed)
	}
	h := Header{
		Element: elements[word(4)].dtype, Source: sources[word(8)],
		Rows: long(24), BlockRows: long(32), BlockCols: long(40),
		Factor: math.Float32frombits(word(12)),
	}
	switch {
	case DType(h.Element) != info.DType:
		return Header{}, fmt.Errorf("%w: elements of %v in a tensor of %v", tensor.ErrMalformed, h.Element, info.DType)
	case long(16) != info.Shape.Elems():
		return Header{}, fmt.Errorf("%w: an 8-bit tensor of %d elements where shape %v has %d", tensor.ErrMalformed, long(16), info.Shape, info.Shape.Elems())
	}
	if err := h.Check(info.Shape); err != nil {
		return Header{}, err
	}
	if size := h.size(info.Shape); size != info.Size() {
		return Header{}, fmt.Errorf("%w: %d bytes where an 8-bit tensor of %v in blocks of %dx%d has %d",
			tensor.ErrMalformed, info.Size(), info.Shape, h.BlockRows, h.BlockCols, size)
	}
	return h, nil
}

// Describe returns how a tensor of src is stored, if it is FP8 or INT8. It reads
// 48 bytes.
func Describe(src tensor.Source, name string) (Header, error) {
	info, err := src.Info(name)
	if err != nil {
		return Header{}, err
	}
	raw, err := src.Raw(name)
	if err != nil {
		return Header{}, err
	}
	h, err := ReadHeader(info, tensor.ReaderBytes{R: raw})
	if err != nil {
		return Header{}, fmt.Errorf("tensor %q: %w", name, err)
	}
	return h, nil
}

// Kind names what the elements are: "FP8 E4M3".
func (h Header) Kind() string {
	for _, e := range elements {
		if e.dtype == h.Element {
			return e.name
		}
	}
	return h.Element.String()
}

// Grid says which elements of a tensor of that shape share a scale: "a scale", "a
// scale for each matrix", "a scale for each row", "blocks of 128x128".
func (h Header) Grid(shape tensor.Shape) string {
	switch {
	case h.BlockCols < shape.Cols() || h.BlockRows != 1 && h.BlockRows != h.Rows || h.BlockCols > max(1, shape.Cols()):
		return fmt.Sprintf("blocks of %dx%d", h.BlockRows, h.BlockCols)
	case h.BlockRows < h.Rows:
		return "a scale for each row"
	case h.Rows < shape.Rows():
		return "a scale for each matrix"
	}
	return "a scale"
}

func ceilDiv(a, b int64) int64 {
	n := a / b
	if a%b != 0 {
		n++
	}
	return n
}
