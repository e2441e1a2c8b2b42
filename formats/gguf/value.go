package gguf

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/tensor"
)

// le is the byte order of every number in a file, unless it was made for a
// big-endian machine; such a one is read, but never written.
var le = binary.LittleEndian

// A valueType is one of the types a metadata value, or each element of an
// array, can have.
type valueType interface {
	// minSize is the smallest number of bytes that an element takes.
	minSize() uint64

	read(d *decoder) (any, error)

	// readArray reads n elements, known to fit the file by their minSize. What
	// it returns is not nil even if n is 0: the type of the elements is kept.
	readArray(d *decoder, n uint64) (any, error)

	// encode appends the type id and v, if v is a value or an array of this
	// type, and reports whether it is.
	encode(b []byte, id uint32, v any) ([]byte, bool)
}

const arrayID = 9

// valueTypes is indexed by the type ids of gguf.h, enum gguf_type. That of an
// array has no entry, since an array's elements may not be arrays: the
// specification would allow it, but llama.cpp does not read them.
var valueTypes = [...]valueType{
	0:  fixed[uint8]{},
	1:  fixed[int8]{},
	2:  fixed[uint16]{},
	3:  fixed[int16]{},
	4:  fixed[uint32]{},
	5:  fixed[int32]{},
	6:  fixed[float32]{},
	7:  boolean{},
	8:  text{},
	10: fixed[uint64]{},
	11: fixed[int64]{},
	12: fixed[float64]{},
}

// readValue reads a type id and the value or array that follows it.
func readValue(d *decoder) (any, error) {
	at := d.off
	id, err := d.uint32("a value type")
	if err != nil {
		return nil, err
	}
	isArray := id == arrayID
	if isArray {
		if id, err = d.uint32("the type of an array's elements"); err != nil {
			return nil, err
		}
	}
	if id == arrayID {
		return nil, unsupported(at, "an array of arrays")
	}
	if uint64(id) >= uint64(len(valueTypes)) {
		return nil, malformed(at, "unknown value type %d", id)
	}
	t := valueTypes[id]
	if !isArray {
		return t.read(d)
	}
	at = d.off
	n, err := d.uint64("the length of an array")
	if err != nil {
		return nil, err
	}
	if err := d.expect(at, n, t.minSize(), fmt.Sprintf("an array of %d elements", n)); err != nil {
		return nil, err
	}
	return t.readArray(d, n)
}

// appendValue appends the type id of v, and v.
func appendValue(b []byte, v any) ([]byte, error) {
	for id, t := range valueTypes {
		if t == nil {
			continue
		}
		if b, ok := t.encode(b, uint32(id), v); ok {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: GGUF has no type for a value of Go type %T", tensor.ErrUnsupported, v)
}

func appendArray(b []byte, id uint32, n int) []byte {
	return le.AppendUint64(le.AppendUint32(le.AppendUint32(b, arrayID), id), uint64(n))
}

func appendString(b []byte, s string) []byte {
	return append(le.AppendUint64(b, uint64(len(s))), s...)
}

// fixed is a type of numbers.
type fixed[T uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64 | int64 | float32 | float64] struct{}

func (fixed[T]) minSize() uint64 { return uint64(binary.Size(T(0))) }

func (t fixed[T]) read(d *decoder) (any, error) {
	var v T
	b, err := d.next(t.minSize(), "a number")
	if err == nil {
		_, err = binary.Decode(b, d.order, &v)
	}
	return v, err
}

func (t fixed[T]) readArray(d *decoder, n uint64) (any, error) { return t.slice(d, n) }

// slice reads n numbers, a chunk at a time.
func (t fixed[T]) slice(d *decoder, n uint64) ([]T, error) {
	chunk := scratchSize / t.minSize()
	out := make([]T, 0, min(n, chunk))
	for have := uint64(0); have < n; have = uint64(len(out)) {
		k := min(n-have, chunk)
		b, err := d.next(k*t.minSize(), "numbers of an array")
		if err != nil {
			return nil, err
		}
		out = slices.Grow(out, int(k))[:have+k]
		if _, err := binary.Decode(b, d.order, out[have:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (fixed[T]) encode(b []byte, id uint32, v any) ([]byte, bool) {
	switch v := v.(type) {
	case T:
		b = le.AppendUint32(b, id)
	case []T:
		b = appendArray(b, id, len(v))
	default:
		return b, false
	}
	b, err := binary.Append(b, le, v)
	return b, err == nil
}

// boolean is stored as a byte of 0 or 1.
type boolean struct{}

func (boolean) minSize() uint64 { return 1 }

func (t boolean) read(d *decoder) (any, error) {
	v, err := t.slice(d, 1)
	if err != nil {
		return nil, err
	}
	return v[0], nil
}

func (t boolean) readArray(d *decoder, n uint64) (any, error) { return t.slice(d, n) }

func (boolean) slice(d *decoder, n uint64) ([]bool, error) {
	at := d.off
	b, err := fixed[uint8]{}.slice(d, n)
	if err != nil {
		return nil, err
	}
	out := make([]bool, n)
	for i, c := range b {
		if c > 1 {
			return nil, malformed(at+int64(i), "a bool of %d, which must be 0 or 1", c)
		}
		out[i] = c == 1
	}
	return out, nil
}

func (boolean) encode(b []byte, id uint32, v any) ([]byte, bool) {
	var list []bool
	switch v := v.(type) {
	case bool:
		b, list = le.AppendUint32(b, id), []bool{v}
	case []bool:
		b, list = appendArray(b, id, len(v)), v
	default:
		return b, false
	}
	b, err := binary.Append(b, le, list)
	return b, err == nil
}

// text is a string: its length in bytes (uint64), and the bytes. They should be
// UTF-8, but files with tokens that are not exist and load.
type text struct{}

func (text) minSize() uint64 { return 8 }

func (text) read(d *decoder) (any, error) { return d.string() }

// readArray has many strings share one piece of memory: a vocabulary has some
// hundred thousand short ones, which are kept or dropped together.
func (text) readArray(d *decoder, n uint64) (any, error) {
	out := make([]string, 0, min(n, maxGrow)) // each has 8 bytes of the file, which are there
	var joined []byte
	var ends []int
	for uint64(len(out)) < n {
		joined, ends = joined[:0], ends[:0]
		for len(joined) < scratchSize && uint64(len(out)+len(ends)) < n {
			b, err := d.bytes()
			if err != nil {
				return nil, err
			}
			joined = append(joined, b...)
			ends = append(ends, len(joined))
		}
		all, at := string(joined), 0
		for _, end := range ends {
			out = append(out, all[at:end])
			at = end
		}
	}
	return out, nil
}

func (text) encode(b []byte, id uint32, v any) ([]byte, bool) {
	switch v := v.(type) {
	case string:
		return appendString(le.AppendUint32(b, id), v), true
	case []string:
		b = appendArray(b, id, len(v))
		for _, s := range v {
			b = appendString(b, s)
		}
		return b, true
	}
	return b, false
}
