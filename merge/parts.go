package merge

import (
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// The endings of an adapter's tensors.
const (
	suffixA          = ".lora_A.weight"
	suffixB          = ".lora_B.weight"
	suffixEmbeddingA = ".lora_embedding_A"
	suffixEmbeddingB = ".lora_embedding_B"
	suffixBias       = ".lora_B.bias"
	suffixMagnitude  = ".lora_magnitude_vector"
	suffixTokens     = ".token_adapter.trainable_tokens_delta"

	// baseLayer is in the name of what an adapter wraps.
	baseLayer = ".base_layer"
)

// ModuleOf returns the module that a tensor of a low-rank adapter is for, and
// whether the name is that of one.
func ModuleOf(name string) (string, bool) {
	for _, suffix := range []string{suffixA, suffixB, suffixEmbeddingA, suffixEmbeddingB, suffixBias, suffixMagnitude} {
		if module, ok := strings.CutSuffix(name, suffix); ok {
			return module, true
		}
	}
	return "", false
}

// pair is what an adapter holds for one module: the names of its tensors, of
// which there may be none.
type pair struct {
	// module is the module's name in the adapter without base_layer, depth how
	// often that was in it.
	module string
	depth  int

	a, b      string
	embedding bool
	bias      string
	magnitude string
}

// parts are the tensors of an adapter by what they are for.
type parts struct {
	pairs  []*pair
	tokens []string // names of tensors of rows
	whole  []string // names of tensors that are in place of the base's
}

// sortParts says of every tensor of an adapter what it is for.
func sortParts(adapter tensor.Source) (*parts, error) {
	p := &parts{}
	by := make(map[string]*pair)
	for info := range adapter.All() {
		name := info.Name
		set := func(suffix string, field func(*pair) *string) bool {
			wrapped, ok := strings.CutSuffix(name, suffix)
			if !ok {
				return false
			}
			if by[wrapped] == nil {
				by[wrapped] = &pair{module: strings.ReplaceAll(wrapped, baseLayer, ""), depth: strings.Count(wrapped, baseLayer)}
				p.pairs = append(p.pairs, by[wrapped])
			}
			one := by[wrapped]
			one.embedding = one.embedding || strings.Contains(suffix, "embedding")
			*field(one) = name
			return true
		}
		a, b := func(p *pair) *string { return &p.a }, func(p *pair) *string { return &p.b }
		magnitude := func(p *pair) *string { return &p.magnitude }
		switch {
		case set(suffixA, a), set(suffixB, b), set(suffixEmbeddingA, a), set(suffixEmbeddingB, b),
			set(suffixBias, func(p *pair) *string { return &p.bias }),
			set(suffixMagnitude, magnitude), set(suffixMagnitude+".weight", magnitude):
		case strings.HasSuffix(name, suffixTokens):
			p.tokens = append(p.tokens, name)
		case strings.Contains(name, ".lora_"):
			return nil, fmt.Errorf("adapter tensor %q: %w: no part of a LoRA adapter that can be merged", name, tensor.ErrUnsupported)
		default:
			p.whole = append(p.whole, name)
		}
	}
	if len(p.pairs)+len(p.tokens)+len(p.whole) == 0 {
		return nil, hint.Add(fmt.Errorf("%w: the adapter has no tensors", tensor.ErrMalformed), "save the adapter again from the training")
	}
	for _, one := range p.pairs {
		if err := one.check(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// check returns an error unless both matrices are there.
func (p *pair) check() error {
	wrapped := p.module + strings.Repeat(baseLayer, p.depth)
	a, b := suffixA, suffixB
	if p.embedding {
		a, b = suffixEmbeddingA, suffixEmbeddingB
	}
	have := p.a + p.b
	for _, name := range []string{p.bias, p.magnitude} {
		if have == "" {
			have = name
		}
	}
	switch {
	case p.a == "":
		return fmt.Errorf("adapter tensor %q: %w: there is no %s beside it", have, tensor.ErrMalformed, wrapped+a)
	case p.b == "":
		return fmt.Errorf("adapter tensor %q: %w: there is no %s beside it", have, tensor.ErrMalformed, wrapped+b)
	case strings.HasSuffix(p.a, suffixA) != strings.HasSuffix(p.b, suffixB):
		return fmt.Errorf("adapter tensors %q and %q: %w: one of a layer, one of an embedding", p.a, p.b, tensor.ErrMalformed)
	}
	return nil
}
