// Package nf4 is the block format of bitsandbytes' 4-bit weights in memory: the
// NF4 and FP4 codebooks, the absmax of each block, and double quantization,
// which stores the absmax themselves in 8 bits. QLoRA (arXiv 2305.14314)
// describes it; bitsandbytes 0.50.2 decides every bit.
//
// Encoding follows bitsandbytes' default backend (backends/default/ops.py), the
// one that runs on every device without a kernel of its own; the choices it
// leaves to the platform are named where they are made. Decoding gives the bits
// that every backend of that version gives: codebook times absmax in float32.
//
// A quantized weight is one tensor of DType NF4 or FP4, whose stored bytes are
// a self-describing blob (Header):
//
//	offset  size        what
//	0       4           magic "nib4"
//	4       4           block size, uint32
//	8       4           flags, uint32: bit 0 double quantization
//	12      4           dtype before quantization, uint32: 0 F32, 1 F16, 2 BF16
//	16      8           number of elements, uint64
//	24      4           offset of the absmax, float32; 0 without double quantization
//	28      4           zero
//	32      1024        8-bit map, 256 float32       (double quantization only)
//	...     4 * nested  nested absmax, float32       (double quantization only)
//	...     blocks * 4  absmax, float32; or
//	...     blocks      absmax, 8-bit codes          (double quantization)
//	...     ceil(n/2)   4-bit codes, the earlier element in the high nibble
//
// Everything is little-endian. Blocks run over the elements in row-major order
// and may straddle rows; the last one may be partial. The codebook is not
// stored: the DType says it, as in bitsandbytes, where every backend has it
// compiled in.
//
// The package knows no file names, no JSON and no model families; nf4/bnb does.
package nf4
