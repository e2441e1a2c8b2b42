package speed

import (
	"encoding/binary"
	"math/rand/v2"
	"unsafe"
)

// A Buffer is memory to measure with, as bytes and as float32 values.
type Buffer struct {
	Bytes  []byte
	Floats []float32
}

// NewBuffer returns one of size bytes, rounded down to a multiple of 4. With a seed
// that is not 0 it is random: numbers of about 0.01 whether it is read as float32 or
// bfloat16, and of 1 to 2 as half precision. None of them is subnormal, infinite or
// NaN, which processors and loops can be slower with.
func NewBuffer(size int64, seed uint64) Buffer {
	f := make([]float32, size/4)
	b := Buffer{unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f)), f}
	if seed != 0 {
		// Four bfloat16 numbers at a time: any sign, the exponents of 2^-7 to 2^-4, any
		// mantissa.
		fill(b.Bytes, rand.NewPCG(seed, 1), 0x81ff81ff81ff81ff, 0x3c003c003c003c00)
	}
	return b
}

// fill fills b with random 64-bit words of which some bits are cleared and some set.
func fill(b []byte, rng *rand.PCG, keep, set uint64) {
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, rng.Uint64()&keep|set)
	}
	var last [8]byte
	binary.LittleEndian.PutUint64(last[:], rng.Uint64()&keep|set)
	copy(b, last[:])
}
