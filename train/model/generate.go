package model

import "github.com/seed18967229/nibble/arch"

// slack is how many tokens more than its window sees a layer with a window keeps, so
// that the last ones of a sequence can be taken back, and how many more may come before
// the oldest are dropped. It is the most that one Extend takes.
const slack = 512

// firstCached is how many tokens a cache has room for at first.
const firstCached = 256

// Cache holds the keys and values of the tokens a sequence has so far, by block. Layers
// with a sliding window keep what the window can see and a little more. Room is made as
// it is needed.
type Cache struct {
	m      *Model
	layers []cached
	n      int
	reach  int
}

// cached is what one layer keeps: the tokens from first on.
type cached struct {
	k, v   []float32
	first  int
	window int // 0 for none
}

// NewCache returns an empty cache.
func (m *Model) NewCache() *Cache {
	c := &Cache{m: m, layers: make([]cached, m.arch.NumHiddenLayers)}
	for l := range c.layers {
		c.layers[l].window = window(m.arch, l)
	}
	return c
}

// window returns how many tokens a layer's attention sees, 0 for all.
func window(a *arch.Model, layer int) int {
	if a.Slides(layer) {
		return int(a.SlidingWindow)
	}
	return 0
}

// kept returns the most tokens that a layer keeps of a sequence of n.
func kept(window, n int) int {
	if window == 0 {
		return n
	}
	return min(n, window-1+2*slack)
}

// CacheBytes returns the memory of a cache for a sequence of so many tokens.
func CacheBytes(a *arch.Model, positions int) int64 {
	var tokens int64
	for l := range int(a.NumHiddenLayers) {
		tokens += int64(kept(window(a, l), positions))
	}
	return 2 * 4 * tokens * a.NumKeyValueHeads * a.HeadDim
}

// Len returns the number of tokens in the cache.
func (c *Cache) Len() int { return c.n }

// Bytes returns the memory that the cache has taken.
func (c *Cache) Bytes() int64 {
	var n int64
	for i := range c.layers {
		n += 4 * int64(cap(c.layers[i].k)+cap(c.layers[i].v))
	}
	return n
}

// Advance says that n more tokens have passed through every block.
func (c *Cache) Advance(n int) { c.n += n }

// Rewind drops all tokens but the first n and returns how many are left: fewer, if what
// the next one sees of them is not there any more, or would be other keys by now.
func (c *Cache) Rewind(n int) int {
	n = min(n, c.n)
	if r := c.m.rotate; r != nil && r.long != nil && n <= r.limit && c.n > r.limit {
		n = 0 // the keys were turned by the frequencies of longer sequences
	}
	for i := range c.layers {
		if x := &c.layers[i]; x.first > 0 && x.first > n-x.window+1 {
			n = 0
		}
	}
	if n == 0 {
		for i := range c.layers {
			c.layers[i].first = 0
		}
	}
	c.n = n
	return n
}

// Reach says that the tokens that are to come make n of them, where that decides the
// frequencies of rotary embeddings. It drops what was computed by others.
func (c *Cache) Reach(n int) {
	c.reach = n
	if c.m.restarts(c.n, n) {
		c.Rewind(0)
	}
}

// extend adds keys and values of tokens from position at on to those of a layer, whose
// tokens before that must be there, and returns all that it keeps.
func (c *Cache) extend(layer, at int, k, v []float32) (allK, allV []float32) {
	x := &c.layers[layer]
	dim := int(c.m.arch.NumKeyValueHeads * c.m.arch.HeadDim)
	have, more := at-x.first, len(k)/dim
	if x.window > 0 && have+more > x.window-1+2*slack {
		// What the window may see, and the slack.
		drop := have - (x.window - 1 + slack)
		copy(x.k, x.k[drop*dim:have*dim])
		copy(x.v, x.v[drop*dim:have*dim])
		x.first += drop
		have -= drop
	}
	if need := (have + more) * dim; need > cap(x.k) {
		room := max(need, min(2*cap(x.k), dim*kept(x.window, c.m.positions)), dim*min(firstCached, kept(x.window, c.m.positions)))
		x.k, x.v = grown(x.k[:have*dim], room), grown(x.v[:have*dim], room)
	}
	x.k = append(x.k[:have*dim], k...)
	x.v = append(x.v[:have*dim], v...)
	return x.k, x.v
}

func grown(x []float32, room int) []float32 { return append(make([]float32, 0, room), x...) }
