package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// maxHeader bounds what is read of a header, and with it the memory that a
	// file can demand by being opened. That of a model with a vocabulary of
	// 262,144 tokens and its merges has about 16 MB.
	maxHeader = 256 << 20

	scratchSize = 64 << 10

	// maxGrow bounds how many elements there is room made for before they are read.
	maxGrow = 1 << 20

	truncatedHint = "the file is cut short or damaged: download or copy it again, and compare its size with the original's"
)

// decoder reads a header from front to back. It allocates for what it has
// read, not for what it is told to expect.
type decoder struct {
	r     *bufio.Reader
	order binary.ByteOrder
	off   int64 // of the next byte
	size  int64 // of the whole file
}

func newDecoder(r io.ReaderAt, size int64) *decoder {
	return &decoder{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), scratchSize), order: le, size: size}
}

// malformed, unsupported and truncated return what is wrong at a byte.
func malformed(at int64, format string, args ...any) error {
	return fmt.Errorf("at byte %d: %w: %s", at, tensor.ErrMalformed, fmt.Sprintf(format, args...))
}

func unsupported(at int64, format string, args ...any) error {
	return fmt.Errorf("at byte %d: %w: %s", at, tensor.ErrUnsupported, fmt.Sprintf(format, args...))
}

func truncated(at int64, format string, args ...any) error {
	return hint.Add(malformed(at, format, args...), truncatedHint)
}

// expect returns an error unless n more units of the given size can follow.
// what they are is for the error.
func (d *decoder) expect(at int64, n, size uint64, what string) error {
	over, need := bits.Mul64(n, size)
	if over != 0 {
		need = math.MaxUint64
	}
	if left := uint64(d.size - d.off); need > left {
		return truncated(at, "%s: at least %d bytes needed, %d left", what, need, left)
	}
	if d.off+int64(need) > maxHeader {
		return unsupported(at, "%s: the header would have more than %d bytes", what, maxHeader)
	}
	return nil
}

// next returns the next n bytes. They are valid until it is called again.
func (d *decoder) next(n uint64, what string) ([]byte, error) {
	if err := d.expect(d.off, n, 1, what); err != nil {
		return nil, err
	}
	var b []byte
	var err error
	if n <= scratchSize {
		if b, err = d.r.Peek(int(n)); err == nil {
			_, err = d.r.Discard(int(n))
		}
	} else {
		b, err = safeio.ReadN(d.r, n)
	}
	switch {
	case err == nil: // errors.Is takes as long as all else here
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, truncated(d.off, "%s of %d bytes: the file has become shorter", what, n)
	case err != nil:
		return nil, fmt.Errorf("at byte %d: %w", d.off, err)
	}
	d.off += int64(n)
	return b, nil
}

func (d *decoder) uint32(what string) (uint32, error) {
	b, err := d.next(4, what)
	if err != nil {
		return 0, err
	}
	return d.order.Uint32(b), nil
}

func (d *decoder) uint64(what string) (uint64, error) {
	b, err := d.next(8, what)
	if err != nil {
		return 0, err
	}
	return d.order.Uint64(b), nil
}

func (d *decoder) string() (string, error) {
	b, err := d.bytes()
	return string(b), err
}

// bytes returns those of a string. They are valid as long as those of next.
func (d *decoder) bytes() ([]byte, error) {
	n, err := d.uint64("the length of a string")
	if err != nil {
		return nil, err
	}
	return d.next(n, "a string")
}

// count reads how many entries follow, each of at least minSize bytes.
func (d *decoder) count(what string, minSize uint64) (int64, error) {
	at := d.off
	n, err := d.uint64(what)
	if err != nil {
		return 0, err
	}
	if int64(n) < 0 {
		return 0, malformed(at, "%s is negative: %d", what, int64(n))
	}
	return int64(n), d.expect(at, n, minSize, fmt.Sprintf("%s %d", what, n))
}
