package gguf

import (
	"encoding/binary"
	"fmt"
)

// pack lays out parts as they stand in a file: a string with its length before
// it, bytes as they are, numbers and arrays of numbers little endian.
func pack(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = appendString(b, p)
		case []byte:
			b = append(b, p...)
		default:
			var err error
			if b, err = binary.Append(b, le, p); err != nil {
				panic(fmt.Sprintf("%T: %v", p, err))
			}
		}
	}
	return b
}

// head begins a file of version 3.
func head(tensors, kvs uint64, parts ...any) []byte {
	return append(pack([]byte(Magic), uint32(3), tensors, kvs), pack(parts...)...)
}

// info describes a tensor. The dimensions are innermost first.
func info(name string, typ uint32, offset uint64, dims ...uint64) []byte {
	return pack(name, uint32(len(dims)), dims, typ, offset)
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
