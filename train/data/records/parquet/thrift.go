package parquet

import (
	"errors"
	"fmt"

	"github.com/seed18967229/nibble/tensor"
)

// Types of Thrift's compact protocol.
const (
	tStop = iota
	tTrue
	tFalse
	tByte
	tI16
	tI32
	tI64
	tDouble
	tBinary
	tList
	tSet
	tMap
	tStruct
)

// maxNesting bounds structs and lists in one another.
const maxNesting = 32

// errShort is a structure that goes on after the bytes there are.
var errShort = fmt.Errorf("%w: the metadata ends early", tensor.ErrMalformed)

// thrift reads structures of the compact protocol. The first error stays, and all
// that is read after it is zero.
type thrift struct {
	b     []byte
	depth int
	err   error
}

func (t *thrift) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.b = nil
}

func (t *thrift) byte() byte {
	if len(t.b) == 0 {
		t.fail(errShort)
		return 0
	}
	b := t.b[0]
	t.b = t.b[1:]
	return b
}

func (t *thrift) uvarint() uint64 {
	v, rest, err := uvarint(t.b)
	if err != nil {
		t.fail(err)
		return 0
	}
	t.b = rest
	return v
}

func (t *thrift) int() int64 { return zigzag(t.uvarint()) }

func (t *thrift) bytes() []byte { return t.take(t.uvarint()) }

func (t *thrift) take(n uint64) []byte {
	if n > uint64(len(t.b)) {
		t.fail(errShort)
		return nil
	}
	b := t.b[:n]
	t.b = t.b[n:]
	return b
}

// fields calls f for each field of a struct. What f does not read it must skip.
func (t *thrift) fields(f func(id int64, kind byte)) {
	if t.depth++; t.depth > maxNesting {
		t.fail(fmt.Errorf("%w: metadata nested more than %d deep", tensor.ErrMalformed, maxNesting))
	}
	defer func() { t.depth-- }()
	var id int64
	for t.err == nil {
		head := t.byte()
		kind := head & 15
		if kind == tStop {
			return
		}
		if delta := head >> 4; delta != 0 {
			id += int64(delta)
		} else {
			id = t.int()
		}
		f(id, kind)
	}
}

// elements calls f for each element of a list. No element is shorter than a byte,
// so that a list is never longer than what is left.
func (t *thrift) elements(f func(kind byte)) {
	if t.depth++; t.depth > maxNesting {
		t.fail(fmt.Errorf("%w: metadata nested more than %d deep", tensor.ErrMalformed, maxNesting))
	}
	defer func() { t.depth-- }()
	head := t.byte()
	n := uint64(head >> 4)
	if n == 15 {
		n = t.uvarint()
	}
	if n > uint64(len(t.b)) {
		t.fail(errShort)
		return
	}
	for range n {
		if t.err != nil {
			return
		}
		f(head & 15)
	}
}

// skip passes over a value. The value of a boolean field is its type; in a list it
// is a byte.
func (t *thrift) skip(kind byte, inList bool) {
	switch kind {
	case tTrue, tFalse:
		if inList {
			t.byte()
		}
	case tByte:
		t.byte()
	case tI16, tI32, tI64:
		t.uvarint()
	case tDouble:
		t.take(8)
	case tBinary:
		t.bytes()
	case tList, tSet:
		t.elements(func(kind byte) { t.skip(kind, true) })
	case tStruct:
		t.fields(func(_ int64, kind byte) { t.skip(kind, false) })
	case tMap:
		n := t.uvarint()
		if n == 0 {
			return
		}
		kinds := t.byte()
		for ; n > 0 && t.err == nil; n-- {
			t.skip(kinds>>4, true)
			t.skip(kinds&15, true)
		}
	default:
		t.fail(fmt.Errorf("%w: metadata of the unknown type %d", tensor.ErrMalformed, kind))
	}
}

// integer reads a field that is to be a whole number.
func (t *thrift) integer(kind byte) int64 {
	switch kind {
	case tI16, tI32, tI64:
		return t.int()
	case tByte:
		return int64(int8(t.byte()))
	}
	t.mistyped(kind)
	return 0
}

// boolean reads a field that is to be true or false.
func (t *thrift) boolean(kind byte) bool {
	if kind != tTrue && kind != tFalse {
		t.mistyped(kind)
	}
	return kind == tTrue
}

// text reads a field that is to be a string.
func (t *thrift) text(kind byte) string {
	if kind != tBinary {
		t.mistyped(kind)
		return ""
	}
	return string(t.bytes())
}

// structure reads a field that is to be a struct.
func (t *thrift) structure(kind byte, f func(id int64, kind byte)) {
	if kind != tStruct {
		t.mistyped(kind)
		return
	}
	t.fields(f)
}

// list reads a field that is to be a list.
func (t *thrift) list(kind byte, f func(kind byte)) {
	if kind != tList {
		t.mistyped(kind)
		return
	}
	t.elements(f)
}

func (t *thrift) mistyped(kind byte) {
	t.fail(fmt.Errorf("%w: metadata of the type %d where another is due", tensor.ErrMalformed, kind))
}

var errVarint = errors.New("a number of more than 64 bits")

// uvarint reads a number of seven bits a byte.
func uvarint(b []byte) (uint64, []byte, error) {
	var v uint64
	for i, c := range b {
		if i == 9 && c > 1 {
			return 0, nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, errVarint)
		}
		v |= uint64(c&127) << (7 * i)
		if c < 128 {
			return v, b[i+1:], nil
		}
	}
	return 0, nil, errShort
}

func zigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
