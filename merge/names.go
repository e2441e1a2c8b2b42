package merge

import (
	"fmt"
	"strings"
)

// names finds the base's tensors by the names that adapters have for them.
type names struct {
	has     func(name string) bool
	renamed int
	example string
}

// other spellings of a part of a name: transformers 5 calls a module otherwise
// than the checkpoint of the family.
var otherNames = [][2]string{
	{".mlp.", ".block_sparse_moe."},
	{".block_sparse_moe.", ".mlp."},
}

// find returns how the base spells a name, if it has it: as it is; without
// "language_model", which models of text and more have somewhere; with one
// "model." more or fewer, as the transformer is loaded alone or inside another.
func (n *names) find(name string) (string, bool) {
	for _, spelled := range spellings(name) {
		if n.has(spelled) {
			if spelled != name {
				n.renamed++
				if n.example == "" {
					n.example = fmt.Sprintf("%s is the base's %s", name, spelled)
				}
			}
			return spelled, true
		}
	}
	return name, false
}

func spellings(name string) []string {
	list := []string{name}
	add := func(s string) {
		if s != name {
			list = append(list, s)
		}
	}
	plain := strings.ReplaceAll(name, "language_model.", "")
	bare := plain
	for strings.HasPrefix(bare, "model.") || strings.HasPrefix(bare, "transformer.") {
		bare = bare[strings.IndexByte(bare, '.')+1:]
	}
	for _, s := range []string{plain, bare, "model." + bare, "transformer." + bare} {
		add(s)
		for _, o := range otherNames {
			if t := strings.Replace(s, o[0], o[1], 1); t != s {
				add(t)
			}
		}
	}
	return list
}

// note says that names were read as others.
func (n *names) note() []string {
	if n.renamed == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d names of the adapter are spelled otherwise in the base: %s", n.renamed, n.example)}
}
