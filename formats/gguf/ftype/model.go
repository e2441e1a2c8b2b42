package ftype

import (
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// Model has what the choice depends on of a model.
type Model struct {
	Arch    string // general.architecture
	Blocks  int    // block_count
	NextN   int    // how many of the blocks predict tokens after the next
	Experts int    // expert_count
	Heads   int    // head_count, of the first block
	KVHeads int    // head_count_kv, of the first block
}

// maxBlocks and maxExperts are more than any model has (llama.cpp's own limits
// are 512 and 512).
const maxBlocks, maxExperts = 1 << 16, 1 << 16

// ModelOf reads a Model from the metadata of a GGUF file.
func ModelOf(meta tensor.Meta) (Model, error) {
	arch, ok := tensor.Lookup[string](meta, "general.architecture")
	if !ok {
		return Model{}, fmt.Errorf("%w: no general.architecture", tensor.ErrMalformed)
	}
	m := Model{Arch: arch}
	for _, k := range []struct {
		key   string
		to    *int
		least int
		most  int
	}{
		{"block_count", &m.Blocks, 1, maxBlocks},
		{"nextn_predict_layers", &m.NextN, 0, maxBlocks},
		{"expert_count", &m.Experts, 0, maxExperts},
		{"attention.head_count", &m.Heads, 0, 1 << 20},
		{"attention.head_count_kv", &m.KVHeads, 0, 1 << 20},
	} {
		key := arch + "." + k.key
		v, ok := meta.Get(key)
		if !ok {
			switch k.to {
			case &m.Blocks:
				return Model{}, fmt.Errorf("%w: no %s", tensor.ErrMalformed, key)
			case &m.KVHeads:
				m.KVHeads = m.Heads
			}
			continue
		}
		n, ok := number(v)
		if !ok || n < int64(k.least) || n > int64(k.most) {
			return Model{}, fmt.Errorf("%w: %s is %.40v, not a number from %d to %d", tensor.ErrMalformed, key, v, k.least, k.most)
		}
		*k.to = int(n)
	}
	if m.NextN > m.Blocks {
		return Model{}, fmt.Errorf("%w: %d of %d blocks predict tokens after the next", tensor.ErrMalformed, m.NextN, m.Blocks)
	}
	return m, nil
}

// number returns a value that is a whole number, or the first of a list of them:
// some models give one for each block.
func number(v any) (int64, bool) {
	switch v := v.(type) {
	case uint32:
		return int64(v), true
	case int32:
		return int64(v), true
	case []uint32:
		if len(v) > 0 {
			return int64(v[0]), true
		}
	case []int32:
		if len(v) > 0 {
			return int64(v[0]), true
		}
	}
	return 0, false
}

// group returns how many heads share keys and values.
func (m *Model) group() int {
	if m.KVHeads == 0 {
		return 0
	}
	return m.Heads / m.KVHeads
}

// largeLayers are the numbers of layers by which llama.cpp tells the models that
// it calls 70B.
var largeLayers = map[string]int{"llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}

// large reports whether llama.cpp calls the model 70B, in which attn_v is small
// beside the rest.
func (m *Model) large() bool {
	if n, ok := largeLayers[m.Arch]; !ok || m.Blocks-m.NextN != n {
		return false
	}
	return !strings.HasPrefix(m.Arch, "llama") || m.Heads != m.KVHeads
}
