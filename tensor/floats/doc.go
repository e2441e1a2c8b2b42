// Package floats holds the codecs of the plain floating-point dtypes: F64, F32,
// F16 and BF16 in both directions, and the 8-bit floats (F8_E4M3, F8_E5M2 and the
// exponents F8_E8M0) to be read.
//
// It knows how numbers are stored and nothing of files or blocks.
package floats
