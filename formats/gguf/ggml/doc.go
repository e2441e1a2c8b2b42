// Package ggml holds the block encodings of ggml: how rows of float32 become
// the quantized blocks of a GGUF tensor, and back. Both directions give the
// bits that ggml's reference functions give (ggml/src/ggml-quants.c, llama.cpp
// v0.5.0), on every machine.
//
// A type is one file and one row of the table in types.go. The plain floats are
// in tensor/floats.
//
// The package knows nothing of files, of models, or of which tensor should get
// which type.
package ggml
