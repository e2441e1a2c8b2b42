// Package ftype decides what each tensor of a quantized GGUF file is stored as:
// a file type such as Q4_K_M names a mix, in which the tensors that suffer most
// get more bits. The choice is that of llama-quantize (src/llama-quant.cpp of
// llama.cpp v0.5.0), tensor by tensor, and so is the order of the file.
//
// It is made from names, shapes and a few numbers of the model; nothing is read.
package ftype
