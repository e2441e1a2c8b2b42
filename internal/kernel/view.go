package kernel

import (
	"slices"
	"unsafe"
)

// Floats returns the float32 values that lie in b as the machine has them, not as
// EncodeF32 stores them. b begins at a multiple of 4 bytes in memory.
func Floats(b []byte) []float32 {
	if len(b) < 4 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4)
}

// Bytes returns the memory of x.
func Bytes(x []float32) []byte { return memory(x) }

// NativeF32 turns float32 values from how they lie in files to how they lie in memory,
// or back; on most machines that is the same.
func NativeF32(b []byte) {
	if littleEndian {
		return
	}
	for ; len(b) >= 4; b = b[4:] {
		slices.Reverse(b[:4])
	}
}
