package gguf

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// everyType is a Meta with every type there is.
var everyType = tensor.Meta{
	{Key: KeyArchitecture, Value: "llama"},
	{Key: "u8", Value: uint8(1)}, {Key: "i8", Value: int8(-1)}, {Key: "u16", Value: uint16(2)}, {Key: "i16", Value: int16(-2)},
	{Key: "u32", Value: uint32(3)}, {Key: "i32", Value: int32(-3)}, {Key: "u64", Value: uint64(4)}, {Key: "i64", Value: int64(-4)},
	{Key: "f32", Value: float32(0.1)}, {Key: "f64", Value: 0.1}, {Key: "t", Value: true}, {Key: "f", Value: false},
	{Key: "s", Value: "ü"}, {Key: "empty", Value: ""},
	{Key: "u8s", Value: []uint8{1}}, {Key: "i8s", Value: []int8{-1}}, {Key: "u16s", Value: []uint16{2}}, {Key: "i16s", Value: []int16{-2}},
	{Key: "u32s", Value: []uint32{3}}, {Key: "i32s", Value: []int32{-3}}, {Key: "u64s", Value: []uint64{4}}, {Key: "i64s", Value: []int64{-4}},
	{Key: "f32s", Value: []float32{0.1, -0.1}}, {Key: "f64s", Value: []float64{0.1}}, {Key: "bools", Value: []bool{true, false}},
	{Key: "strings", Value: []string{"", "a", "b"}},
	{Key: "no floats", Value: []float32{}}, {Key: "no strings", Value: []string{}}, {Key: "no bools", Value: []bool{}},
}

var everyShape = []tensor.Info{
	{Name: "token_embd.weight", DType: tensor.F32, Shape: tensor.Shape{5, 32}},
	{Name: "blk.0.attn_q.weight", DType: tensor.Q8_0, Shape: tensor.Shape{3, 64}},
	{Name: "blk.0.attn_norm.weight", DType: tensor.F16, Shape: tensor.Shape{7}},
	{Name: "empty", DType: tensor.BF16, Shape: tensor.Shape{0, 4}},
	{Name: "leading one", DType: tensor.BF16, Shape: tensor.Shape{1, 4}},
	{Name: "four", DType: tensor.I8, Shape: tensor.Shape{2, 3, 4, 5}},
	{Name: strings.Repeat("n", 63), DType: tensor.Q4_K, Shape: tensor.Shape{256}},
}

func create(t testing.TB, path string) *Writer {
	t.Helper()
	w, err := Create(path, false)
	require.NoError(t, err)
	return w
}

func TestSink(t *testing.T) {
	newStore := func(t *testing.T) tensortest.Store {
		dir := t.TempDir()
		path := filepath.Join(dir, "m.gguf")
		return tensortest.Store{
			Create: func() tensor.Sink { return create(t, path) },
			Open: func() tensor.Source {
				f, err := Open(path)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, f.Close()) })
				return f
			},
			Files: func() []string { return tensortest.Files(t, dir) },
		}
	}
	tensortest.TestSink(t, newStore, everyType, everyShape)
}

// copyTo writes a source as it is and returns the bytes of the file.
func copyTo(t testing.TB, src tensor.Source) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.gguf")
	tensortest.Copy(t, src, create(t, path))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// A copy of a file by ggml's writer, by gguf-py and by llama.cpp's converter is
// the same file.
func TestCopiesAreIdentical(t *testing.T) {
	for name, b := range map[string][]byte{
		"ggml":    readFile(t, "ggml.gguf"),
		"gguf-py": readFile(t, "gguf-py.gguf"),
		"stories": stories(t),
	} {
		t.Run(name, func(t *testing.T) {
			require.True(t, bytes.Equal(b, copyTo(t, mustParse(t, b))))
		})
	}
}

// The bytes of a file, spelled out once.
func TestBytes(t *testing.T) {
	meta := tensor.Meta{
		{Key: "s", Value: "é"},
		{Key: "none", Value: []int16{}},
		{Key: "list", Value: []string{"x", ""}},
		{Key: "yes", Value: true},
	}
	src := tensortest.NewSource(t, meta,
		tensortest.Float32("m", tensor.Shape{2, 3}, []float32{1, 2, 3, 4, 5, 6}),
		tensortest.Float32("scalar", nil, []float32{7}))
	want := head(2, 4,
		"s", tString, "é",
		"none", tArray, tI16, uint64(0),
		"list", tArray, tString, uint64(2), "x", "",
		"yes", tBool, uint8(1),
		info("m", gF32, 0, 3, 2), // 24 bytes, padded to 32
		info("scalar", gF32, 32, 1))
	want = append(pad(want, 32, 0), pack([]float32{1, 2, 3, 4, 5, 6, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0})...)
	require.Equal(t, want, copyTo(t, src))
}

func TestNothingToWrite(t *testing.T) {
	require.Equal(t, pad(head(0, 0), 32, 0), copyTo(t, tensortest.NewSource(t, nil)))
}

