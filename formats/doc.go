// Package formats opens whatever holds tensors: a Hugging Face directory, a
// safetensors file, a PyTorch checkpoint, a GGUF file, a PEFT adapter. What
// something is gets read off its content, never guessed from its name.
//
// It knows how to tell the formats apart and nothing of what is in them.
package formats
