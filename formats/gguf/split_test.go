package gguf

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// part returns a file of the given part of a model, with F32 tensors of one
// element each.
func (o layout) part(no, count uint16, total int32, names ...string) []byte {
	b := o.head(uint64(len(names)), 4, "of", tU16, no, KeySplitCount, tU16, count, KeySplitNo, tU16, no, KeySplitTensors, tI32, total)
	for i, name := range names {
		b = append(b, o.info(name, gF32, uint64(32*i), 1)...)
	}
	b = pad(b, 32, 0)
	for i := range names {
		b = pad(append(b, o.pack(float32(i)+float32(no)*100)...), 32, 0)
	}
	return b
}

// A model in parts is the model of its tensors, under the metadata of the first.
func TestOpenParts(t *testing.T) {
	for _, o := range orders {
		o := layout{o}
		dir := t.TempDir()
		path := func(name string) string { return filepath.Join(dir, name) }
		for name, b := range map[string][]byte{
			"m-00001-of-00003.gguf": o.part(0, 3, 3),
			"m-00002-of-00003.gguf": o.part(1, 3, 3, "b", "a"),
			"m-00003-of-00003.gguf": layout{le}.part(2, 3, 3, "c"), // each has a byte order of its own
		} {
			require.NoError(t, os.WriteFile(path(name), b, 0o666))
		}
		f, err := Open(path("m-00001-of-00003.gguf"))
		require.NoError(t, err)
		tensortest.TestSource(t, f)
		require.Equal(t, tensor.Meta{{Key: "of", Value: uint16(0)}}, f.Meta())
		var names []string
		var values []float32
		for info := range f.All() {
			names = append(names, info.Name)
			values = append(values, tensortest.Floats(t, f, info.Name)...)
		}
		require.Equal(t, []string{"b", "a", "c"}, names)
		require.Equal(t, []float32{100, 101, 200}, values)
		require.Equal(t, []string{path("m-00001-of-00003.gguf"), path("m-00002-of-00003.gguf"), path("m-00003-of-00003.gguf")}, f.Paths())
		r, err := f.Raw("c")
		require.NoError(t, err)
		require.NoError(t, f.Close())
		_, err = io.ReadAll(r)
		require.ErrorIs(t, err, os.ErrClosed)
	}
}

