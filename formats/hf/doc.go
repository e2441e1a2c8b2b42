// Package hf reads and writes model directories as Hugging Face transformers
// lays them out: config.json, the weights in model.safetensors or in shards with
// model.safetensors.index.json, and side files such as the tokenizer's. It reads
// the older pytorch_model.bin in one file or in shards as well, and writes
// safetensors only.
//
// It knows which files there are and that they agree with each other. It does
// not know what a tensor's name or a member of config.json means: that is
// arch's, formats/convert's and nf4/bnb's.
package hf
