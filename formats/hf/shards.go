package hf

import (
	"math"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// split deals the tensors of a layout, by index, out to shards of at most limit
// bytes: in order, a new shard when the next group does not fit. A group that is
// larger than that has a shard of its own.
func split(layout []tensor.Info, limit int64) [][]int {
	var shards [][]int
	var used int64
	for _, g := range groups(layout) {
		if len(shards) == 0 || g.size > limit-used {
			shards = append(shards, nil)
			used = 0
		}
		last := len(shards) - 1
		shards[last] = append(shards[last], g.members...)
		used += g.size
	}
	return shards
}

// A group is tensors, by index, that must be in one shard, and how many bytes
// they take, late tensors counted at their largest.
type group struct {
	members []int
	size    int64
}

// groups returns the groups in the order of their first members. A tensor goes
// with the one whose name begins its own, up to a dot: transformers looks for
// X.weight.absmax and X.weight.quant_state.bitsandbytes__nf4 where X.weight is.
func groups(layout []tensor.Info) []group {
	names := make(map[string]bool, len(layout))
	for _, info := range layout {
		names[info.Name] = true
	}
	var list []group
	index := make(map[string]int, len(layout))
	for i, info := range layout {
		root := rootOf(info.Name, names)
		at, ok := index[root]
		if !ok {
			at = len(list)
			index[root] = at
			list = append(list, group{})
		}
		g := &list[at]
		g.members = append(g.members, i)
		if g.size, ok = safeio.Add(g.size, info.Size()); !ok {
			g.size = math.MaxInt64 // the shard's file will say that it is too much
		}
	}
	return list
}

// rootOf returns the shortest of the names that begins the given one, up to a
// dot, or is the given one itself.
func rootOf(name string, names map[string]bool) string {
	for i := range name {
		if name[i] == '.' && names[name[:i]] {
			return name[:i]
		}
	}
	return name
}

// plainName reports whether the name leads to a file in the directory itself.
func plainName(name string) bool {
	return name != "." && filepath.IsLocal(name) && !strings.ContainsAny(name, "/\\\x00")
}
