package gguf

import (
	"io"
	"slices"

	"github.com/seed18967229/nibble/tensor"
)

// numbers are n numbers of size bytes each in a block, the first at byte at, one
// every step bytes.
type numbers struct{ at, size, n, step int }

// wide says which numbers of a block have more than one byte, so that their
// bytes stand the other way round in a big-endian file. The rest are single
// bytes. Every type of dtypes has a row.
//
// The fields are those of ggml-common.h. Where it declares bytes that ggml's
// dequantize functions then read as a number of the machine's own order, they
// are such a number: in Q5_0, Q5_1, IQ2_XXS, IQ3_XXS and IQ1_M. gguf-py swaps
// F32, F16, BF16, Q1_0, Q4_0, Q8_0, Q4_K, Q6_K and TQ2_0, in the same way, knows
// that MXFP4 and NVFP4 need nothing, and refuses the others
// (gguf_convert_endian.py).
var wide = map[tensor.DType][]numbers{
	tensor.F64:  {{0, 8, 1, 8}},
	tensor.F32:  {{0, 4, 1, 4}},
	tensor.F16:  {{0, 2, 1, 2}},
	tensor.BF16: {{0, 2, 1, 2}},
	tensor.I8:   nil,
	tensor.I16:  {{0, 2, 1, 2}},
	tensor.I32:  {{0, 4, 1, 4}},
	tensor.I64:  {{0, 8, 1, 8}},

	tensor.Q1_0:    {{0, 2, 1, 2}},               // d
	tensor.Q2_0:    {{0, 2, 1, 2}},               // d
	tensor.Q4_0:    {{0, 2, 1, 2}},               // d
	tensor.Q4_1:    {{0, 2, 2, 2}},               // d, m
	tensor.Q5_0:    {{0, 2, 1, 2}, {2, 4, 1, 4}}, // d, qh
	tensor.Q5_1:    {{0, 2, 2, 2}, {4, 4, 1, 4}}, // d, m, qh
	tensor.Q8_0:    {{0, 2, 1, 2}},               // d
	tensor.Q8_1:    {{0, 2, 2, 2}},               // d, s
	tensor.Q2_K:    {{80, 2, 2, 2}},              // d, dmin
	tensor.Q3_K:    {{108, 2, 1, 2}},             // d
	tensor.Q4_K:    {{0, 2, 2, 2}},               // d, dmin
	tensor.Q5_K:    {{0, 2, 2, 2}},               // d, dmin
	tensor.Q6_K:    {{208, 2, 1, 2}},             // d
	tensor.Q8_K:    {{0, 4, 1, 4}, {260, 2, 16, 2}},
	tensor.IQ1_S:   {{0, 2, 1, 2}, {34, 2, 8, 2}}, // d, qh
	tensor.IQ1_M:   {{48, 2, 4, 2}},               // scales
	tensor.IQ2_XXS: {{0, 2, 1, 2}, {6, 4, 8, 8}},  // d, signs and scale after four bytes each
	tensor.IQ2_XS:  {{0, 2, 33, 2}},               // d, qs
	tensor.IQ2_S:   {{0, 2, 1, 2}},                // d
	tensor.IQ3_XXS: {{0, 2, 1, 2}, {66, 4, 8, 4}}, // d, signs and scales
	tensor.IQ3_S:   {{0, 2, 1, 2}},                // d
	tensor.IQ4_NL:  {{0, 2, 1, 2}},                // d
	tensor.IQ4_XS:  {{0, 2, 2, 2}},                // d, scales_h
	tensor.TQ1_0:   {{52, 2, 1, 2}},               // d
	tensor.TQ2_0:   {{64, 2, 1, 2}},               // d
	tensor.MXFP4:   nil,
	tensor.NVFP4:   nil,
}

// swapped returns the little-endian bytes of a tensor whose big-endian bytes are
// data. Whole blocks are put in order where they have been read to.
func swapped(info tensor.Info, data *io.SectionReader) io.ReaderAt {
	fields := wide[info.DType]
	if len(fields) == 0 {
		return data
	}
	_, size := info.DType.Block()
	return tensor.ReadRowsAt(size, info.Size()/size, func(dst []byte, block int64) error {
		if n, err := data.ReadAt(dst, block*size); n < len(dst) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // the file has become shorter
			}
			return err
		}
		for b := dst; len(b) > 0; b = b[size:] {
			for _, f := range fields {
				for i := range f.n {
					at := f.at + i*f.step
					slices.Reverse(b[at : at+f.size])
				}
			}
		}
		return nil
	})
}
