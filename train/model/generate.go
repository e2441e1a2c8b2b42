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
