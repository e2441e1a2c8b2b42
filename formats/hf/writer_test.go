package hf

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// tree lists everything under a directory.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	list := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			list = append(list, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	}))
	return list
}

var configFile = []SideFile{{Name: ConfigName, Data: []byte("{}\n")}}

func create(t testing.TB, dir string, o Options) *Writer {
	t.Helper()
	if o.Files == nil {
		o.Files = configFile
	}
	w, err := Create(dir, o)
	require.NoError(t, err)
	return w
}

func u8(name string, n int64) tensor.Info {
	return tensor.Info{Name: name, DType: tensor.U8, Shape: tensor.Shape{n}}
}

// write stores tensors of zeros in a new directory and returns its path.
func write(t testing.TB, o Options, meta tensor.Meta, layout ...tensor.Info) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	w := create(t, dir, o)
	require.NoError(t, w.Begin(meta, layout))
	fill(t, w, layout)
	require.NoError(t, w.Finish())
	return dir
}

func fill(t testing.TB, w *Writer, layout []tensor.Info) {
	t.Helper()
	for i, info := range layout {
		b, err := w.Body(i)
		require.NoError(t, err)
		n := info.Size()
		if info.Late() {
			n = 10
		}
		_, err = b.WriteAt(make([]byte, n), 0)
		require.NoError(t, err)
	}
}

func TestSink(t *testing.T) {
	layout := []tensor.Info{
		{Name: "a.weight", DType: tensor.BF16, Shape: tensor.Shape{3, 5}},
		{Name: "odd", DType: tensor.U8, Shape: tensor.Shape{7}},
		{Name: "b.weight", DType: tensor.F32, Shape: tensor.Shape{4, 4}},
		{Name: "a.weight.absmax", DType: tensor.F32, Shape: tensor.Shape{2}},
		{Name: "empty", DType: tensor.F32, Shape: tensor.Shape{0}},
		{Name: "c", DType: tensor.F64, Shape: tensor.Shape{}},
	}
	kept := map[string]string{"a.weight": "b.safetensors", "odd": "a.safetensors", "b.weight": "b.safetensors", "empty": "c.safetensors", "c": "a.safetensors",
		"late.a": "c.safetensors", "late.b": "a.safetensors"}
	for name, o := range map[string]Options{
		"default": {}, "alone": {MaxShardSize: 1}, "few": {MaxShardSize: 40}, "one": {MaxShardSize: 70000}, "kept": {Shards: kept},
	} {
		t.Run(name, func(t *testing.T) {
			tensortest.TestSink(t, func(t *testing.T) tensortest.Store {
				dir := t.TempDir()
				out := filepath.Join(dir, "model")
				return tensortest.Store{
					Create: func() tensor.Sink { return create(t, out, o) },
					Open:   func() tensor.Source { return openDir(t, out) },
					Files:  func() []string { return tree(t, dir) },
					Late:   true,
				}
			}, tensor.Meta{{Key: "format", Value: "pt"}, {Key: "made by", Value: "a test"}}, layout)
		})
	}
}

func TestShards(t *testing.T) {
	shard := func(dir, name string) []string {
		f, err := safetensors.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		defer f.Close()
		format, _ := f.Meta().Get("format")
		require.Equal(t, "pt", format)
		return names(f)
	}
	dir := write(t, Options{MaxShardSize: 10}, nil, u8("a", 4), u8("b", 6), u8("c", 1), u8("d", 25), u8("e", 10))
	require.Equal(t, []string{
		"config.json", "model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
		"model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors", "model.safetensors.index.json",
	}, tree(t, dir))
	require.Equal(t, []string{"a", "b"}, shard(dir, "model-00001-of-00004.safetensors"))
	require.Equal(t, []string{"c"}, shard(dir, "model-00002-of-00004.safetensors"))
	require.Equal(t, []string{"d"}, shard(dir, "model-00003-of-00004.safetensors"), "a tensor larger than a shard is alone")
	require.Equal(t, []string{"e"}, shard(dir, "model-00004-of-00004.safetensors"))
	require.Equal(t, `{
  "metadata": {
    "total_size": 46
  },
  "weight_map": {
    "a": "model-00001-of-00004.safetensors",
    "b": "model-00001-of-00004.safetensors",
    "c": "model-00002-of-00004.safetensors",
    "d": "model-00003-of-00004.safetensors",
    "e": "model-00004-of-00004.safetensors"
  }
}
`, get(t, dir, IndexName))

	dir = write(t, Options{MaxShardSize: 46}, nil, u8("a", 4), u8("b", 42))
	require.Equal(t, []string{"config.json", "model.safetensors"}, tree(t, dir), "one shard needs no index")
	require.Equal(t, []string{"a", "b"}, shard(dir, WeightsName))
}

