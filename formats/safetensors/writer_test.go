package safetensors

import (
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

func create(t testing.TB, path string) *Writer {
	t.Helper()
	w, err := Create(path, false)
	require.NoError(t, err)
	return w
}

func open(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// everything is one tensor of each dtype, the narrow ones first, and shapes
// that could trip a writer.
func everything() []tensor.Info {
	var layout []tensor.Info
	for d := tensor.Bool; d <= tensor.U64; d++ {
		layout = append(layout, tensor.Info{Name: "t." + d.String(), DType: d, Shape: tensor.Shape{3, 4}})
	}
	return append(layout,
		tensor.Info{Name: "empty", DType: tensor.F32, Shape: tensor.Shape{0, 7}},
		tensor.Info{Name: "odd \"\\\n\u00e9\U0001f600", DType: tensor.U8, Shape: tensor.Shape{3}},
		tensor.Info{Name: "scalar", DType: tensor.F32, Shape: tensor.Shape{}},
	)
}

func TestSink(t *testing.T) {
	tensortest.TestSink(t, func(t *testing.T) tensortest.Store {
		dir := t.TempDir()
		path := filepath.Join(dir, "model.safetensors")
		return tensortest.Store{
			Create: func() tensor.Sink { return create(t, path) },
			Open:   func() tensor.Source { return open(t, path) },
			Files:  func() []string { return tensortest.Files(t, dir) },
			Late:   true,
		}
	}, tensor.Meta{{Key: "format", Value: "pt"}, {Key: "a", Value: "\"\n\u00e9"}}, everything())
}

// TestSameBytesAsReference writes what the reference wrote, in its order.
func TestSameBytesAsReference(t *testing.T) {
	for _, name := range []string{"dtypes.safetensors", "shapes.safetensors"} {
		src := open(t, filepath.Join("testdata", name))
		path := filepath.Join(t.TempDir(), name)
		w := create(t, path)
		layout := slices.Collect(src.All())
		require.NoError(t, w.Begin(src.Meta(), layout))
		fill(t, w, layout, func(i int) []byte { return tensortest.Bytes(t, src, layout[i].Name) })
		require.NoError(t, w.Finish())
		want, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, got, "%s", name)
	}
}

func fill(t testing.TB, w *Writer, layout []tensor.Info, data func(i int) []byte) {
	t.Helper()
	for i := range layout {
		b, err := w.Body(i)
		require.NoError(t, err)
		_, err = b.WriteAt(data(i), 0)
		require.NoError(t, err)
	}
}

// TestOrderAligns checks that every tensor is at a multiple of its element's
// size, in the file too, and that tensors of one size keep their order.
func TestOrderAligns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	w := create(t, path)
	layout := everything()
	require.NoError(t, w.Begin(nil, layout))
	fill(t, w, layout, func(i int) []byte { return make([]byte, layout[i].Size()) })
	require.NoError(t, w.Finish())

	b, err := os.ReadFile(path)
	require.NoError(t, err)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	h, err := readHeader(f, int64(len(b)))
	require.NoError(t, err)
	require.Zero(t, h.start%8)
	at := make(map[int64]int)
	for _, p := range h.tensors {
		elems, size := p.info.DType.Block()
		if elems == 1 {
			require.Zero(t, p.begin%size, "%v", p.info)
		} else {
			size = 1
		}
		i := slices.IndexFunc(layout, func(x tensor.Info) bool { return x.Name == p.info.Name })
		require.GreaterOrEqual(t, i, at[size], "%v", p.info)
		at[size] = i
	}
	require.Equal(t, w.Size(), int64(len(b))-h.start)
}

// TestLateTensorsAreAlwaysLast writes late tensors of every length of number
// that the header can need for them.
func TestLateTensorsAreAlwaysLast(t *testing.T) {
	for _, n := range []int{0, 1, 9, 10, 999, 1000, tensor.MaxLate} {
		path := filepath.Join(t.TempDir(), "model.safetensors")
		w := create(t, path)
		layout := []tensor.Info{
			tensor.NewLate("x.quant_state"),
			{Name: "x", DType: tensor.U8, Shape: tensor.Shape{5}},
			tensor.NewLate("y.quant_state"),
			{Name: "y", DType: tensor.F32, Shape: tensor.Shape{2}},
		}
		data := [][]byte{make([]byte, n), []byte("five!"), []byte(`{"a": 1}`), []byte("12345678")}
		for i := range data[0] {
			data[0][i] = byte(i)
		}
		require.NoError(t, w.Begin(nil, layout))
		fill(t, w, layout, func(i int) []byte { return data[i] })
		require.NoError(t, w.Finish())

		f := open(t, path)
		tensortest.TestSource(t, f)
		var names []string
		for info := range f.All() {
			names = append(names, info.Name)
		}
		require.Equal(t, []string{"y", "x", "x.quant_state", "y.quant_state"}, names)
		for i, info := range layout {
			require.Equal(t, data[i], tensortest.Bytes(t, f, info.Name))
		}
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, w.start+w.Size(), st.Size())
		require.Zero(t, w.start%8)
	}
}

