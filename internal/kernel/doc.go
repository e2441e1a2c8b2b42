// Package kernel holds the inner loops: matrix products, the pieces of a
// transformer block with their gradients, and conversions between number
// formats. Everything here works on slices that the caller owns.
//
// Results do not depend on how many goroutines share the work: it is divided by
// output tiles whose bounds follow from the shapes alone, and each tile is
// computed in one order.
//
// # Variants
//
// A loop exists in plain Go, always compiled and what the others are tested against,
// and where it is worth it in assembly for AVX2 (with FMA and F16C) and for AVX-512 (F,
// BW, DQ, VL). Which one runs is a table of functions, chosen once by what the processor
// has; the environment variable NIBBLE_KERNEL names another (go, avx2, avx512), and the
// build tag purego leaves the assembly out. Package simd holds the assembly and _asm
// writes it.
//
// Conversions between number formats and the block formats, 4-bit and 8-bit, give the
// same bits in every variant, and so does a step of AdamW. Products of matrices and
// whatever else sums, and exponentials, differ in their last places: the variants add in
// other orders and some multiply and add in one rounding. Each such function says how far
// it may be off, and its tests hold every variant to that.
//
// The package knows neither tensors nor models nor files, and imports nothing
// of nibble's.
package kernel
