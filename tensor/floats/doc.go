// Package floats holds the codecs of the plain dtypes, one number after another:
// F64, F32, F16 and BF16 in both directions, and the 8-bit floats, the integers
// and BOOL to be read.
//
// It knows how numbers are stored and nothing of files or blocks.
package floats