// TestIndexIsSorted also counts late tensors by their true length.
func TestIndexIsSorted(t *testing.T) {
	dir := write(t, Options{MaxShardSize: 1}, nil, u8("z", 3), tensor.NewLate("m"), u8("a", 2))
	var ix struct {
		Metadata  struct{ Total_size int64 }
		WeightMap json.RawMessage `json:"weight_map"`
	}
	require.NoError(t, json.Unmarshal([]byte(get(t, dir, IndexName)), &ix))
	require.EqualValues(t, 3+10+2, ix.Metadata.Total_size)
	require.JSONEq(t, `{"a":"model-00003-of-00003.safetensors","m":"model-00002-of-00003.safetensors","z":"model-00001-of-00003.safetensors"}`, string(ix.WeightMap))
	require.True(t, strings.Index(string(ix.WeightMap), `"a"`) < strings.Index(string(ix.WeightMap), `"z"`))
	require.Equal(t, []string{"z", "m", "a"}, names(openDir(t, dir)))
}

func TestGroupsStayTogether(t *testing.T) {
	layout := []tensor.Info{
		u8("m.0.weight", 50), u8("m.1.weight", 50), u8("m.0.weight.absmax", 4),
		tensor.NewLate("m.0.weight.quant_state.bitsandbytes__nf4"), u8("m.0.weight2", 50), u8("m.1.weight.quant_map", 16),
	}
	require.Equal(t, [][]int{{0, 2, 3}, {1, 5}, {4}}, split(layout, 60))
	require.Equal(t, [][]int{{0, 2, 3}, {1, 5, 4}}, split(layout, 120), "late tensors count at their largest")
	require.Equal(t, [][]int{{0, 2, 3, 1, 5, 4}}, split(layout, math.MaxInt64))
	huge := u8("h", math.MaxInt64)
	require.Equal(t, [][]int{{0, 1}, {2}}, split([]tensor.Info{huge, u8("h.x", 1), u8("y", 1)}, math.MaxInt64))

	dir := write(t, Options{MaxShardSize: 60}, nil, layout...)
	d := openDir(t, dir)
	require.Len(t, d.shards, 3)
	require.ElementsMatch(t, []string{"m.0.weight", "m.0.weight.absmax", "m.0.weight.quant_state.bitsandbytes__nf4"}, names(d.shards[0]))
}

func TestFormatIsKept(t *testing.T) {
	d := openDir(t, write(t, Options{}, tensor.Meta{{Key: "a", Value: "b"}}, u8("x", 1)))
	require.Equal(t, tensor.Meta{{Key: "format", Value: "pt"}, {Key: "a", Value: "b"}}, d.Meta())
	d = openDir(t, write(t, Options{}, tensor.Meta{{Key: "format", Value: "mlx"}}, u8("x", 1)))
	require.Equal(t, tensor.Meta{{Key: "format", Value: "mlx"}}, d.Meta())
}

func TestFilesAreCarriedOver(t *testing.T) {
	src := openDir(t, modelDir(t))
	put(t, src.Path(), "tokenizer.model", "\x00\x01binary")
	side, err := src.SideFiles()
	require.NoError(t, err)
	config, err := Edit(src.Config(), []Field{{"dtype", []byte(`"float32"`)}}, nil)
	require.NoError(t, err)
	dir := write(t, Options{Files: append(side, SideFile{Name: ConfigName, Data: config})}, nil, u8("x", 1))
	require.Equal(t, []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.model"}, tree(t, dir))
	require.Equal(t, "\x00\x01binary", get(t, dir, "tokenizer.model"))
	require.Equal(t, string(config), get(t, dir, ConfigName))
}

func TestCreateErrors(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "out")
	for name, files := range map[string][]SideFile{
		"no config":         {{Name: "tokenizer.json"}},
		"given twice":       {{Name: ConfigName}, {Name: ConfigName}},
		"not a plain":       {{Name: ConfigName}, {Name: "../x"}},
		"weights":           {{Name: ConfigName}, {Name: WeightsName}},
		"written as tensor": {{Name: ConfigName}, {Name: IndexName}},
		"no such file":      {{Name: ConfigName}, {Name: "x", From: filepath.Join(parent, "none")}},
		"not a regular":     {{Name: ConfigName}, {Name: "x", From: parent}},
	} {
		_, err := Create(dir, Options{Files: files})
		require.ErrorContains(t, err, name)
		require.Empty(t, tree(t, parent), "%s", name)
	}
}

