package ggml

import (
	"encoding/binary"

	"github.com/seed18967229/nibble/internal/kernel"
)

// weighted32 is the importance path of Q4_0, Q4_1, Q5_0 and Q5_1: blocks of 32 whose
// weights depend on the mean square of the row.
type weighted32 struct {
	bytes, levels int
	low           bool // it has a minimum
	fifth         bool // its numbers have five bits
}

const block32 = 32

// encode stores rows of len(importance) values.
func (k weighted32) encode(dst []byte, src, importance []float32) {
	var f kernel.Fit
	weights := make([]float32, kernel.FitGroups*block32)
	search := kernel.Range{Levels: k.levels, First: -0.9, Step: 0.05, Steps: 36}
	for ; len(src) > 0; src = src[len(importance):] {
		row, cols := src[:len(importance)], columns{importance: importance}
		spread := sumOfSquares(row) / float32(len(row))
		for len(row) > 0 {
			x := row[:min(len(row), len(weights))]
			w := weights[:len(x)]
			kernel.Weigh(w, x, cols.take(len(x)), spread)
			if k.low {
				kernel.FitRange(&f, x, w, block32, &search)
			} else {
				kernel.FitSigned(&f, x, w, block32, k.levels)
			}
			for group := range len(x) / block32 {
				k.put(dst[:k.bytes], x[group*block32:(group+1)*block32], &f, group)
				dst = dst[k.bytes:]
			}
			row = row[len(x):]
		}
	}
}

// put stores a block as the search found it.
func (k weighted32) put(b []byte, x []float32, f *kernel.Fit, group int) {
	if !finite(x) {
		spoil(b, 0)
		return
	}
	var codes [block32]byte
	putHalf(b, f.Scale[group])
	if k.low {
		kernel.RangeCodes(codes[:], x, f.Inverse[group], f.Origin[group], k.levels)
		putHalf(b[2:], -f.Low[group])
		b = b[4:]
	} else {
		kernel.SignedCodes(codes[:], x, f.Inverse[group], k.levels)
		b = b[2:]
	}
	if k.fifth {
		var bits uint32
		for j, c := range codes {
			bits |= uint32(c>>4) << j
		}
		binary.LittleEndian.PutUint32(b, bits)
		b = b[4:]
	}
	for j := range block32 / 2 {
		b[j] = codes[j]&15 | codes[j+block32/2]<<4
	}
}
