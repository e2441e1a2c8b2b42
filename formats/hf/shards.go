package hf

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
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

// A part is the tensors of a file, by index, in order.
type part struct {
	name    string
	members []int
}

// assign puts the tensors of a layout, by index, into the files that are said
// for them, sorted by name. A group goes where its first tensor goes that has a
// file.
func assign(layout []tensor.Info, files map[string]string) ([]part, error) {
	members := make(map[string][]int)
	for _, g := range groups(layout) {
		first := slices.IndexFunc(g.members, func(i int) bool { return files[layout[i].Name] != "" })
		if first < 0 {
			return nil, fmt.Errorf("tensor %q: no shard is said for it", layout[g.members[0]].Name)
		}
		for _, i := range g.members {
			name := files[layout[i].Name]
			if name == "" {
				name = files[layout[g.members[first]].Name]
			}
			if !plainName(name) || filepath.Ext(name) != ".safetensors" {
				return nil, fmt.Errorf("tensor %q: shard %q is not the name of a .safetensors file", layout[i].Name, name)
			}
			members[name] = append(members[name], i)
		}
	}
	names := slices.Sorted(maps.Keys(members))
	if a, b, ok := sameButCase(names); ok {
		return nil, fmt.Errorf("shards %s and %s differ only in case", a, b)
	}
	if len(names) > 1 && members[WeightsName] != nil {
		return nil, fmt.Errorf("shard %s: a file of that name must hold all tensors", WeightsName)
	}
	parts := make([]part, len(names))
	for i, name := range names {
		slices.Sort(members[name]) // groups may have changed their order
		parts[i] = part{name, members[name]}
	}
	return parts, nil
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

// sameButCase returns two of the names, all different, that are one file where
// case does not count.
func sameButCase(names []string) (a, b string, ok bool) {
	seen := make(map[string]string, len(names))
	for _, name := range names {
		folded := strings.ToLower(name)
		if other, dup := seen[folded]; dup {
			return other, name, true
		}
		seen[folded] = name
	}
	return "", "", false
}
