package tensor

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// Shape is the extent of each dimension, outermost first, as PyTorch and
// safetensors write it. (GGUF reverses it, and does so at its own edge.) An
// empty Shape is a scalar.
type Shape []int64

// Elems returns the number of elements. The Shape must have passed Validate
// (every Shape in a Source has).
func (s Shape) Elems() int64 {
	n := int64(1)
	for _, d := range s {
		n *= d
	}
	return n
}

// Cols returns the length of a row: the last dimension, or 1 for a scalar.
func (s Shape) Cols() int64 {
	if len(s) == 0 {
		return 1
	}
	return s[len(s)-1]
}

// Rows returns the number of rows: the product of all dimensions but the last.
func (s Shape) Rows() int64 {
	if len(s) == 0 {
		return 1
	}
	return s[:len(s)-1].Elems()
}

// Equal reports whether both shapes have the same dimensions.
func (s Shape) Equal(t Shape) bool { return slices.Equal(s, t) }

// String returns the dimensions as "[64, 172]".
func (s Shape) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range s {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.FormatInt(d, 10))
	}
	b.WriteByte(']')
	return b.String()
}

// Validate returns an error if a dimension is negative or the number of
// elements does not fit an int64.
func (s Shape) Validate() error {
	n := uint64(1)
	for _, d := range s {
		if d < 0 {
			return fmt.Errorf("%w: shape %v has a negative dimension", ErrMalformed, s)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return fmt.Errorf("%w: shape %v has more elements than 64 bits can count", ErrMalformed, s)
		}
		n = lo
	}
	return nil
}

// Info names a tensor and says how it is stored.
type Info struct {
	Name  string
	DType DType
	Shape Shape

	size int64 // of an opaque encoding
	late bool
}

// MaxLate is the largest size in bytes of a tensor made with NewLate.
const MaxLate = 64 << 10

// NewOpaque returns the Info of a tensor in an opaque encoding that occupies
// size bytes.
func NewOpaque(name string, d DType, shape Shape, size int64) Info {
	return Info{Name: name, DType: d, Shape: shape, size: size}
}

// NewLate returns the Info of a U8 vector whose length, at most MaxLate, is
// known only once its bytes have been computed; until then its Shape says
// MaxLate. It exists for the JSON that
// bitsandbytes stores beside a weight, the length of which depends on how many
// digits a number in it needs. A Sink places such tensors after all others.
func NewLate(name string) Info {
	return Info{Name: name, DType: U8, Shape: Shape{MaxLate}, late: true}
}

// Late reports whether the Info was made with NewLate.
func (i Info) Late() bool { return i.late }

// Size returns the number of bytes the tensor occupies, not counting padding.
// The Info must be valid (every Info of a Source is); for a late tensor it is
// MaxLate.
func (i Info) Size() int64 {
	if i.DType.Opaque() {
		return i.size
	}
	block, bytes := i.DType.Block()
	return i.Shape.Elems() / block * bytes
}

// RowSize returns the number of bytes of one row, 0 for an opaque encoding.
func (i Info) RowSize() int64 {
	block, bytes := i.DType.Block()
	if block == 0 {
		return 0
	}
	return i.Shape.Cols() / block * bytes
}

// Validate returns an error naming the tensor if its dtype is unknown, its
// shape is impossible, its rows (for F4 and F6: its elements) do not divide
// into whole blocks, or its size does not fit an int64.
func (i Info) Validate() error {
	if i.DType == Invalid || i.DType >= numDTypes {
		return fmt.Errorf("tensor %q: %w: dtype %v", i.Name, ErrUnsupported, i.DType)
	}
	if err := i.Shape.Validate(); err != nil {
		return fmt.Errorf("tensor %q: %w", i.Name, err)
	}
	block, bytes := i.DType.Block()
	if block == 0 {
		if i.size < 0 {
			return fmt.Errorf("tensor %q: %w: size %d", i.Name, ErrMalformed, i.size)
		}
		return nil
	}
	// The sub-byte floats pack their elements without regard to rows; the
	// quantized blocks never straddle one.
	unit, of := i.Shape.Cols(), "row length"
	if block <= 4 {
		unit, of = i.Shape.Elems(), "number of elements"
	}
	if unit%block != 0 {
		return fmt.Errorf("tensor %q: %w: %s %d is not a multiple of the block size %d of %v",
			i.Name, ErrMalformed, of, unit, block, i.DType)
	}
	if hi, lo := bits.Mul64(uint64(i.Shape.Elems()/block), uint64(bytes)); hi != 0 || lo > math.MaxInt64 {
		return fmt.Errorf("tensor %q: %w: %v of %v has more bytes than 64 bits can count",
			i.Name, ErrMalformed, i.DType, i.Shape)
	}
	return nil
}
