package nf4

import (
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
)

// nestedBlock is the block size of the 8-bit absmax. bitsandbytes 0.50 knows no
// other.
const nestedBlock = 256

// dynamicMap is bitsandbytes' signed dynamic 8-bit map (arXiv 1511.04561), which
// double-quantized checkpoints have their absmax in.
var dynamicMap = kernel.DynamicMap(true)

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
