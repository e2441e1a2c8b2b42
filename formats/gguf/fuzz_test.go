package gguf

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// FuzzParse checks that no input panics, that what is refused is refused for
// one of the two reasons, and that whatever is read can be written and is then
// read as the same.
func FuzzParse(f *testing.F) {
	for _, o := range orders {
		for _, b := range sound(o) {
			f.Add(b)
		}
		for _, c := range faults(o) {
			f.Add(c.file)
		}
	}
	for _, name := range []string{"big.gguf", "little.gguf", "ggml.gguf", "gguf-py.gguf", "stories260K.head",
		"vocab-falcon.head", "vocab-gpt-2.head", "vocab-gpt-neox.head", "vocab-llama-spm.head"} {
		f.Add(readFile(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parse(b); err != nil {
			require.True(t, errors.Is(err, tensor.ErrMalformed) != errors.Is(err, tensor.ErrUnsupported), "%v", err)
			return
		}
		roundTrip(t, b)
	})
}

// roundTrip checks that a file that can be read comes back equal.
func roundTrip(t *testing.T, b []byte) {
	t.Helper()
	src := mustParse(t, b)
	first := image(t, src)
	again := mustParse(t, first)
	require.Equal(t, slices.Collect(src.All()), slices.Collect(again.All()))
	for info := range src.All() {
		require.Equal(t, tensortest.Bytes(t, src, info.Name), tensortest.Bytes(t, again, info.Name))
	}
	// Encoding tells any two values of metadata apart, NaNs too.
	require.True(t, bytes.Equal(first, image(t, again)))
}

// image returns what the Writer would make of a source, in memory. The
// alignment is the writer's own.
func image(t *testing.T, src tensor.Source) []byte {
	t.Helper()
	meta := slices.DeleteFunc(slices.Clone(src.Meta()), func(kv tensor.KV) bool { return kv.Key == KeyAlignment })
	layout := slices.Collect(src.All())
	h, err := newHeader(meta, layout)
	require.NoError(t, err)
	b := make([]byte, h.size)
	copy(b, h.bytes)
	for i, info := range layout {
		copy(b[h.starts[i]:], tensortest.Bytes(t, src, info.Name))
	}
	return b
}
