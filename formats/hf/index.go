package hf

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/tensor"
)

// index is model.safetensors.index.json or pytorch_model.bin.index.json. A nil
// index, that of a model in one file, agrees with everything.
type index struct {
	path     string
	Metadata struct {
		TotalSize int64 `json:"total_size"`
	} `json:"metadata"`

	// WeightMap is the shard of each tensor.
	WeightMap map[string]string `json:"weight_map"`
}

// readIndex reads the index of shards that end in ext.
func readIndex(path, ext string) (*index, error) {
	text, err := readFile(path, maxIndex)
	if err != nil {
		return nil, err
	}
	ix := &index{path: path}
	// Of the file, only weight_map matters: total_size counts parameters in
	// some writers' files and bytes in others'.
	read := struct {
		WeightMap *map[string]string `json:"weight_map"`
	}{&ix.WeightMap}
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, tensor.ErrMalformed, err)
	}
	if len(ix.WeightMap) == 0 {
		return nil, fmt.Errorf("%s: %w: no weight_map, or an empty one", path, tensor.ErrMalformed)
	}
	for _, name := range slices.Sorted(maps.Keys(ix.WeightMap)) {
		if shard := ix.WeightMap[name]; !plainName(shard) || filepath.Ext(shard) != ext {
			return nil, fmt.Errorf("%s: %w: tensor %q is said to be in %q, which is not the name of a %s file in the directory",
				path, tensor.ErrMalformed, name, shard, ext)
		}
	}
	if a, b, ok := sameButCase(ix.shards()); ok {
		return nil, fmt.Errorf("%s: %w: shards %s and %s differ only in case", path, tensor.ErrMalformed, a, b)
	}
	return ix, nil
}

// shards returns the names of the shards, sorted.
func (ix *index) shards() []string {
	return slices.Compact(slices.Sorted(maps.Values(ix.WeightMap)))
}

// first returns the first name of a tensor in the shard.
func (ix *index) first(shard string) string {
	for _, name := range slices.Sorted(maps.Keys(ix.WeightMap)) {
		if ix.WeightMap[name] == shard {
			return name
		}
	}
	return ""
}

// checkTensor returns an error unless the index says of the tensor that it is
// in the shard.
func (ix *index) checkTensor(name, shard string) error {
	if ix == nil {
		return nil
	}
	said, ok := ix.WeightMap[name]
	switch {
	case !ok:
		return fmt.Errorf("%s: %w: tensor %q of shard %s is not in the weight_map", ix.path, tensor.ErrMalformed, name, shard)
	case said != shard:
		return fmt.Errorf("%s: %w: tensor %q is said to be in shard %s and is in %s", ix.path, tensor.ErrMalformed, name, said, shard)
	}
	return nil
}

// checkComplete returns an error if the index names a tensor that src has not.
func (ix *index) checkComplete(src tensor.Source) error {
	if ix == nil {
		return nil
	}
	var missing []string
	for name := range ix.WeightMap {
		if !tensor.Has(src, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	name := slices.Min(missing)
	return fmt.Errorf("%s: %w: tensor %q is not in shard %s (%d of %d tensors are missing)",
		ix.path, tensor.ErrMalformed, name, ix.WeightMap[name], len(missing), len(ix.WeightMap))
}

// encode returns the text of the file as transformers spells it: sorted,
// indented by two.
func (ix *index) encode() ([]byte, error) {
	text, err := json.Marshal(ix, json.Deterministic(true), jsontext.WithIndent("  "))
	return append(text, '\n'), err
}
