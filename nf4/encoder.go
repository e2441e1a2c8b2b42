package nf4

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// The block sizes bitsandbytes has: the powers of two from MinBlock to
// MaxBlock. DefaultBlock is what it takes if it is not told.
const (
	MinBlock     = 32
	MaxBlock     = 4096
	DefaultBlock = 64
)

// CheckBlockSize returns an error unless n is a block size.
func CheckBlockSize(n int64) error {
	if n < MinBlock || n > MaxBlock || n&(n-1) != 0 {
		return fmt.Errorf("%w: block size %d, want a power of two from %d to %d", tensor.ErrUnsupported, n, MinBlock, MaxBlock)
	}
	return nil
}

// together is how many blocks are encoded in one call.
const together = 64

// tiny stands in for a smaller absmax when values are divided by it.
const tiny = kernel.TinyAbsmax

// An Encoder quantizes one tensor that is given to it piece by piece, in
// row-major order. The pieces need not end where blocks do. It keeps a partial
// block and 12 bytes for each block that is done.
type Encoder struct {
	book    codebook
	block   []float32         // the partial block
	some    []kernel.Moments4 // scratch: of blocks encoded together
	done    int64             // elements in whole blocks
	want    int64             // elements of the tensor
	absmax  []float32
	moments [][2]float32 // of each block, scaled: sum of error*value, of value^2
	errSum  float64      // sum of error^2 if each block has its exact absmax
	sum     float64      // sum of element^2
}

// NewEncoder returns an Encoder to d, NF4 or FP4, of a tensor of the given
// number of elements.
func NewEncoder(d tensor.DType, blockSize int, elems int64) (*Encoder, error) {
	book, err := bookOf(d)
	if err != nil {
		return nil, err
	}
	if err := CheckBlockSize(int64(blockSize)); err != nil {
		return nil, err
	}
	blocks := ceilDiv(elems, int64(blockSize))
	return &Encoder{
		book:    book,
		block:   make([]float32, 0, blockSize),
		some:    make([]kernel.Moments4, together),
		want:    elems,
		absmax:  make([]float32, 0, blocks),
		moments: make([][2]float32, 0, blocks),
	}, nil
}

// EncoderMemory returns how many bytes the Encoder of such a tensor takes.
func EncoderMemory(blockSize int, elems int64) int64 {
	return 4*int64(blockSize) + 12*together + 12*ceilDiv(elems, int64(blockSize))
}

// Append appends the packed codes of the blocks that x completes to codes: a
// whole number of bytes. It returns a *tensor.NonFiniteError at the first element of
// them that is NaN or infinite.
func (e *Encoder) Append(codes []byte, x []float32) ([]byte, error) {
	if int64(len(x)) > e.want-e.done-int64(len(e.block)) {
		return codes, fmt.Errorf("more than the %d elements of the tensor", e.want)
	}
	size := cap(e.block)
	if len(e.block) > 0 {
		n := min(len(x), size-len(e.block))
		e.block = append(e.block, x[:n]...)
		x = x[n:]
		if len(e.block) < size {
			return codes, nil
		}
		var err error
		if codes, err = e.encode(codes, e.block); err != nil {
			return codes, err
		}
		e.block = e.block[:0]
	}
	for len(x) >= size {
		n := min(len(x)/size, together) * size
		var err error
		if codes, err = e.encode(codes, x[:n]); err != nil {
			return codes, err
		}
		x = x[n:]
	}
	e.block = append(e.block, x...)
	return codes, nil
}

// Finish appends the codes of the partial last block, if there is one. An odd
// number of elements leaves the code of zero in the last low nibble.
func (e *Encoder) Finish(codes []byte) ([]byte, error) {
	if n := e.done + int64(len(e.block)); n != e.want {
		return codes, fmt.Errorf("%d of the %d elements of the tensor", n, e.want)
	}
	if len(e.block) == 0 {
		return codes, nil
	}
	n := len(codes)
	codes = append(codes, make([]byte, (len(e.block)+1)/2)...)
	top, m, ok := kernel.Encode4Last(codes[n:], e.block, e.book.Codebook)
	if !ok {
		return codes[:n], e.nonFinite(e.block)
	}
	e.absmax = append(e.absmax, top)
	e.count([]kernel.Moments4{m}, len(e.block))
	return codes, nil
}

// Absmax returns the largest magnitude of each block so far. The slice is the
// Encoder's.
func (e *Encoder) Absmax() []float32 { return e.absmax }

// RelRMS returns the root of the mean squared error, relative to that of the
// elements, of what will be decoded: with the absmax that dq made of Absmax, or
// with Absmax itself if dq is nil. It is 0 for a tensor of zeros.
func (e *Encoder) RelRMS(dq *DoubleQuant) float64 {
	if e.sum == 0 {
		return 0
	}
	total := e.errSum
	for i, m := range e.moments {
		// With x = unit*s, the error goes from unit*(s - v) to
		// unit*(s - v) - d*v.
		unit, scale := float64(max(e.absmax[i], tiny)), e.absmax[i]
		if dq != nil {
			scale = dq.Scale(i)
		}
		d := float64(scale) - unit
		total += d * (d*float64(m[1]) - 2*unit*float64(m[0]))
	}
	return math.Sqrt(max(0, total) / e.sum)
}

// encode quantizes whole blocks, at most together of them.
func (e *Encoder) encode(codes []byte, x []float32) ([]byte, error) {
	size := cap(e.block)
	at, first, n := len(codes), len(e.absmax), len(x)/size
	codes = slices.Grow(codes, len(x)/2)[:at+len(x)/2]
	e.absmax = slices.Grow(e.absmax, n)[:first+n]
	done := kernel.Encode4(codes[at:], e.absmax[first:], e.some[:n], x, size, e.book.Codebook)
	e.absmax = e.absmax[:first+done]
	e.count(e.some[:done], done*size)
	if done < n {
		return codes[:at+done*size/2], e.nonFinite(x[done*size:])
	}
	return codes, nil
}

// nonFinite returns the error for the first element of x, which is what comes next,
// that is NaN or infinite.
func (e *Encoder) nonFinite(x []float32) error {
	for i, v := range x {
		if math.Float32bits(v)&^(1<<31) >= 0x7f800000 {
			return &tensor.NonFiniteError{Index: e.done + int64(i), Value: v}
		}
	}
	panic("nf4: a block of finite numbers was refused")
}

// count takes note of n elements, the blocks that absmax ends with.
func (e *Encoder) count(blocks []kernel.Moments4, n int) {
	first := len(e.moments)
	e.moments = slices.Grow(e.moments, len(blocks))[:first+len(blocks)]
	absmax, moments := e.absmax[first:][:len(blocks)], e.moments[first:][:len(blocks)]
	errSum, sum := e.errSum, e.sum
	for i, m := range blocks {
		unit := float64(tiny)
		if absmax[i] > tiny {
			unit = float64(absmax[i])
		}
		unit *= unit
		// Of s = v + (s-v), the square is v^2 + 2(s-v)v + (s-v)^2.
		errSum += unit * float64(m.Err)
		sum += unit * (float64(m.Square) + 2*float64(m.Mixed) + float64(m.Err))
		moments[i] = [2]float32{m.Mixed, m.Square}
	}
	e.errSum, e.sum = errSum, sum
	e.done += int64(n)
}

// ceilDiv returns a/b, rounded up.
func ceilDiv[T int | int64](a, b T) T { return a/b + min(1, a%b) }
