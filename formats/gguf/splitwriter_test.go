package gguf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func createSplit(t testing.TB, path string, o SplitOptions) *SplitWriter {
	t.Helper()
	w, err := CreateSplit(path, o, false)
	require.NoError(t, err)
	return w
}

func TestSplitSink(t *testing.T) {
	for first, o := range map[string]SplitOptions{
		"m.gguf":                {},
		"m-00001-of-00007.gguf": {MaxTensors: 1},
		"m-00001-of-00004.gguf": {MaxTensors: 2},
		"m-00001-of-00003.gguf": {MaxSize: 300},
		"m-00001-of-00002.gguf": {NoTensorFirst: true},
		"m-00001-of-00005.gguf": {NoTensorFirst: true, MaxTensors: 2},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			newStore := func(t *testing.T) tensortest.Store {
				dir := t.TempDir()
				return tensortest.Store{
					Create: func() tensor.Sink { return createSplit(t, filepath.Join(dir, "m.gguf"), o) },
					Open: func() tensor.Source {
						f, err := Open(filepath.Join(dir, first))
						require.NoError(t, err)
						t.Cleanup(func() { require.NoError(t, f.Close()) })
						return f
					},
					Files: func() []string { return tensortest.Files(t, dir) },
				}
			}
			tensortest.TestSink(t, newStore, everyType, everyShape)
		})
	}
}

// The files are those that gguf-py's writer makes, name for name and byte for
// byte, and read as the whole they were made from.
func TestSplitsAsGGUFPy(t *testing.T) {
	var cases []struct {
		Options struct {
			Tensors int   `json:"split_max_tensors"`
			Size    int64 `json:"split_max_size"`
			First   bool  `json:"small_first_shard"`
		}
		Files map[string]string
	}
	require.NoError(t, json.Unmarshal(readFile(t, "splits.json"), &cases))
	require.Len(t, cases, 17)
	whole := mustParse(t, readFile(t, "whole.gguf"))
	for _, c := range cases {
		t.Run(fmt.Sprintf("%+v", c.Options), func(t *testing.T) {
			dir := t.TempDir()
			w := createSplit(t, filepath.Join(dir, "m.x.gguf"), SplitOptions{c.Options.Size, c.Options.Tensors, c.Options.First})
			tensortest.Copy(t, whole, w)
			sizes, err := w.options.Sizes(whole.Meta(), slices.Collect(whole.All()))
			require.NoError(t, err)
			require.Len(t, sizes, len(w.Paths()))
			got := make(map[string]string)
			for i, name := range tensortest.Files(t, dir) {
				b, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)
				require.Equal(t, sizes[i], int64(len(b)), name)
				sum := sha256.Sum256(b)
				got[name] = hex.EncodeToString(sum[:])
			}
			require.Equal(t, c.Files, got)

			f, err := Open(w.Paths()[0])
			require.NoError(t, err)
			defer f.Close()
			require.Equal(t, w.Paths(), f.Paths())
			require.Equal(t, whole.Meta(), f.Meta())
			require.Equal(t, slices.Collect(whole.All()), slices.Collect(f.All()))
			for info := range whole.All() {
				require.Equal(t, tensortest.Bytes(t, whole, info.Name), tensortest.Bytes(t, f, info.Name))
			}
		})
	}
}

func TestDivideLarge(t *testing.T) {
	huge := tensor.Info{DType: tensor.I8, Shape: tensor.Shape{math.MaxInt64}}
	require.Len(t, SplitOptions{MaxSize: math.MaxInt64}.divide([]tensor.Info{huge, huge, huge}), 3)
	require.Len(t, SplitOptions{}.divide([]tensor.Info{huge, huge, huge}), 1)
}

func TestStem(t *testing.T) {
	for path, want := range map[string]string{
		"m.gguf": "m", "a.b/m": "a.b/m", "a.b/m.Q4_0.gguf": "a.b/m.Q4_0", "m.bin": "m", "/x/.gguf": "/x/.gguf", "m.": "m.",
	} {
		require.Equal(t, want, stem(path), "%s", path)
	}
}

// What says of what parts a model was before says nothing of the new ones.
func TestSplitKeysAreReplaced(t *testing.T) {
	dir := t.TempDir()
	meta := tensor.Meta{{Key: KeySplitCount, Value: uint16(9)}, {Key: "k", Value: "v"}, {Key: KeySplitNo, Value: uint16(8)}}
	for name, o := range map[string]SplitOptions{"m.gguf": {}, "m-00001-of-00002.gguf": {MaxTensors: 1}} {
		w := createSplit(t, filepath.Join(dir, "m.gguf"), o)
		require.Nil(t, w.Paths())
		require.NoError(t, w.Begin(meta, []tensor.Info{
			{Name: "a", DType: tensor.F32, Shape: tensor.Shape{0}}, {Name: "b", DType: tensor.F32, Shape: tensor.Shape{0}},
		}))
		require.NoError(t, w.Finish())
		f, err := Open(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, tensor.Meta{{Key: "k", Value: "v"}}, f.Meta())
		require.NoError(t, f.Close())
	}
}

