package gguf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// A model can be in several files, PREFIX-00001-of-00003.gguf and so on, each a
// GGUF file of its own with some of the tensors. The first has the metadata; of
// that in the others only what it says of the parts counts
// (src/llama-model-loader.cpp).

// partSuffix is what the name of a part ends in. The first is number 0.
func partSuffix(no, count int) string { return fmt.Sprintf("-%05d-of-%05d.gguf", no+1, count) }

// split is what a file says of the parts of its model. A model in one piece has
// a count of 0 or 1.
type split struct {
	no, count, tensors int
}

// String says which part it is, for an error.
func (s split) String() string {
	if s.count <= 1 {
		return "a model of its own"
	}
	return fmt.Sprintf("part %d of %d, with %d tensors in all", s.no+1, s.count, s.tensors)
}

// partCount returns the number of parts that metadata speaks of, 0 if it speaks
// of none.
func partCount(meta tensor.Meta) (int, error) {
	if _, ok := meta.Get(KeySplitCount); !ok {
		return 0, nil
	}
	n, err := typed[uint16](meta, KeySplitCount)
	return int(n), err
}

// splitOf returns what metadata says of the parts.
func splitOf(meta tensor.Meta) (split, error) {
	count, err := partCount(meta)
	if err != nil || count <= 1 {
		return split{}, err
	}
	no, err := typed[uint16](meta, KeySplitNo)
	if err != nil {
		return split{}, err
	}
	tensors, err := typed[int32](meta, KeySplitTensors)
	return split{int(no), count, int(tensors)}, err
}

// typed returns the value of a key that must be there, and of one type.
func typed[T any](meta tensor.Meta, key string) (T, error) {
	v, ok := meta.Get(key)
	t, is := v.(T)
	switch {
	case !ok:
		return t, fmt.Errorf("key %q: %w: it is missing", key, tensor.ErrMalformed)
	case !is:
		return t, fmt.Errorf("key %q: %w: it is of type %T, not %T", key, tensor.ErrMalformed, v, t)
	}
	return t, nil
}

// ofSplit reports whether a key concerns the part rather than the model.
func ofSplit(kv tensor.KV) bool {
	return kv.Key == KeySplitNo || kv.Key == KeySplitCount || kv.Key == KeySplitTensors
}

// openParts reads the file at path and, if it is the first part of a model, the
// others, each opened with open. Errors begin with the path of a file.
func openParts(path string, open func(path string) (io.ReaderAt, int64, error)) (*tensor.Table, error) {
	meta, entries, first, err := openPart(path, open)
	if err != nil {
		return nil, err
	}
	if first.count <= 1 {
		t, err := tensor.NewTable(meta, entries)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return t, nil
	}
	prefix, err := first.prefix(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	holder := make(map[string]string) // of each tensor: a path
	for _, e := range entries {
		holder[e.Info.Name] = path
	}
	for no := 1; no < first.count; no++ {
		other := prefix + partSuffix(no, first.count)
		_, more, s, err := openPart(other, open)
		if errors.Is(err, fs.ErrNotExist) {
			err = hint.Add(err, "the model is split into %d files: put all of them beside %s, under the names they had", first.count, path)
		}
		if err != nil {
			return nil, err
		}
		if want := (split{no, first.count, first.tensors}); s != want {
			return nil, hint.Add(fmt.Errorf("%s: %w: by its metadata it is %v; by the first part and its name it is %v", other, tensor.ErrMalformed, s, want),
				"parts have been renamed or mixed up with those of another model: get them again")
		}
		for _, e := range more {
			if has, dup := holder[e.Info.Name]; dup {
				return nil, fmt.Errorf("%s: tensor %q: %w: it is in %s as well", other, e.Info.Name, tensor.ErrMalformed, has)
			}
			holder[e.Info.Name] = other
		}
		entries = append(entries, more...)
	}
	if len(entries) != first.tensors {
		return nil, hint.Add(fmt.Errorf("%s: key %q: %w: it is %d, and the %d parts have %d tensors", path, KeySplitTensors, tensor.ErrMalformed,
			first.tensors, first.count, len(entries)), "parts of different models have been mixed up: get them again")
	}
	return tensor.NewTable(slices.DeleteFunc(meta, ofSplit), entries)
}

// openPart reads one file.
func openPart(path string, open func(path string) (io.ReaderAt, int64, error)) (tensor.Meta, []tensor.Entry, split, error) {
	r, size, err := open(path)
	if err != nil {
		return nil, nil, split{}, err
	}
	meta, entries, err := parsePart(r, size)
	if err != nil {
		return nil, nil, split{}, fmt.Errorf("%s: %w", path, err)
	}
	s, err := splitOf(meta)
	if err != nil {
		return nil, nil, split{}, fmt.Errorf("%s: %w", path, err)
	}
	return meta, entries, s, nil
}

// prefix returns what the names of all parts begin with, given the path of the
// first.
func (s split) prefix(path string) (string, error) {
	first := partSuffix(0, s.count)
	if s.no != 0 {
		name := "whose name ends in " + first
		if prefix, ok := strings.CutSuffix(path, partSuffix(s.no, s.count)); ok {
			name = prefix + first
		}
		return "", hint.Add(fmt.Errorf("key %q: %w: it is %v", KeySplitNo, tensor.ErrUnsupported, s), "give the first part, %s; the others are found beside it", name)
	}
	prefix, ok := strings.CutSuffix(path, first)
	if !ok {
		return "", hint.Add(fmt.Errorf("%w: it is %v, but its name does not end in %s, from which those of the others would follow",
			tensor.ErrUnsupported, s, first), "give the parts the names they had")
	}
	return prefix, nil
}
