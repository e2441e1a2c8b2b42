package nf4

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/tensor"
)

const (
	magic      = "nib4"
	headerSize = 32
	flagDouble = 1
	mapSize    = 256 * 4
)

// sources are the dtypes a weight can have had, by their number in a blob.
var sources = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16}

// Header is how a quantized tensor is stored, apart from its DType and shape.
type Header struct {
	BlockSize int64
	Double    bool         // double quantization
	Source    tensor.DType // before quantization, what bitsandbytes decodes to: F32, F16 or BF16
	Offset    float32      // of the absmax, with double quantization
}

// Sections are the sizes in bytes of the parts of a blob, in order.
type Sections struct {
	Header, Map, Nested, Absmax, Codes int64
}

// Size returns the size of the blob.
func (s Sections) Size() int64 { return s.Header + s.Map + s.Nested + s.Absmax + s.Codes }

// Sections returns the sizes of the parts of a blob of that many elements.
func (h Header) Sections(elems int64) Sections {
	blocks := ceilDiv(elems, h.BlockSize)
	s := Sections{Header: headerSize, Absmax: 4 * blocks, Codes: ceilDiv(elems, 2)}
	if h.Double {
		s.Map, s.Nested, s.Absmax = mapSize, 4*ceilDiv(blocks, nestedBlock), blocks
	}
	return s
}

// Info returns the description of a tensor of that DType and shape, stored as h
// says.
func (h Header) Info(name string, d tensor.DType, shape tensor.Shape) tensor.Info {
	return tensor.NewOpaque(name, d, shape, h.Sections(shape.Elems()).Size())
}

// Append appends the header of a tensor of that many elements to b.
func (h Header) Append(b []byte, elems int64) []byte {
	var flags uint32
	if h.Double {
		flags |= flagDouble
	}
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.BlockSize))
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(slices.Index(sources, h.Source)))
	b = binary.LittleEndian.AppendUint64(b, uint64(elems))
	b = binary.LittleEndian.AppendUint32(b, math.Float32bits(h.Offset))
	return binary.LittleEndian.AppendUint32(b, 0)
}

// Check returns an error if no blob can have such a header.
func (h Header) Check() error {
	if err := CheckBlockSize(h.BlockSize); err != nil {
		return err
	}
	if !slices.Contains(sources, h.Source) {
		return fmt.Errorf("%w: %v as dtype before quantization, want F32, F16 or BF16", tensor.ErrUnsupported, h.Source)
	}
	return nil
}

// ReadHeader reads how a tensor is stored from its bytes. It returns an error
// that wraps tensor.ErrMalformed if they are not a blob of info's DType, shape
// and size.
func ReadHeader(info tensor.Info, data tensor.Bytes) (Header, error) {
	if _, err := bookOf(info.DType); err != nil {
		return Header{}, err
	}
	if err := info.Validate(); err != nil {
		return Header{}, err
	}
	var buf [headerSize]byte
	b, err := data.Slice(buf[:], 0, headerSize)
	if err != nil {
		return Header{}, tensor.Truncated(err, "header of a 4-bit tensor")
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	h := Header{
		BlockSize: int64(word(4)),
		Double:    word(8)&flagDouble != 0,
		Offset:    math.Float32frombits(word(24)),
	}
	if string(b[:4]) != magic || word(8)&^flagDouble != 0 || word(12) >= uint32(len(sources)) || word(28) != 0 {
		return Header{}, fmt.Errorf("%w: not the header of a 4-bit tensor", tensor.ErrMalformed)
	}
	h.Source = sources[word(12)]
	if err := h.Check(); err != nil {
		return Header{}, err
	}
	elems := info.Shape.Elems()
	if n := binary.LittleEndian.Uint64(b[16:]); n != uint64(elems) {
		return Header{}, fmt.Errorf("%w: a 4-bit tensor of %d elements where shape %v has %d", tensor.ErrMalformed, n, info.Shape, elems)
	}
	if size := h.Sections(elems).Size(); size != info.Size() {
		return Header{}, fmt.Errorf("%w: %d bytes where a 4-bit tensor of %v with block size %d has %d",
			tensor.ErrMalformed, info.Size(), info.Shape, h.BlockSize, size)
	}
	return h, nil
}

// Describe returns how a tensor of src is stored, if it is NF4 or FP4. It reads
// 32 bytes.
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
