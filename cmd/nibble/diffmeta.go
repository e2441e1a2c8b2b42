package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/tensor"
)

// keyDiff is a value of the configuration, the tokenizer or the metadata that
// differs. One that says how a file is stored is no difference of what it holds.
type keyDiff struct {
	Key     string `json:"key"`
	A       string `json:"a"`
	B       string `json:"b"`
	Storage bool   `json:"storage,omitempty"`
}

// storageKeys say how a GGUF file is stored.
var storageKeys = []string{gguf.KeyFileType, gguf.KeyQuantizationVersion, gguf.KeyAlignment}

func (r *diffResult) countedKeys() int {
	n := 0
	for _, k := range r.Metadata {
		if !k.Storage {
			n++
		}
	}
	return n
}

// compareMetadata compares the keys of two GGUF files, or the configurations and
// tokenizers of two models of any format.
func compareMetadata(a, b *side) []keyDiff {
	switch {
	case a.GGUF != nil && b.GGUF != nil:
		return compareMeta(a.GGUF.Meta(), b.GGUF.Meta())
	case a.model != nil && b.model != nil:
		return append(compareConfigs(a.model, b.model), compareTokenizers(a.model, b.model)...)
	}
	return nil
}

func compareMeta(a, b tensor.Meta) []keyDiff {
	values := make(map[string]any, len(b))
	for _, kv := range b {
		values[kv.Key] = kv.Value
	}
	var out []keyDiff
	add := func(key string, x, y any) {
		d := keyDiff{Key: key, A: shown(x), B: shown(y), Storage: slices.Contains(storageKeys, key) || strings.HasPrefix(key, "split.")}
		if x != nil && y != nil && d.A == d.B {
			d.A, d.B = firstDifference(x, y)
		}
		out = append(out, d)
	}
	for _, kv := range a {
		other, ok := values[kv.Key]
		delete(values, kv.Key)
		if !ok || !reflect.DeepEqual(kv.Value, other) {
			add(kv.Key, kv.Value, other)
		}
	}
	for _, kv := range b {
		if _, left := values[kv.Key]; left {
			add(kv.Key, nil, kv.Value)
		}
	}
	return out
}

// shown writes a value on a line, an array by its length.
func shown(v any) string {
	if v == nil {
		return "-"
	}
	switch x := reflect.ValueOf(v); x.Kind() {
	case reflect.Slice:
		return fmt.Sprintf("%d × %v", x.Len(), x.Type().Elem())
	case reflect.String:
		return fmt.Sprintf("%q", x.String())
	}
	return fmt.Sprint(v)
}

// firstDifference tells apart two values that shown writes the same: arrays of
// one length by their first elements that differ, other values by their types.
func firstDifference(a, b any) (string, string) {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if x.Type() == y.Type() && x.Kind() == reflect.Slice {
		for i := range min(x.Len(), y.Len()) {
			if u, v := x.Index(i).Interface(), y.Index(i).Interface(); !reflect.DeepEqual(u, v) {
				return fmt.Sprintf("[%d] %s", i, shown(u)), fmt.Sprintf("[%d] %s", i, shown(v))
			}
		}
	}
	return fmt.Sprintf("%s (%v)", shown(a), x.Type()), fmt.Sprintf("%s (%v)", shown(b), y.Type())
}

// compareConfigs compares what the arithmetic of two models depends on, as
// config.json would have it.
func compareConfigs(a, b *model) []keyDiff {
	return compareMeta(configValues(a), configValues(b))
}

// configValues returns the hyperparameters of a model. What a model calls itself
// is left out: GGUF has one name for several.
func configValues(m *model) tensor.Meta {
	out := tensor.Meta{{Key: "family", Value: m.arch.Name}}
	for _, x := range m.arch.Members() {
		if x.Name != "architectures" && x.Name != "model_type" {
			out = append(out, tensor.KV{Key: x.Name, Value: x.Value})
		}
	}
	return out
}

// compareTokenizers compares tokenizers by what GGUF would say of them.
func compareTokenizers(a, b *model) []keyDiff {
	va, errA := a.vocab()
	vb, errB := b.vocab()
	switch {
	case errA != nil && errB != nil:
		return nil
	case errA != nil:
		return []keyDiff{{Key: "tokenizer", A: firstLine(errA.Error()), B: fmt.Sprintf("%d tokens", len(vb.Pieces))}}
	case errB != nil:
		return []keyDiff{{Key: "tokenizer", A: fmt.Sprintf("%d tokens", len(va.Pieces)), B: firstLine(errB.Error())}}
	}
	return compareMeta(va.GGUF(), vb.GGUF())
}
