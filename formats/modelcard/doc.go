// Package modelcard reads what a model directory says about the model apart from
// its weights: the YAML front matter of README.md, generation_config.json, and
// what the model is called. It makes of it the general.* metadata of a GGUF
// file, key for key what llama.cpp's converter writes (gguf-py/gguf/metadata.py
// and conversion/base.py of v0.5.0), and rebuilds the files from a GGUF file's
// metadata.
//
// The reference is Python, and its heuristics lean on Python: on str.title, on
// re.fullmatch, on YAML 1.1 as PyYAML reads it. So does this package, except
// where the reference ends with a traceback: what is wrong with a model card
// is left out and noted, for a model must not fail to convert because of its
// README.
package modelcard
