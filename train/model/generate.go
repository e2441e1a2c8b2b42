package model

// Cache holds the keys and values of the tokens a sequence has so far, by
// block.
type Cache struct {
	layers []struct{ k, v []float32 }
	n      int
}

// NewCache returns an empty cache.
func (m *Model) NewCache() *Cache {
	return &Cache{layers: make([]struct{ k, v []float32 }, m.arch.NumHiddenLayers)}
}

// Len returns the number of tokens in the cache.
func (c *Cache) Len() int { return c.n }

// Advance says that n more tokens have passed through every block.
func (c *Cache) Advance(n int) { c.n += n }

// Positions returns the positions of the next n tokens.
func (c *Cache) Positions(n int) []int32 {
	pos := make([]int32, n)
	for i := range pos {
		pos[i] = int32(c.n + i)
	}
	return pos
}

// Extend replaces the hidden states x of the next tokens of a sequence, at the
// given positions, by the result of block number layer, which sees the tokens
// in the cache before them and leaves theirs there.
func (b *Block) Extend(x []float32, pos []int32, c *Cache, layer int) error {
	b.m.scr.reset()
	var in inner
	if err := b.attention(&in, x, pos, dropout{}); err != nil {
		return err
	}
	kv := &c.layers[layer]
	kv.k = append(kv.k[:c.n*b.k.out], in.k...)
	kv.v = append(kv.v[:c.n*b.v.out], in.v...)
	b.m.attend.Forward(in.o, in.q, kv.k, kv.v, len(pos), c.n+len(pos))
	if err := b.mlp(&in, x, len(pos), dropout{}); err != nil {
		return err
	}
	return b.finish(&in, x, len(pos), dropout{})
}
