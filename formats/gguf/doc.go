// Package gguf reads and writes GGUF files, the container of llama.cpp: a
// header of typed metadata and tensor descriptions, then the data, aligned and
// without a gap (docs/gguf.md of ggml-org/ggml).
//
// Reading yields a tensor.Source and knows versions 2 and 3, of either byte
// order. What llama.cpp's own reader refuses (ggml/src/gguf.cpp, v0.5.0) is
// refused here too, with the byte where it went wrong, so a file that opens here
// opens there, on a machine of its byte order. Writing is a tensor.Sink of
// version 3, little endian, that produces what ggml's own writer does for the
// same content.
//
// A model split into several files (PREFIX-00001-of-00003.gguf) is one Source,
// opened by its first part. SplitWriter writes such files, as gguf-py does.
//
// GGUF lists the dimensions of a tensor innermost first. That order exists in
// this package alone: the Shapes that go in and out are outermost first.
//
// The package knows the container and the ids of the tensor types. It does not
// know what the blocks of a type hold (package ggml does), what a model's keys
// mean or how its tensors are named.
package gguf
