// Package convert plans conversions between the checkpoint form of a model
// (Hugging Face names and layout) and GGUF: names, metadata, row permutations
// and the choice of types. It moves no bytes itself: what it returns are lazy
// views and plans for package pipeline.
//
// The checkpoint form is the one all other packages work in; a GGUF file is
// seen through FromGGUF. The reference is llama.cpp v0.5.0's converter
// (conversion/base.py, conversion/llama.py).
package convert