// inMemory opens files by their names.
func inMemory(files map[string][]byte) func(string) (io.ReaderAt, int64, error) {
	return func(path string) (io.ReaderAt, int64, error) {
		b, ok := files[path]
		if !ok {
			return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return bytes.NewReader(b), int64(len(b)), nil
	}
}

func TestPartsRefused(t *testing.T) {
	o := layout{le}
	bad, un := tensor.ErrMalformed, tensor.ErrUnsupported
	one, two := "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"
	type files = map[string][]byte
	first, second := o.part(0, 2, 2, "a"), o.part(1, 2, 2, "b")
	kvs := func(kvs uint64, parts ...any) []byte { return o.head(0, kvs, parts...) }
	for name, c := range map[string]struct {
		open  string
		files files
		kind  error
		says  []string
		hint  string
	}{
		"a later part":        {two, files{one: first, two: second}, un, []string{two + ": ", KeySplitNo, "part 2 of 2"}, "give the first part, m-00001-of-00002.gguf; "},
		"a later part, moved": {"b.gguf", files{one: first, "b.gguf": second}, un, []string{"b.gguf: ", "part 2 of 2"}, "whose name ends in -00001-of-00002.gguf"},
		"renamed":             {"a.gguf", files{"a.gguf": first, two: second}, un, []string{"a.gguf: ", "part 1 of 2", "-00001-of-00002.gguf"}, "names they had"},
		"another number":      {"m-00001-of-00003.gguf", files{"m-00001-of-00003.gguf": first}, un, []string{"part 1 of 2", "-00001-of-00002.gguf"}, "names they had"},
		"no prefix":           {"-00001-of-00002.gguf", files{"-00001-of-00002.gguf": first}, fs.ErrNotExist, []string{"-00002-of-00002.gguf"}, "2 files"},
		"one is missing":      {one, files{one: first}, fs.ErrNotExist, []string{two}, "the model is split into 2 files: put all of them beside " + one},
		"one is no GGUF":      {one, files{one: first, two: []byte("<html>404</html>")}, bad, []string{two + ": ", "not a GGUF file"}, ""},
		"one is cut short":    {one, files{one: first, two: second[:len(second)-30]}, bad, []string{two + ": ", `"b"`}, "cut short"},
		"the first twice":     {one, files{one: first, two: first}, bad, []string{two + ": ", "it is part 1 of 2", "it is part 2 of 2"}, "mixed up"},
		"of another count":    {one, files{one: first, two: o.part(1, 3, 2, "b")}, bad, []string{two + ": ", "part 2 of 3", "part 2 of 2"}, "mixed up"},
		"of another model":    {one, files{one: first, two: o.part(1, 2, 9, "b")}, bad, []string{two + ": ", "with 9 tensors", "with 2 tensors"}, "mixed up"},
		"not a part":          {one, files{one: first, two: pad(o.head(1, 0, o.info("b", gF32, 0, 1)), 32, 32)}, bad, []string{two + ": ", "a model of its own", "part 2 of 2"}, "mixed up"},
		"too few tensors":     {one, files{one: o.part(0, 2, 3, "a"), two: o.part(1, 2, 3, "b")}, bad, []string{one + ": ", KeySplitTensors, "is 3", "have 2 tensors"}, "mixed up"},
		"too many tensors":    {one, files{one: o.part(0, 2, 1, "a"), two: o.part(1, 2, 1, "b")}, bad, []string{"is 1", "have 2 tensors"}, "mixed up"},
		"negative tensors":    {one, files{one: o.part(0, 2, -1, "a"), two: o.part(1, 2, -1, "b")}, bad, []string{"is -1", "have 2 tensors"}, "mixed up"},
		"a tensor twice":      {one, files{one: first, two: o.part(1, 2, 2, "a")}, bad, []string{two + `: tensor "a"`, "in " + one}, ""},
		"number missing":      {one, files{one: kvs(1, KeySplitCount, tU16, uint16(2))}, bad, []string{one + ": ", KeySplitNo, "missing"}, ""},
		"tensors missing":     {one, files{one: kvs(2, KeySplitCount, tU16, uint16(2), KeySplitNo, tU16, uint16(0))}, bad, []string{one + ": ", KeySplitTensors, "missing"}, ""},
		"number of uint32":    {one, files{one: kvs(2, KeySplitCount, tU16, uint16(2), KeySplitNo, tU32, uint32(0))}, bad, []string{KeySplitNo, "uint32, not uint16"}, ""},
		"count of int32":      {one, files{one: kvs(1, KeySplitCount, tI32, int32(2))}, bad, []string{KeySplitCount, "int32, not uint16"}, ""},
		"65535 parts":         {"m-00001-of-65535.gguf", files{"m-00001-of-65535.gguf": o.part(0, 65535, 2, "a")}, fs.ErrNotExist, []string{"m-00002-of-65535.gguf"}, "65535 files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openParts(c.open, inMemory(c.files))
			require.ErrorIs(t, err, c.kind)
			require.NotContains(t, err.Error(), "\n")
			for _, s := range c.says {
				require.Contains(t, err.Error(), s)
			}
			require.Contains(t, hint.Of(err), c.hint)
			if c.hint == "" {
				require.Empty(t, hint.Of(err))
			}
		})
	}
}

// Where a part is missing on disk, it is the one that is named.
func TestPartMissing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m-00001-of-00002.gguf")
	require.NoError(t, os.WriteFile(path, layout{le}.part(0, 2, 2, "a"), 0o666))
	_, err := Open(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, filepath.Join(dir, "m-00002-of-00002.gguf")+": ")
	require.Contains(t, hint.Of(err), "2 files")
}

// FuzzParts checks that no two files, as the parts of a model, panic, and that
// what joins can be written in one piece and is then the same.
func FuzzParts(f *testing.F) {
	for _, a := range orders {
		o := layout{a}
		f.Add(o.part(0, 2, 3, "a"), o.part(1, 2, 3, "b", "c"))
		f.Add(o.part(0, 2, 1), o.part(1, 2, 1, "a"))
		f.Add(o.part(0, 2, 2, "a"), o.part(0, 2, 2, "a"))
		f.Add(o.part(0, 2, 2, "a"), o.part(1, 2, 2, "a"))
		f.Add(o.part(0, 2, 2, "a"), o.part(1, 3, 2, "b"))
		f.Add(o.part(0, 1, 1, "a"), o.head(0, 0))
	}
	f.Add(readFile(f, "whole.gguf"), readFile(f, "big.gguf"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		src, err := openParts("m-00001-of-00002.gguf", inMemory(map[string][]byte{"m-00001-of-00002.gguf": a, "m-00002-of-00002.gguf": b}))
		if err != nil {
			kinds := 0
			for _, kind := range []error{tensor.ErrMalformed, tensor.ErrUnsupported, fs.ErrNotExist} {
				if errors.Is(err, kind) {
					kinds++
				}
			}
			require.Equal(t, 1, kinds, "%v", err)
			return
		}
		first := image(t, src)
		again := mustParse(t, first)
		require.Equal(t, slices.Collect(src.All()), slices.Collect(again.All()))
		require.True(t, bytes.Equal(first, image(t, again)))
	})
}
