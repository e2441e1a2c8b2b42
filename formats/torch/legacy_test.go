package torch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

const legacyHead = proto2 + "\x8a\x0a" + legacyMagic + "." + proto2 + "M\xe9\x03." + proto2 + "}."

// legacyID names a storage as the old format does.
func legacyID(class, key string, n int64, view string) string {
	return tupleWith(text("storage"), name("torch", class), text(key), text("cpu"), number(n), view) + "Q"
}

// counted64 is the storage that follows the pickles: a number of elements and
// the data.
func counted64(n int64, data string) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(n))) + data
}

func TestLegacyViews(t *testing.T) {
	// Storages that are views of another, as PyTorch 0.3 and older had them.
	view := tupleWith(text("v"), number(2), number(3))
	object := dictWith(
		text("view"), tensorOf(legacyID("ShortStorage", "r", 6, view), 1, ints(2), ints(1)),
		text("root"), tensorOf(legacyID("ShortStorage", "r", 6, "N"), 0, ints(6), ints(1)),
		text("other"), tensorOf(legacyID("ByteStorage", "o", 2, "N"), 0, ints(2), ints(1)))
	b := legacyHead + proto2 + object + "." + proto2 + "](" + text("o") + text("r") + "e." + counted64(2, "xy") + counted64(6, "aAbBcCdDeEfF")
	src, err := parseBytes([]byte(b))
	require.NoError(t, err)
	tensortest.TestSource(t, src)
	require.Equal(t, "dDeE", string(tensortest.Bytes(t, src, "view")))
	require.Equal(t, "aAbBcCdDeEfF", string(tensortest.Bytes(t, src, "root")))
	require.Equal(t, "xy", string(tensortest.Bytes(t, src, "other")))
}

// brokenLegacy are files of the old format that are wrong.
func brokenLegacy() map[string]struct{ file, says string } {
	one := func(id string) string {
		return legacyHead + proto2 + dictWith(text("a"), tensorOf(id, 0, ints(2), ints(1))) + "."
	}
	keys := func(list ...string) string { return proto2 + "](" + strings.Join(list, "") + "e." }
	id := legacyID("ShortStorage", "k", 4, "N")
	view := func(key, offset, size string) string {
		return one(legacyID("ShortStorage", "k", 4, tupleWith(key, offset, size)))
	}
	return map[string]struct{ file, says string }{
		"magic number alone":   {legacyHead[:15], "truncated"},
		"another version":      {strings.Replace(legacyHead, "M\xe9\x03", "M\xe8\x03", 1) + proto2 + "}." + proto2 + "].", "version 1001"},
		"no keys":              {one(id), "truncated"},
		"keys are no list":     {one(id) + proto2 + "}.", "a dict where the keys"},
		"key is no string":     {one(id) + keys("K\x01"), "an int as the key"},
		"key of no tensor":     {one(id) + keys(text("other")) + counted64(4, "12345678"), "other as the key"},
		"key twice":            {one(id) + keys(text("k"), text("k")) + counted64(4, "12345678") + counted64(4, "12345678"), "k as the key"},
		"key missing":          {one(id) + keys(), `storage "k" is not in the file`},
		"no storage":           {one(id) + keys(text("k")), `truncated: storage "k"`},
		"half a length":        {one(id) + keys(text("k")) + "\x04\x00", `truncated: storage "k"`},
		"half a storage":       {one(id) + keys(text("k")) + counted64(4, "1234567"), `truncated: storage "k" goes beyond the end of the file`},
		"another length":       {one(id) + keys(text("k")) + counted64(3, "123456"), `storage "k" has 3 elements, the pickle says 4`},
		"negative length":      {one(id) + keys(text("k")) + counted64(-1, "12345678"), "has 18446744073709551615 elements"},
		"exabytes":             {one(legacyID("ShortStorage", "k", 1<<61, "N")) + keys(text("k")) + counted64(1<<61, "12345678"), "truncated"},
		"two sizes":            {one(tupleWith(legacyID("ShortStorage", "k", 4, "N"), legacyID("ShortStorage", "k", 5, "N"))), "has 8 bytes and 10"},
		"id of the new format": {one(storageID("ShortStorage", "k", 4)), "not a storage's"},
		"view is a list":       {one(legacyID("ShortStorage", "k", 4, "]")), "a list as the view"},
		"view is short":        {one(legacyID("ShortStorage", "k", 4, ints(1))), "a tuple as the view"},
		"view without key":     {view("N", number(0), number(1)), "None as the key of a storage's view"},
		"view before it":       {view(text("v"), number(-1), number(1)), "a storage view's offset is -1"},
		"view of nothing":      {view(text("v"), number(0), "N"), "a storage view's size is None"},
		"view behind it":       {view(text("v"), number(2), number(3)), `3 elements from 2 on in storage "k", which has 8 bytes`},
		"view overflows":       {view(text("v"), number(1<<62), number(1<<62)), "elements from"},
		"tensor in a view":     {view(text("v"), number(3), number(1)), "a view of size [2], stride [1] and offset 0"},
		"id before the object": {proto2 + tupleWith("\x8a\x0a"+legacyMagic, id) + ".", "a tuple as the name of a storage"},
	}
}

