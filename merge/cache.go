package merge

import (
	"slices"
	"sync"
)

// cacheBytes is how much of the factors of one adapter is kept once it has been
// read. A tensor is written in panels of rows that all need its factors, by
// workers of which each is at one tensor.
const cacheBytes = 64 << 20

// A cache keeps what was loaded last. What is in use stays with who uses it, so
// that nothing fails if it is put out: it is loaded again.
type cache struct {
	mu   sync.Mutex
	used int64
	list []*cached // the one used last at the end
}

type cached struct {
	key  any
	size int64
	load func() (any, error)
}

// fetch returns what load returns for the key, size bytes of memory.
func fetch[T any](c *cache, key any, size int64, load func() (T, error)) (T, error) {
	v, err := c.entry(key, size, func() (any, error) { return load() }).load()
	if err != nil {
		c.drop(key)
		var none T
		return none, err
	}
	return v.(T), nil
}

func (c *cache) entry(key any, size int64, load func() (any, error)) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.index(key); i >= 0 {
		e := c.list[i]
		c.list = append(slices.Delete(c.list, i, i+1), e)
		return e
	}
	e := &cached{key, size, sync.OnceValues(load)}
	c.list = append(c.list, e)
	for c.used += size; c.used > cacheBytes && len(c.list) > 1; c.list = slices.Delete(c.list, 0, 1) {
		c.used -= c.list[0].size
	}
	return e
}

func (c *cache) drop(key any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.index(key); i >= 0 {
		c.used -= c.list[i].size
		c.list = slices.Delete(c.list, i, i+1)
	}
}

func (c *cache) index(key any) int {
	return slices.IndexFunc(c.list, func(e *cached) bool { return e.key == key })
}