func TestBeginErrors(t *testing.T) {
	for name, layout := range map[string][]tensor.Info{
		"no tensors":             nil,
		`"q"`:                    {u8("a", 1), {Name: "q", DType: tensor.Q4_0, Shape: tensor.Shape{32}}},
		`"dup"`:                  {u8("dup", 1), u8("a", 20), u8("dup", 1)},
		`"bad"`:                  {{Name: "bad", DType: tensor.DType(250), Shape: tensor.Shape{1}}},
		"has a negative":         {{Name: "a", DType: tensor.U8, Shape: tensor.Shape{-2}}},
		"free":                   {u8("a", 1), u8("b", 1<<60)},
		"more bytes than 64 bit": {u8("a", math.MaxInt64), u8("a.x", 1)},
	} {
		parent := t.TempDir()
		w := create(t, filepath.Join(parent, "out"), Options{MaxShardSize: 10})
		err := w.Begin(nil, layout)
		require.ErrorContains(t, err, name)
		require.Empty(t, tree(t, parent), "%s", name)
		require.NoError(t, w.Abort())
	}
	w := create(t, filepath.Join(t.TempDir(), "out"), Options{})
	require.ErrorIs(t, w.Begin(tensor.Meta{{Key: "n", Value: 1}}, []tensor.Info{u8("a", 1)}), tensor.ErrUnsupported)
}

// TestInterrupted aborts half-way and finishes incomplete.
func TestInterrupted(t *testing.T) {
	for _, end := range []func(w *Writer) error{(*Writer).Abort, (*Writer).Finish} {
		parent := t.TempDir()
		w := create(t, filepath.Join(parent, "out"), Options{MaxShardSize: 10})
		require.NoError(t, w.Begin(nil, []tensor.Info{u8("a", 10), u8("b", 10), u8("c", 10)}))
		require.NotEmpty(t, tree(t, parent))
		b, err := w.Body(0)
		require.NoError(t, err)
		_, err = b.WriteAt(make([]byte, 10), 0)
		require.NoError(t, err)
		_, err = w.Body(3)
		require.ErrorContains(t, err, "body 3 of 3")
		end(w)
		require.Empty(t, tree(t, parent))
	}
}

func TestForce(t *testing.T) {
	layout := []tensor.Info{u8("a", 1)}
	old := write(t, Options{}, nil, u8("old", 1))
	_, err := Create(old, Options{Files: configFile})
	require.ErrorIs(t, err, fsx.ErrExists)

	w := create(t, old, Options{Force: true})
	require.NoError(t, w.Begin(nil, layout))
	fill(t, w, layout)
	require.Equal(t, []string{"old"}, names(openDir(t, old)), "the old one stays until the new one is whole")
	require.NoError(t, w.Finish())
	require.Equal(t, []string{"a"}, names(openDir(t, old)))
	require.Len(t, tree(t, filepath.Dir(old)), 3, "directory, config, weights")

	for _, ours := range []string{ConfigName, "adapter_config.json", "x.safetensors"} {
		dir := t.TempDir()
		put(t, dir, ours, "x")
		w, err := Create(dir, Options{Force: true, Files: configFile})
		require.NoError(t, err, "%s", ours)
		require.NoError(t, w.Abort())
		require.Equal(t, []string{ours}, tree(t, dir))
	}

	home := t.TempDir()
	put(t, home, "letter.txt", "dear")
	_, err = Create(home, Options{Force: true, Files: configFile})
	require.ErrorIs(t, err, fsx.ErrExists)
	require.ErrorContains(t, err, "--force does not replace it")
	require.Equal(t, []string{"letter.txt"}, tree(t, home))

	empty := t.TempDir()
	w = create(t, empty, Options{})
	require.NoError(t, w.Begin(nil, layout))
	fill(t, w, layout)
	require.NoError(t, w.Finish())
	require.Equal(t, []string{"a"}, names(openDir(t, empty)))

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err = Create(file, Options{Force: true, Files: configFile})
	require.Error(t, err)
}

