// Package safetensors reads and writes single .safetensors files.
//
// The format is a little-endian 64-bit header length, a JSON header that gives
// dtype, shape and place of each tensor, and the tensors' bytes without holes
// (https://github.com/huggingface/safetensors, README and src/tensor.rs).
//
// The package knows what the format allows and nothing of what the tensors
// mean: model directories, shards and their index are formats/hf's, adapters
// formats/peft's.
package safetensors
