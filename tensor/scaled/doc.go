// Package scaled is weights of 8 bits in memory: floats (E4M3, E5M2) or integers,
// and beside them a scale for the whole tensor, for each row or for each block.
// Every maker of such checkpoints stores them so, under names of his own; package
// formats/quantized knows those of most, nf4/bnb that of LLM.int8.
//
// A weight is one tensor of DType FP8 or INT8, whose stored bytes describe
// themselves (Header):
//
//	offset  size        what
//	0       4           magic "nib8"
//	4       4           element, uint32: 0 F8_E4M3, 1 F8_E5M2, 2 I8
//	8       4           dtype before quantization, uint32: 0 F32, 1 F16, 2 BF16
//	12      4           factor, float32
//	16      8           number of elements, uint64
//	24      8           rows of a matrix, uint64
//	32      8           rows of a block, uint64
//	40      8           columns of a block, uint64
//	48      4 * scales  scales, float32
//	...     n           elements
//
// Everything is little-endian. The tensor is a stack of matrices, one unless it
// holds experts. Each is cut into blocks from its upper left corner on, so that
// the last of a row or column may be smaller, and has a scale for each block in
// row-major order. An element's value is (element * scale) * factor, each product
// rounded to float32. A tensor without elements has no scales.
//
// The package knows no names and no JSON.
package scaled