func TestBeginRefuses(t *testing.T) {
	bad, un := tensor.ErrMalformed, tensor.ErrUnsupported
	meta := func(key string, value any) tensor.Meta { return tensor.Meta{{Key: key, Value: value}} }
	text16M := strings.Repeat("0123456789abcdef", 1<<20)
	f32 := func(name string, dims ...int64) []tensor.Info {
		return []tensor.Info{{Name: name, DType: tensor.F32, Shape: dims}}
	}
	var long tensor.Meta
	for _, key := range strings.Split("abcdefghijklmnopq", "") {
		long = append(long, tensor.KV{Key: key, Value: text16M})
	}
	for name, c := range map[string]struct {
		meta   tensor.Meta
		layout []tensor.Info
		kind   error
		says   []string
	}{
		"alignment":       {meta(KeyAlignment, uint32(32)), nil, un, []string{KeyAlignment, "32"}},
		"split":           {meta(KeySplitCount, uint16(2)), nil, un, []string{KeySplitCount, "2 files"}},
		"empty key":       {meta("", "x"), nil, bad, []string{"metadata entry 0", "empty key"}},
		"key twice":       {tensor.Meta{{Key: "k", Value: "x"}, {Key: "k", Value: "y"}}, nil, bad, []string{`"k"`, "twice"}},
		"int":             {meta("k", 1), nil, un, []string{`"k"`, "int"}},
		"nil":             {meta("k", nil), nil, un, []string{`"k"`, "nil"}},
		"named type":      {meta(KeyFileType, FileType(7)), nil, un, []string{KeyFileType, "gguf.FileType"}},
		"nested":          {meta("k", [][]string{}), nil, un, []string{`"k"`, "[][]string"}},
		"tensor twice":    {nil, append(f32("w", 1), f32("w", 2)...), bad, []string{`"w"`, "twice"}},
		"long name":       {nil, f32(strings.Repeat("n", 64), 1), un, []string{"64 bytes", "63"}},
		"zero in name":    {nil, f32("a\x00", 1), un, []string{"zero byte"}},
		"five dimensions": {nil, f32("w", 1, 1, 1, 1, 1), un, []string{`"w"`, "5 dimensions"}},
		"no ggml type":    {nil, []tensor.Info{{Name: "w", DType: tensor.U8, Shape: tensor.Shape{4}}}, un, []string{`"w"`, "U8"}},
		"NF4":             {nil, []tensor.Info{tensor.NewOpaque("w", tensor.NF4, tensor.Shape{64}, 32)}, un, []string{`"w"`, "NF4"}},
		"late":            {nil, []tensor.Info{tensor.NewLate("w")}, un, []string{`"w"`, "beforehand"}},
		"half a block":    {nil, []tensor.Info{{Name: "w", DType: tensor.Q8_0, Shape: tensor.Shape{16}}}, bad, []string{`"w"`, "block size 32"}},
		"negative":        {nil, f32("w", 2, -1), bad, []string{`"w"`, "negative"}},
		"sizes overflow":  {nil, append(f32("w", 1<<60), f32("x", 1<<60)...), un, []string{`"x"`}},
		"long header":     {long, nil, un, []string{"header of more than 268435456 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "m.gguf")
			w := create(t, path)
			err := w.Begin(c.meta, c.layout)
			require.ErrorIs(t, err, c.kind)
			require.Contains(t, err.Error(), path)
			require.NotContains(t, err.Error(), "\n")
			for _, s := range c.says {
				require.Contains(t, err.Error(), s)
			}
			require.Empty(t, tensortest.Files(t, dir))
			require.NoError(t, w.Abort())
		})
	}
}

func TestOrderOfCalls(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.gguf")
	w := create(t, path)
	_, err := w.Body(0)
	require.Error(t, err)
	require.Error(t, w.Finish())
	require.Empty(t, tensortest.Files(t, dir))

	w = create(t, path)
	require.NoError(t, w.Begin(nil, everyShape[:1]))
	for _, i := range []int{-1, 1} {
		_, err = w.Body(i)
		require.Error(t, err)
	}
	require.Error(t, w.Begin(nil, everyShape[:1]))
	require.Empty(t, tensortest.Files(t, dir))

	w = create(t, path)
	require.NoError(t, w.Begin(nil, everyShape[:1]))
	body, err := w.Body(0)
	require.NoError(t, err)
	for range 2 { // the same half twice is not the whole
		_, err = body.WriteAt(make([]byte, 320), 0)
		require.NoError(t, err)
	}
	_, err = body.WriteAt(make([]byte, 320), 320)
	require.NoError(t, err)
	require.ErrorContains(t, w.Finish(), "960 of 640 bytes have been written")
	require.Empty(t, tensortest.Files(t, dir))
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.gguf")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o666))
	_, err := Create(path, false)
	require.ErrorIs(t, err, fsx.ErrExists)

	w, err := Create(path, true)
	require.NoError(t, err)
	require.NoError(t, w.Begin(nil, nil))
	old, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(old), "the old file stays until the new one is whole")
	require.NoError(t, w.Finish())
	require.Equal(t, []string{"m.gguf"}, tensortest.Files(t, dir))
	_, err = w.Body(0)
	require.Error(t, err)
	f, err := Open(path)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	_, err = Create(filepath.Join(dir, "none", "m.gguf"), false)
	require.ErrorIs(t, err, os.ErrNotExist)
}
