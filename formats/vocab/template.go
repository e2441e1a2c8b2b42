package vocab

import (
	"slices"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// SetTemplate returns the metadata of a GGUF file with a chat template in place of those it
// has.
func SetTemplate(meta tensor.Meta, template string) tensor.Meta {
	meta = slices.DeleteFunc(slices.Clone(meta), func(kv tensor.KV) bool {
		return kv.Key == keyTemplates || strings.HasPrefix(kv.Key, keyTemplate+".")
	})
	k := keys(meta)
	k.set(keyTemplate, template)
	return tensor.Meta(k)
}