func TestLateTensorErrors(t *testing.T) {
	dir := t.TempDir()
	w := create(t, filepath.Join(dir, "model.safetensors"))
	require.NoError(t, w.Begin(nil, []tensor.Info{tensor.NewLate("x")}))
	b, err := w.Body(0)
	require.NoError(t, err)
	_, err = b.WriteAt([]byte{1}, tensor.MaxLate)
	require.ErrorContains(t, err, `"x"`)
	_, err = b.WriteAt([]byte{1}, 7)
	require.NoError(t, err)
	require.ErrorContains(t, w.Finish(), `tensor "x": 1 of 8 bytes have been written`)
	require.Empty(t, tensortest.Files(t, dir))
}

func TestBeginErrors(t *testing.T) {
	sound := []tensor.Info{{Name: "a", DType: tensor.U8, Shape: tensor.Shape{1}}}
	with := func(i tensor.Info) []tensor.Info { return append(slices.Clone(sound), i) }
	for name, c := range map[string]struct {
		meta   tensor.Meta
		layout []tensor.Info
		kind   error
		want   string
	}{
		"metadata not a string": {tensor.Meta{{Key: "k", Value: uint32(1)}}, sound, tensor.ErrUnsupported, `metadata "k"`},
		"metadata key twice":    {tensor.Meta{{Key: "k", Value: "1"}, {Key: "k", Value: "1"}}, sound, tensor.ErrMalformed, `metadata "k"`},
		"metadata not utf-8":    {tensor.Meta{{Key: "k", Value: "\xff"}}, sound, tensor.ErrUnsupported, `metadata "k"`},
		"metadata key bad":      {tensor.Meta{{Key: "\xff", Value: ""}}, sound, tensor.ErrUnsupported, `metadata "\xff"`},
		"name of the metadata":  {nil, with(tensor.Info{Name: metadataKey, DType: tensor.U8, Shape: tensor.Shape{1}}), tensor.ErrUnsupported, metadataKey},
		"name not utf-8":        {nil, with(tensor.Info{Name: "\xff", DType: tensor.U8, Shape: tensor.Shape{1}}), tensor.ErrUnsupported, `tensor "\xff"`},
		"name twice":            {nil, with(sound[0]), tensor.ErrMalformed, `tensor "a"`},
		"ggml type":             {nil, with(tensor.Info{Name: "q", DType: tensor.Q4_0, Shape: tensor.Shape{32}}), tensor.ErrUnsupported, `tensor "q"`},
		"opaque type":           {nil, with(tensor.NewOpaque("q", tensor.NF4, tensor.Shape{32}, 16)), tensor.ErrUnsupported, `tensor "q"`},
		"no dtype":              {nil, with(tensor.Info{Name: "q", Shape: tensor.Shape{1}}), tensor.ErrUnsupported, `tensor "q"`},
		"negative extent":       {nil, with(tensor.Info{Name: "q", DType: tensor.U8, Shape: tensor.Shape{2, -1}}), tensor.ErrMalformed, `tensor "q"`},
		"part of a byte":        {nil, with(tensor.Info{Name: "q", DType: tensor.F4, Shape: tensor.Shape{1}}), tensor.ErrMalformed, `tensor "q"`},
		"more than fits":        {nil, with(tensor.Info{Name: "q", DType: tensor.U8, Shape: tensor.Shape{math.MaxInt64}}), tensor.ErrUnsupported, "64 bits"},
		"header too long":       {tensor.Meta{{Key: "k", Value: string(make([]byte, maxHeader/6+1))}}, sound, tensor.ErrUnsupported, "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := create(t, filepath.Join(dir, "model.safetensors"))
			err := w.Begin(c.meta, c.layout)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "model.safetensors: ")
			require.Empty(t, tensortest.Files(t, dir), "Begin leaves nothing behind")
			require.NoError(t, w.Abort())
		})
	}
}

func TestDiskTooSmall(t *testing.T) {
	dir := t.TempDir()
	w := create(t, filepath.Join(dir, "model.safetensors"))
	require.Error(t, w.Begin(nil, []tensor.Info{{Name: "a", DType: tensor.U8, Shape: tensor.Shape{1 << 60}}}))
	require.Empty(t, tensortest.Files(t, dir))
}

func TestCreateErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o666))
	_, err := Create(path, false)
	require.ErrorIs(t, err, fsx.ErrExists)
	_, err = Create(filepath.Join(dir, "none", "x"), false)
	require.Error(t, err)

	w, err := Create(path, true)
	require.NoError(t, err)
	require.NoError(t, w.Begin(nil, nil))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(b), "the old file stays until the new one is whole")
	require.NoError(t, w.Finish())
	require.Empty(t, slices.Collect(open(t, path).All()))
	_, err = w.Body(0)
	require.ErrorContains(t, err, "body 0 of 0")
}

func BenchmarkParse(b *testing.B) {
	var list []placed
	for i := range 10000 {
		list = append(list, placed{info: tensor.Info{Name: fmt.Sprintf("model.layers.%d.mlp.down_proj.weight", i), DType: tensor.BF16, Shape: tensor.Shape{0, 4096}}})
	}
	h, err := encodeHeader(nil, list, 0)
	require.NoError(b, err)
	b.SetBytes(int64(len(h)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(h); err != nil {
			b.Fatal(err)
		}
	}
}
