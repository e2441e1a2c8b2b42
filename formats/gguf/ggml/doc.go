// Package ggml holds the block encodings of ggml: how the quantized blocks of a
// GGUF tensor become rows of float32, for every type there is, and for some of
// them how rows become blocks. Both directions give the bits that ggml's
// reference functions give (ggml/src/ggml-quants.c, llama.cpp v0.5.0), on every
// machine: a product that is added to something is converted to float32 first,
// which keeps the compiler from fusing the two. The exception is what ggml does not
// notice: a value that is no number spoils its block.
//
// A type is one file, or shares one with its next of kin, and one row of the
// table in types.go. The plain numbers are in tensor/floats.
//
// The package knows nothing of files, of models, or of which tensor should get
// which type.
package ggml