func TestCreateSplit(t *testing.T) {
	for _, o := range []SplitOptions{{MaxSize: -1}, {MaxTensors: -1}} {
		_, err := CreateSplit("m.gguf", o, false)
		require.Error(t, err)
	}
	infos := everyShape[:2]
	write := func(w *SplitWriter) {
		t.Helper()
		require.NoError(t, w.Begin(nil, infos))
		for i, info := range infos {
			b, err := w.Body(i)
			require.NoError(t, err)
			_, err = b.WriteAt(make([]byte, info.Size()), 0)
			require.NoError(t, err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "m.gguf")
	second := filepath.Join(dir, "m-00002-of-00002.gguf")
	o := SplitOptions{MaxTensors: 1}

	// A part that is there already is not replaced, and nothing is left behind.
	require.NoError(t, os.WriteFile(second, []byte("old"), 0o666))
	w := createSplit(t, path, o)
	require.ErrorIs(t, w.Begin(nil, infos), fsx.ErrExists)
	require.Equal(t, []string{"m-00002-of-00002.gguf"}, tensortest.Files(t, dir))

	// The same if it turns up while the others are being written.
	require.NoError(t, os.Remove(second))
	w = createSplit(t, path, o)
	write(w)
	require.Len(t, tensortest.Files(t, dir), 2, "both have temporary names")
	first := filepath.Join(dir, "m-00001-of-00002.gguf")
	require.NoError(t, os.WriteFile(first, []byte("old"), 0o666))
	require.ErrorIs(t, w.Finish(), fsx.ErrExists)
	require.Equal(t, []string{"m-00001-of-00002.gguf"}, tensortest.Files(t, dir))
	b, err := os.ReadFile(first)
	require.NoError(t, err)
	require.Equal(t, "old", string(b))

	// With force it is.
	w, err = CreateSplit(path, o, true)
	require.NoError(t, err)
	write(w)
	b, err = os.ReadFile(first)
	require.NoError(t, err)
	require.Equal(t, "old", string(b), "the old file stays until the new ones are whole")
	require.NoError(t, w.Finish())
	require.Equal(t, []string{"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}, tensortest.Files(t, dir))
	f, err := Open(first)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	// Where nothing can be written, nothing is.
	w = createSplit(t, filepath.Join(dir, "none", "m.gguf"), o)
	require.ErrorIs(t, w.Begin(nil, infos), os.ErrNotExist)
}

func TestSplitOrderOfCalls(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.gguf")
	w := createSplit(t, path, SplitOptions{MaxTensors: 1})
	_, err := w.Body(0)
	require.Error(t, err)
	require.Error(t, w.Finish())
	require.NoError(t, w.Begin(nil, everyShape[:2]))
	for _, i := range []int{-1, 2} {
		_, err = w.Body(i)
		require.Error(t, err)
	}
	require.Error(t, w.Begin(nil, everyShape[:2]))
	require.Empty(t, tensortest.Files(t, dir))
}

func TestSplitBeginRefuses(t *testing.T) {
	f32 := func(name string) tensor.Info {
		return tensor.Info{Name: name, DType: tensor.F32, Shape: tensor.Shape{0}}
	}
	many := make([]tensor.Info, math.MaxUint16+1)
	for i := range many {
		many[i] = f32(fmt.Sprint(i))
	}
	for name, c := range map[string]struct {
		meta   tensor.Meta
		layout []tensor.Info
		kind   error
		says   []string
	}{
		"a name twice, in two parts": {nil, []tensor.Info{f32("w"), f32("w")}, tensor.ErrMalformed, []string{"m.gguf: ", `"w"`, "twice"}},
		"no dtype":                   {nil, []tensor.Info{{Name: "w", DType: 200}}, tensor.ErrUnsupported, []string{"m.gguf: ", `"w"`}},
		"bad in the second part":     {nil, []tensor.Info{f32("v"), {Name: "w", DType: tensor.U8}}, tensor.ErrUnsupported, []string{"m-00002-of-00002.gguf: ", `"w"`}},
		"bad metadata":               {tensor.Meta{{Key: "k", Value: 1}}, []tensor.Info{f32("v"), f32("w")}, tensor.ErrUnsupported, []string{"m-00001-of-00002.gguf: ", `"k"`}},
		"65536 parts":                {nil, many, tensor.ErrUnsupported, []string{"m.gguf: ", "65536 parts", "65535"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := createSplit(t, filepath.Join(dir, "m.gguf"), SplitOptions{MaxTensors: 1})
			err := w.Begin(c.meta, c.layout)
			require.ErrorIs(t, err, c.kind)
			for _, s := range c.says {
				require.ErrorContains(t, err, s)
			}
			require.Empty(t, tensortest.Files(t, dir))
			require.NoError(t, w.Abort())
		})
	}
}
