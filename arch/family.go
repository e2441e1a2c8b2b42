package arch

import (
	"fmt"
	"slices"
	"strings"
)

// Family is one table of how its models are made.
type Family struct {
	// Name is what people call the family, GGUF its general.architecture. Llama,
	// Mistral and Mixtral are one architecture to GGUF.
	Name, GGUF string

	// ModelTypes are the values of config.json's model_type that mean it and
	// Classes the entries of architectures; the first of each is written.
	ModelTypes, Classes []string

	// Params are the hyperparameters, in the order in which llama.cpp's
	// converter writes those that GGUF holds.
	Params []Param

	// Complete fills in what follows from other hyperparameters. It may be nil.
	Complete func(c *Config)

	// Activations are the values of hidden_act that the family has; the first
	// is what a GGUF file means.
	Activations []string

	// ScaleEmbeddings multiplies the embeddings by the root of their width.
	ScaleEmbeddings bool

	// Trunk is the module that the transformer is in ("model."). Checkpoints of
	// the transformer alone leave it out.
	Trunk string

	// Tensors are in the order of computation.
	Tensors []Template

	// Unused are endings of the names of tensors that some checkpoints carry
	// and no model computes with.
	Unused []string

	// Rotary and GGUFRotary are the layouts of checkpoints and of GGUF files.
	Rotary, GGUFRotary Rotary

	// Generated gives the tensors that GGUF has and checkpoints have not: what
	// they hold follows from the configuration. It may be nil.
	Generated func(c *Config) []Generated

	// Recover explains the generated tensors of a GGUF file: it sets what they
	// follow from, and reports whether it can. It may be nil.
	Recover func(c *Config, list []Generated) bool

	// Tokenizers says how the tokenizer of a checkpoint becomes GGUF's.
	Tokenizers Tokenizers

	// Differs says what llama.cpp computes otherwise than transformers for a
	// model of that configuration, a sentence each. It may be nil.
	Differs func(c *Config) []string
}

// Generated is a tensor of float32 with one dimension, by its name in GGUF.
type Generated struct {
	Name   string
	Values []float32
}

// Families returns every family nibble knows. Where several are one
// architecture to GGUF, the first that fits a file is what it is read as.
func Families() []*Family {
	return []*Family{llama, mixtral, mistral, qwen2, qwen2moe, qwen3, qwen3moe, gemma, gemma2, gemma3, phi3, gpt2}
}

// ByName returns the family of that Name, nil if there is none.
func ByName(name string) *Family {
	for _, f := range Families() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

func lookup(modelType string, classes []string) (*Family, error) {
	var known []string
	for _, f := range Families() {
		if slices.Contains(f.ModelTypes, modelType) {
			return f, nil
		}
		if modelType == "" && slices.ContainsFunc(f.Classes, func(c string) bool { return slices.Contains(classes, c) }) {
			return f, nil
		}
		known = append(known, f.ModelTypes...)
	}
	return nil, fmt.Errorf("%w: model_type %q (known: %s)", ErrUnsupported, modelType, strings.Join(known, ", "))
}

// ByGGUF returns the family of a GGUF file with that general.architecture and
// number of experts.
func ByGGUF(name string, experts int64) (*Family, error) {
	var known []string
	for _, f := range Families() {
		if f.GGUF == name && (f.moe() == (experts > 0)) {
			return f, nil
		}
		if !slices.Contains(known, f.GGUF) {
			known = append(known, f.GGUF)
		}
	}
	return nil, fmt.Errorf("%w: general.architecture %q with %d experts (known: %s)", ErrUnsupported, name, experts, strings.Join(known, ", "))
}

// moe reports whether the family has experts.
func (f *Family) moe() bool {
	return slices.ContainsFunc(f.Tensors, func(t Template) bool { return t.Experts != nil })
}
