// Package tensor is the waist of nibble: what a tensor is, where tensors come
// from (Source), where they go (Sink) and how stored bytes become float32 rows
// (Codec). Every format reader yields a Source, every format writer is a Sink,
// and everything between them (casting, permuting, dequantizing, merging) is a
// function from Source to Source.
//
// The rules that keep memory bounded:
//
//   - A Source never holds tensor bytes. Raw hands out a reader with its own
//     cursor, and a derived Source computes bytes when they are asked for.
//   - Sizes follow from DType and Shape alone, so a Sink can write its header
//     before the first byte of data exists.
//   - Encodings meet arithmetic only at panels of float32 rows (Rows), so N
//     encodings and M methods cost N+M files.
//
// The package knows no file format, no model family and no quantization
// arithmetic. It imports the standard library alone.
package tensor
