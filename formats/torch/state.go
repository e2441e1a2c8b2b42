package torch

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/hint"
)

// preferred are the names under which trainers keep the model when the
// checkpoint has more tensors than that.
var preferred = []string{"state_dict", "model_state_dict", "model", "module"}

const (
	// maxDepth is how deep in the checkpoint tensors are looked for.
	maxDepth = 8

	// maxIgnored is how many names of what is passed over are kept.
	maxIgnored = 1000
)

// stateDict is the dict of tensors of a checkpoint.
type stateDict struct {
	path    string
	tensors []named
	ignored []string
}

type named struct {
	name string
	view *view
}

// node is a dict of the checkpoint and how it is reached.
type node struct {
	parent *node
	key    string
	dict   *dict
	depth  int
}

func (n *node) path() string {
	var keys []string
	for ; n.parent != nil; n = n.parent {
		keys = append(keys, n.key)
	}
	slices.Reverse(keys)
	return strings.Join(keys, ".")
}

// title names the dict in an error.
func (n *node) title() string {
	if n.parent == nil {
		return "at the top"
	}
	return fmt.Sprintf("in %q", short(n.path()))
}

// holdsTensors reports whether the dict has a tensor under a name.
func (n *node) holdsTensors() bool {
	return slices.ContainsFunc(n.dict.items, func(i item) bool {
		_, name := i.key.(string)
		_, is := i.value.(*view)
		return name && is
	})
}

// choose finds the one dict whose values are tensors.
func choose(root any) (*stateDict, error) {
	top, ok := root.(*dict)
	if !ok {
		return nil, hint.Add(unsupported("the checkpoint is %s, not a dict of tensors", describe(root)),
			"in PyTorch, save a dict that gives every tensor a name")
	}
	var found []*node
	for _, n := range dictsOf(top) {
		if n.holdsTensors() {
			found = append(found, n)
		}
	}
	n, err := pick(found)
	if err != nil {
		return nil, err
	}
	d := &stateDict{path: n.path()}
	for _, i := range n.dict.items {
		v, is := i.value.(*view)
		name, hasName := i.key.(string)
		switch {
		case is && !hasName:
			return nil, unsupported("a tensor %s under %s, not a name", n.title(), describe(i.key))
		case is && !utf8.ValidString(name):
			return nil, malformed("the tensor name %q is not UTF-8", short(name))
		case is:
			d.tensors = append(d.tensors, named{name, v})
		}
	}
	d.ignored = beside(n)
	return d, nil
}

// dictsOf returns the dict and those that are reached from it by names, each
// once, the nearest first.
func dictsOf(top *dict) []*node {
	list := []*node{{dict: top}}
	seen := map[*dict]bool{top: true}
	for i := 0; i < len(list); i++ {
		for _, it := range list[i].dict.items {
			key, named := it.key.(string)
			d, is := it.value.(*dict)
			if depth := list[i].depth + 1; named && is && !seen[d] && depth <= maxDepth {
				seen[d] = true
				list = append(list, &node{list[i], key, d, depth})
			}
		}
	}
	return list
}

// pick returns the dict that is the model's among those that hold tensors.
func pick(found []*node) (*node, error) {
	switch len(found) {
	case 0:
		return nil, malformed("the checkpoint holds no dict of tensors")
	case 1:
		return found[0], nil
	}
	for _, name := range preferred {
		i := slices.IndexFunc(found, func(n *node) bool {
			return n.key == name && n.parent != nil && n.parent.parent == nil
		})
		if i < 0 {
			continue
		}
		// A dict inside of the model's would be part of the model.
		if j := slices.IndexFunc(found, func(n *node) bool { return n != found[i] && n.within(found[i]) }); j >= 0 {
			return nil, ambiguous([]*node{found[i], found[j]})
		}
		return found[i], nil
	}
	return nil, ambiguous(found)
}

func ambiguous(found []*node) error {
	var where []string
	for _, n := range found[:min(len(found), 4)] {
		where = append(where, n.title())
	}
	if len(found) > 4 {
		where = append(where, "...")
	}
	return hint.Add(unsupported("tensors in %d dicts: %s", len(found), strings.Join(where, ", ")),
		"in PyTorch, save the one that is the model alone")
}

// within reports whether the dict is a or inside of it.
func (n *node) within(a *node) bool {
	for ; n != nil; n = n.parent {
		if n == a {
			return true
		}
	}
	return false
}

// beside returns the names of what is no tensor in the dict, and of what lies
// beside it on the way from the top.
func beside(n *node) []string {
	var list []string
	var inner *node // where the way leads
	for at := n; at != nil; inner, at = at, at.parent {
		prefix := ""
		if at.parent != nil {
			prefix = short(at.path()) + "."
		}
		for _, i := range at.dict.items {
			_, isTensor := i.value.(*view)
			taken := inner == nil && isTensor || inner != nil && i.value == inner.dict
			if !taken && len(list) < maxIgnored {
				list = append(list, prefix+short(keyName(i.key)))
			}
		}
	}
	return list
}

func keyName(key any) string {
	switch key := key.(type) {
	case string:
		return key
	case int64, bool, float64:
		return fmt.Sprint(key)
	}
	return describe(key)
}