// TestCopyOfGolden writes the golden's tensors in its own shards' order and
// gets the same shards.
func TestCopyOfGolden(t *testing.T) {
	src := openDir(t, "testdata/sharded")
	dir := filepath.Join(t.TempDir(), "out")
	tensortest.Copy(t, src, create(t, dir, Options{MaxShardSize: 1500}))
	for _, name := range []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} {
		require.Equal(t, get(t, "testdata/sharded", name), get(t, dir, name))
	}
	want := strings.Replace(get(t, "testdata/sharded", IndexName), "    \"total_parameters\": 1176,\n", "", 1)
	require.Equal(t, want, get(t, dir, IndexName))
}

// TestShardsAreKept writes models into the shards that they were in.
func TestShardsAreKept(t *testing.T) {
	shards := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
	for _, from := range []string{"testdata/sharded", "testdata/pickled"} {
		src := openDir(t, from)
		dir := filepath.Join(t.TempDir(), "out")
		tensortest.Copy(t, src, create(t, dir, Options{Shards: src.Shards()}))
		require.Equal(t, append([]string{ConfigName}, append(shards, IndexName)...), tree(t, dir))
		want := openDir(t, "testdata/sharded")
		got := openDir(t, dir)
		require.Equal(t, want.Shards(), got.Shards())
		for info := range want.All() {
			require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name))
		}
		if from == "testdata/sharded" {
			for _, name := range shards {
				require.Equal(t, get(t, from, name), get(t, dir, name))
			}
		}
	}

	// The size that is asked for counts.
	src := openDir(t, "testdata/sharded")
	dir := filepath.Join(t.TempDir(), "out")
	tensortest.Copy(t, src, create(t, dir, Options{Shards: src.Shards(), MaxShardSize: 1 << 20}))
	require.Equal(t, []string{ConfigName, WeightsName}, tree(t, dir))

	one := pickled(t)
	require.NoError(t, os.Rename(filepath.Join(one, "pytorch_model-00002-of-00002.bin"), filepath.Join(one, "pytorch_model.bin")))
	for name, file := range openDir(t, one).Shards() {
		require.Equal(t, WeightsName, file, "%s", name)
	}
}

// TestShardsOfAnyName keeps names that have no numbers, and the parts of a
// quantized weight beside it.
func TestShardsOfAnyName(t *testing.T) {
	dir := write(t, Options{Shards: map[string]string{"a.weight": "odd.safetensors", "b": "even.safetensors", "c": "odd.safetensors", "gone": "x.safetensors"}}, nil,
		u8("b", 2), u8("a.weight", 1), u8("a.weight.absmax", 3), u8("c", 4))
	require.Equal(t, []string{ConfigName, "even.safetensors", IndexName, "odd.safetensors"}, tree(t, dir))
	d := openDir(t, dir)
	require.Equal(t, []string{"b", "a.weight", "a.weight.absmax", "c"}, names(d))
	require.Equal(t, []string{"a.weight", "a.weight.absmax", "c"}, names(d.shards[1]))

	dir = write(t, Options{Shards: map[string]string{"a": "model-00001-of-00001.safetensors"}}, nil, u8("a", 1))
	require.Equal(t, []string{ConfigName, "model-00001-of-00001.safetensors", IndexName}, tree(t, dir), "one shard of another name has an index")
	require.Equal(t, []string{"a"}, names(openDir(t, dir)))

	for says, files := range map[string]map[string]string{
		`tensor "b": no shard is said for it`: {"a": "x.safetensors"},
		`shard "../x.safetensors"`:            {"a": "../x.safetensors", "b": "y.safetensors"},
		`shard "x.bin"`:                       {"a": "x.bin", "b": "y.safetensors"},
		"differ only in case":                 {"a": "x.safetensors", "b": "X.safetensors"},
		"must hold all tensors":               {"a": WeightsName, "b": "y.safetensors"},
	} {
		parent := t.TempDir()
		w := create(t, filepath.Join(parent, "out"), Options{Shards: files})
		require.ErrorContains(t, w.Begin(nil, []tensor.Info{u8("a", 1), u8("b", 1)}), says)
		require.Empty(t, tree(t, parent))
	}
}

func TestNamesAsSafetensors(t *testing.T) {
	for name, want := range map[string]string{
		"pytorch_model.bin": WeightsName, "pytorch_model-00001-of-00003.bin": "model-00001-of-00003.safetensors",
		"weights.bin": "weights.safetensors", "model.bin": "pytorch_model.safetensors",
	} {
		require.Equal(t, want, layouts[1].asSafetensors(name))
	}
	for _, name := range []string{WeightsName, "model-00001-of-00003.safetensors", "weights.safetensors"} {
		require.Equal(t, name, layouts[0].asSafetensors(name))
	}
}
