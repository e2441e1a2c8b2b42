package gguf

import (
	"encoding/binary"
	"fmt"
)

// order is a byte order that files are laid out in.
type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

var orders = []order{binary.LittleEndian, binary.BigEndian}

// layout makes files of one byte order.
type layout struct{ order }

// pack lays out parts as they stand in a file: a string with its length before
// it, bytes as they are, numbers and arrays of numbers.
func (o layout) pack(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(o.AppendUint64(b, uint64(len(p))), p...)
		case []byte:
			b = append(b, p...)
		default:
			var err error
			if b, err = binary.Append(b, o, p); err != nil {
				panic(fmt.Sprintf("%T: %v", p, err))
			}
		}
	}
	return b
}

// head begins a file of version 3.
func (o layout) head(tensors, kvs uint64, parts ...any) []byte {
	return append(o.pack([]byte(Magic), uint32(3), tensors, kvs), o.pack(parts...)...)
}

// info describes a tensor. The dimensions are innermost first.
func (o layout) info(name string, typ uint32, offset uint64, dims ...uint64) []byte {
	return o.pack(name, uint32(len(dims)), dims, typ, offset)
}

// pack, head and info make little-endian files.
func pack(parts ...any) []byte                      { return layout{le}.pack(parts...) }
func head(tensors, kvs uint64, parts ...any) []byte { return layout{le}.head(tensors, kvs, parts...) }
func info(name string, typ uint32, offset uint64, dims ...uint64) []byte {
	return layout{le}.info(name, typ, offset, dims...)
}

// pad appends zeros up to a multiple of align, and then n more.
func pad(b []byte, align, n int) []byte {
	for len(b)%align != 0 {
		b = append(b, 0)
	}
	return append(b, make([]byte, n)...)
}

// Type ids, spelled out: the tests must not trust the tables.
const (
	tU8, tI8, tU16, tI16, tU32, tI32, tF32, tBool, tString, tArray, tU64, tI64, tF64 = uint32(0), uint32(1), uint32(2), uint32(3),
		uint32(4), uint32(5), uint32(6), uint32(7), uint32(8), uint32(9), uint32(10), uint32(11), uint32(12)
	gF32, gF16, gQ4_0, gQ8_0 = uint32(0), uint32(1), uint32(2), uint32(8)
)
