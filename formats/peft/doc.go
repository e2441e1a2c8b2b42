// Package peft reads and writes LoRA adapters as PEFT lays them out: a directory
// with adapter_config.json and adapter_model.safetensors
// (https://github.com/huggingface/peft; the facts are those of 0.21.2).
//
// It knows the keys of the configuration, which of them change what a merge must
// compute, and how tensors are named. It does not know a base model and does no
// arithmetic: that is merge's.
package peft
