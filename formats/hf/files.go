package hf

import "path/filepath"

// A Shard is a file of weights of an open directory.
type Shard struct {
	Name  string
	Bytes int64
}

// Shards returns the files that the tensors are in, in order.
func (d *Dir) Shards() []Shard {
	list := make([]Shard, len(d.shards))
	for i, f := range d.shards {
		list[i] = Shard{filepath.Base(f.Path()), f.Size()}
	}
	return list
}