func TestLegacyErrors(t *testing.T) {
	for name, c := range brokenLegacy() {
		t.Run(name, func(t *testing.T) {
			_, err := parseBytes([]byte(c.file))
			require.ErrorIs(t, err, tensor.ErrMalformed)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// TestTruncated cuts goldens anywhere.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"legacy_training.bin", "training.pth"} {
		b := readFile(t, name)
		last := 0
		for n := range len(b) {
			_, err := Parse(bytes.NewReader(b[:n]), int64(n))
			if err == nil {
				last = n
				continue
			}
			require.ErrorIs(t, err, tensor.ErrMalformed, "%s, %d bytes", name, n)
		}
		require.Zero(t, last, name)
	}
}

// FuzzParse opens anything.
func FuzzParse(f *testing.F) {
	for name := range expectations(f) {
		f.Add(readFile(f, name))
	}
	for _, name := range []string{"script.pt", "deflated.pt", "sparse.pt", "conj.pt"} {
		f.Add(readFile(f, "refused/"+name))
	}
	for _, c := range brokenLegacy() {
		f.Add([]byte(c.file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := parseBytes(b)
		checkParsed(t, src, err)
	})
}

// FuzzPickle runs any pickle, in an archive that is in order.
func FuzzPickle(f *testing.F) {
	for _, c := range hostile {
		if len(c.pickle) < 10000 {
			f.Add([]byte(c.pickle))
		}
	}
	for name := range expectations(f) {
		b := readFile(f, name)
		if a, err := openArchive(bytes.NewReader(b), int64(len(b))); err == nil {
			p, err := a.section(pickleName)
			require.NoError(f, err)
			f.Add(b[p.at : p.at+p.size])
		}
	}
	f.Fuzz(func(t *testing.T, pickle []byte) {
		src, err := parseBytes(pickled(string(pickle)))
		checkParsed(t, src, err)
	})
}

// checkParsed checks that an error is of a kind, and that tensors can be read.
func checkParsed(t *testing.T, src *tensor.Table, err error) {
	if err != nil {
		for _, kind := range []error{tensor.ErrMalformed, tensor.ErrUnsupported} {
			if errors.Is(err, kind) {
				return
			}
		}
		t.Fatalf("an error of no kind: %v", err)
	}
	var total int64
	for info := range src.All() {
		if total += info.Size(); total < 0 || total > 1<<20 {
			// A few bytes can repeat themselves to any size. Its ends can be read.
			r, err := src.Raw(info.Name)
			require.NoError(t, err)
			b := make([]byte, min(1000, r.Size()))
			_, err = r.ReadAt(b, 0)
			require.NoError(t, err)
			_, err = r.ReadAt(b, r.Size()-int64(len(b)))
			require.NoError(t, err)
			return
		}
	}
	tensortest.TestSource(t, src)
}
