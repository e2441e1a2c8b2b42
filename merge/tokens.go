package merge

import (
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// matchTokens adds what trainable_token_indices does: rows of embeddings are the
// adapter's. Where head and embedding were one tensor, so were their rows.
func (m *matcher) matchTokens() error {
	used := make([]bool, len(m.cfg.Tokens))
	embedding, head := "", false
	for _, name := range m.parts.tokens {
		module := strings.TrimSuffix(name, suffixTokens)
		at := -1
		for i, t := range m.cfg.Tokens {
			if strings.HasSuffix(module, t.Module) && (at < 0 || len(t.Module) > len(m.cfg.Tokens[at].Module)) {
				at = i
			}
		}
		if at < 0 {
			return hint.Add(fmt.Errorf("adapter tensor %q: %w: trainable_token_indices does not say of which tokens these rows are", name, tensor.ErrMalformed),
				"adapter_config.json does not belong to these tensors")
		}
		used[at] = true
		shared := m.isHead(module + ".weight")
		target, err := m.target(module+".weight", name)
		if err != nil {
			return err
		}
		if shared {
			target = m.cfg.Embedding
		}
		head = head || target == m.cfg.Head
		if target == m.cfg.Embedding && !shared {
			embedding = name
		}
		if err := m.addTokens(name, target, m.cfg.Tokens[at].Rows); err != nil {
			return err
		}
	}
	if m.effect.Untied && embedding != "" && !head {
		module := strings.TrimSuffix(embedding, suffixTokens)
		for _, t := range m.cfg.Tokens {
			if strings.HasSuffix(module, t.Module) {
				if err := m.addTokens(embedding, m.cfg.Head, t.Rows); err != nil {
					return err
				}
				break
			}
		}
	}
	for i, t := range m.cfg.Tokens {
		// PEFT stores the rows of a head that is the embedding once.
		if !used[i] && (embedding == "" || !(m.tied() || m.effect.Untied)) {
			return hint.Add(fmt.Errorf("%w: trainable_token_indices names %q, of which the adapter has no rows", tensor.ErrMalformed, t.Module),
				"the weights are incomplete, or adapter_config.json does not belong to them")
		}
	}
	return nil
}

func (m *matcher) addTokens(name, target string, tokens []int64) error {
	info, err := m.base.Info(target)
	if err != nil {
		return err
	}
	own, values, err := m.codecs.ReadAll(m.adapter, name)
	if err != nil {
		return err
	}
	if len(own.Shape) != 2 || len(info.Shape) != 2 || own.Shape[0] != int64(len(tokens)) || own.Shape[1] != info.Shape[1] {
		return hint.Add(fmt.Errorf("adapter tensor %q: %w: its shape is %v, want the rows of %d tokens of the base's %s of %v", name, tensor.ErrMalformed, own.Shape, len(tokens), target, info.Shape),
			"was the adapter trained on another model?")
	}
	t := &tokenRows{target: target, cols: int(info.Shape[1]), at: make(map[int64]int), values: values}
	for i, row := range tokens {
		if row < 0 || row >= info.Shape[0] {
			return fmt.Errorf("adapter tensor %q: %w: trainable_token_indices has token %d, the base's %s has %d", name, tensor.ErrMalformed, row, target, info.Shape[0])
		}
		if _, dup := t.at[row]; dup {
			return fmt.Errorf("adapter tensor %q: %w: trainable_token_indices has token %d twice", name, tensor.ErrMalformed, row)
		}
		t.at[row] = i
	}
	m.add(target, t)
	if m.cfg.Arithmetic != Once {
		m.add(target, &roundTo{target, m.cfg.held(info)})
	}
	return nil
}
