// Package ollama writes Modelfiles, from which Ollama makes a model of a GGUF file: with
// the model's chat template in the language that Ollama has for them, which is Go's.
//
// It knows nothing of Jinja: a template is told by what it makes of a few conversations.
package ollama
