package nf4

import (
	"math"
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
)

// nestedBlock is the block size of the 8-bit absmax. bitsandbytes 0.50 knows no
// other.
const nestedBlock = 256

// dynamicPositive are the bits of the 127 values of bitsandbytes' signed
// dynamic 8-bit map (create_dynamic_map) between 0 and 1; arXiv 1511.04561
// describes the type. The last bits depend on how torch vectorizes linspace:
// these are what torch 2.15 gives under AVX2 and AVX-512 alike, and what the
// double-quantized checkpoints that were looked at hold. (torch 1.13 under AVX2
// gives 42 values that differ by 1 or 2 units in the last place.) Readers use the
// map that is stored.
var dynamicPositive = [127]uint32{
	0x3513a3b7, 0x365a1a94, 0x370205ff, 0x37b24206, 0x38378034, 0x388aefb3, 0x38ba1f4b, 0x3923d70b,
	0x398ce705, 0x39c7e283, 0x3a016f01, 0x3a1eecc1, 0x3a3c6a80, 0x3a59e83e, 0x3a7765ff, 0x3aa7ef9d,
	0x3af1a9fc, 0x3b1db22d, 0x3b428f5c, 0x3b676c8a, 0x3b8624dd, 0x3b989374, 0x3bab020d, 0x3bbd70a4,
	0x3bcfdf3b, 0x3be24dd3, 0x3bf4bc6a, 0x3c039581, 0x3c0ccccd, 0x3c160418, 0x3c1f3b64, 0x3c3ae148,
	0x3c68f5c3, 0x3c8b851f, 0x3ca28f5d, 0x3cb9999a, 0x3cd0a3d7, 0x3ce7ae15, 0x3cfeb852, 0x3d0ae148,
	0x3d166667, 0x3d21eb85, 0x3d2d70a3, 0x3d38f5c3, 0x3d447ae1, 0x3d500000, 0x3d5b851f, 0x3d670a3d,
	0x3d728f5d, 0x3d7e147b, 0x3d84cccd, 0x3d8a8f5d, 0x3d9051eb, 0x3d96147b, 0x3d9bd70a, 0x3da1999a,
	0x3da75c2a, 0x3dad1eb8, 0x3db2e148, 0x3db8a3d7, 0x3dbe6667, 0x3dc428f7, 0x3dc9eb85, 0x3ddb3334,
	0x3df80000, 0x3e0a6666, 0x3e18cccd, 0x3e273333, 0x3e35999a, 0x3e440000, 0x3e526666, 0x3e60cccd,
	0x3e6f3333, 0x3e7d9999, 0x3e860000, 0x3e8d3334, 0x3e946666, 0x3e9b999a, 0x3ea2cccc, 0x3eaa0000,
	0x3eb13333, 0x3eb86666, 0x3ebf999a, 0x3ec6cccc, 0x3ece0000, 0x3ed53333, 0x3edc6666, 0x3ee3999a,
	0x3eeacccc, 0x3ef20000, 0x3ef93332, 0x3f003333, 0x3f03cccc, 0x3f076666, 0x3f0b0000, 0x3f0e999a,
	0x3f123334, 0x3f15cccd, 0x3f196666, 0x3f1d0000, 0x3f20999a, 0x3f243334, 0x3f27cccd, 0x3f2b6666,
	0x3f2f0000, 0x3f32999a, 0x3f363334, 0x3f39cccd, 0x3f3d6666, 0x3f410000, 0x3f44999a, 0x3f483333,
	0x3f4bcccd, 0x3f4f6666, 0x3f530000, 0x3f56999a, 0x3f5a3333, 0x3f5dcccd, 0x3f616666, 0x3f650000,
	0x3f68999a, 0x3f6c3333, 0x3f6fcccd, 0x3f736666, 0x3f770000, 0x3f7a999a, 0x3f7e3333,
}

// dynamicMap is the whole map in ascending order: the negatives, 0, the
// positives, 1. There is no -1.
var dynamicMap = func() (m [256]float32) {
	for i, bits := range dynamicPositive {
		v := math.Float32frombits(bits)
		m[128+i], m[126-i] = v, -v
	}
	m[255] = 1
	return m
}()

var dynamic8 = sync.OnceValue(func() *kernel.Map8 { return kernel.NewMap8(dynamicMap) })

// DynamicMap returns the values of the 8-bit codes that Double writes.
func DynamicMap() [256]float32 { return dynamicMap }

// DoubleQuant is the absmax of a tensor's blocks after double quantization.
type DoubleQuant struct {
	Absmax       []uint8   // codes of absmax - Offset, in blocks of 256
	NestedAbsmax []float32 // of each of these blocks
	Offset       float32
}

// Mean returns the mean absmax, the offset of double quantization, or 0 if
// there is none. It is summed in float64; torch sums in float32 in an order
// that depends on the machine, and so differs by 1 or 2 units in the last place
// about half of the time.
func Mean(absmax []float32) float32 {
	if len(absmax) == 0 {
		return 0
	}
	var sum float64
	for _, a := range absmax {
		sum += float64(a)
	}
	return float32(sum / float64(len(absmax)))
}

// Double quantizes absmax around offset as the default backend does
// (quantize_blockwise): the nearest value of the map, at the same distance the
// lower. CUDA's search differs from it only at the same distance. The CPU
// library of bitsandbytes 0.50 looks the code up in a coarser table instead,
// which near zero is not always the nearest.
func Double(absmax []float32, offset float32) *DoubleQuant {
	return doubleWith(absmax, offset, dynamic8())
}

func doubleWith(absmax []float32, offset float32, m *kernel.Map8) *DoubleQuant {
	d := &DoubleQuant{
		Absmax:       make([]uint8, len(absmax)),
		NestedAbsmax: make([]float32, 0, ceilDiv(len(absmax), nestedBlock)),
		Offset:       offset,
	}
	var block [nestedBlock]float32
	for at := 0; at < len(absmax); at += nestedBlock {
		x := block[:copy(block[:], absmax[at:])]
		for i := range x {
			x[i] -= offset
		}
		top := kernel.Absmax(x)
		mul := float32(1)
		if div := max(top, tiny); len(x) == nestedBlock {
			mul = 1 / div
		} else {
			// As in the default backend, the partial last block is divided, and only
			// there is an absmax below 1e-38 raised to it.
			top = div
			for i := range x {
				x[i] /= div
			}
		}
		kernel.Encode8(d.Absmax[at:], x, m, mul)
		d.NestedAbsmax = append(d.NestedAbsmax, top)
	}
	return d
}

// Scale returns the absmax of block i as it is decoded.
func (d *DoubleQuant) Scale(i int) float32 {
	return undouble(dynamicMap[d.Absmax[i]], d.NestedAbsmax[i/nestedBlock], d.Offset)
}

// undouble decodes an absmax, with a rounding after each operation.
func undouble(v, nested, offset float32) float32 { return float32(v*nested) + offset }
