package hf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// modelDir returns a copy of the golden directory, to be broken.
func modelDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/sharded")))
	return dir
}

func openDir(t testing.TB, dir string) *Dir {
	t.Helper()
	d, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666))
}

func get(t testing.TB, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(b)
}

func remove(t testing.TB, dir, name string) {
	t.Helper()
	require.NoError(t, os.Remove(filepath.Join(dir, name)))
}

func names(src tensor.Source) []string {
	var list []string
	for info := range src.All() {
		list = append(list, info.Name)
	}
	return list
}

func TestGolden(t *testing.T) {
	var expect struct {
		Tensors map[string]struct {
			Shape  tensor.Shape
			SHA256 string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(get(t, "testdata", "expect.json")), &expect))
	d := openDir(t, "testdata/sharded")
	tensortest.TestSource(t, d)
	require.Len(t, names(d), len(expect.Tensors))
	for name, want := range expect.Tensors {
		info, err := d.Info(name)
		require.NoError(t, err)
		require.Equal(t, tensor.BF16, info.DType)
		require.Equal(t, want.Shape, info.Shape)
		sum := sha256.Sum256(tensortest.Bytes(t, d, name))
		require.Equal(t, want.SHA256, hex.EncodeToString(sum[:]), "%s", name)
	}
	require.Equal(t, tensor.Meta{{Key: "format", Value: "pt"}}, d.Meta())
	require.Equal(t, get(t, "testdata/sharded", ConfigName), string(d.Config()))
	require.Equal(t, "testdata/sharded", d.Path())
	side, err := d.SideFiles()
	require.NoError(t, err)
	require.Equal(t, []SideFile{{Name: "generation_config.json", From: "testdata/sharded/generation_config.json"}}, side)
}

// single turns the golden into a model of one file.
func single(t testing.TB, dir string) {
	t.Helper()
	require.NoError(t, os.Rename(filepath.Join(dir, "model-00002-of-00002.safetensors"), filepath.Join(dir, WeightsName)))
	remove(t, dir, "model-00001-of-00002.safetensors")
	remove(t, dir, IndexName)
}

func TestOneFile(t *testing.T) {
	dir := modelDir(t)
	single(t, dir)
	d := openDir(t, dir)
	tensortest.TestSource(t, d)
	require.Len(t, names(d), 8)
}

// TestOneFileGoesBeforeIndex is transformers' rule when both are there.
func TestOneFileGoesBeforeIndex(t *testing.T) {
	dir := modelDir(t)
	put(t, dir, WeightsName, get(t, dir, "model-00001-of-00002.safetensors"))
	require.Len(t, names(openDir(t, dir)), 13)
}

// TestIgnored lists the weights that are left alone: as Mistral publishes
// models, twice.
func TestIgnored(t *testing.T) {
	require.Empty(t, openDir(t, "testdata/sharded").Ignored())
	dir := modelDir(t)
	for _, name := range []string{
		"consolidated.safetensors", "consolidated.00.pth", "model-00003-of-00003.safetensors", "pytorch_model.bin",
		"pytorch_model.bin.index.json", "params.json",
	} {
		put(t, dir, name, "not even read")
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder.bin"), 0o777))
	d := openDir(t, dir)
	require.Equal(t, []string{
		"consolidated.00.pth", "consolidated.safetensors", "model-00003-of-00003.safetensors", "pytorch_model.bin",
	}, d.Ignored())
	require.Len(t, names(d), 21)
	side, err := d.SideFiles()
	require.NoError(t, err)
	require.Len(t, side, 2)

	single(t, dir)
	require.Equal(t, []string{
		"consolidated.00.pth", "consolidated.safetensors", "model-00003-of-00003.safetensors", "pytorch_model.bin",
	}, openDir(t, dir).Ignored())
}

// TestLinks reads a directory of the Hugging Face cache, whose files are links
// to blobs.
func TestLinks(t *testing.T) {
	blobs := modelDir(t)
	dir := filepath.Join(filepath.Dir(blobs), "snapshot")
	require.NoError(t, os.Mkdir(dir, 0o777))
	entries, err := os.ReadDir(blobs)
	require.NoError(t, err)
	for _, e := range entries {
		require.NoError(t, os.Symlink(filepath.Join("..", "model", e.Name()), filepath.Join(dir, e.Name())))
	}
	d := openDir(t, dir)
	tensortest.TestSource(t, d)
	side, err := d.SideFiles()
	require.NoError(t, err)
	require.Len(t, side, 1)

	remove(t, blobs, "generation_config.json")
	_, err = d.SideFiles()
	require.ErrorIs(t, err, os.ErrNotExist, "a link that leads nowhere is not passed over")

	remove(t, dir, "model-00001-of-00002.safetensors")
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, "model-00001-of-00002.safetensors")))
	_, err = Open(dir)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "not a regular file")
}

func TestSideFiles(t *testing.T) {
	dir := modelDir(t)
	for _, name := range []string{
		"tokenizer.model", "tokenizer.json", "chat_template.jinja", "LICENSE", "README.md",
		".gitattributes", "pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "model.GGUF",
		"pytorch_model.bin.index.json", "adapter_config.json", "tf_model.h5", "flax_model.msgpack",
	} {
		put(t, dir, name, "x")
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "onnx"), 0o777))
	side, err := openDir(t, dir).SideFiles()
	require.NoError(t, err)
	var got []string
	for _, f := range side {
		require.Equal(t, filepath.Join(dir, f.Name), f.From)
		got = append(got, f.Name)
	}
	require.Equal(t, []string{"LICENSE", "README.md", "chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer.model"}, got)
}

func TestOpenErrors(t *testing.T) {
	const shard1, shard2 = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	edit := func(t *testing.T, dir, old, new string) {
		text := get(t, dir, IndexName)
		require.Contains(t, text, old)
		put(t, dir, IndexName, strings.Replace(text, old, new, 1))
	}
	norm := `"model.norm.weight": "` + shard2 + `"`
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		kind  error
		want  string
		hint  string
	}{
		{"no directory", func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) }, os.ErrNotExist, "no such file", ""},
		{"a file", func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			put(t, filepath.Dir(dir), "model", "x")
		}, tensor.ErrMalformed, "not a directory", ""},
		{"no config", func(t *testing.T, dir string) { remove(t, dir, ConfigName) }, tensor.ErrMalformed, "no config.json", "save_pretrained"},
		{"an adapter", func(t *testing.T, dir string) {
			remove(t, dir, ConfigName)
			put(t, dir, "adapter_config.json", "{}")
		}, tensor.ErrMalformed, "no config.json", "adapter"},
		{"config is a directory", func(t *testing.T, dir string) {
			remove(t, dir, ConfigName)
			require.NoError(t, os.Mkdir(filepath.Join(dir, ConfigName), 0o777))
		}, tensor.ErrMalformed, "not a regular file", ""},
		{"config too large", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, ConfigName), maxConfig+1))
		}, tensor.ErrMalformed, "limit", ""},
		{"config empty", func(t *testing.T, dir string) { put(t, dir, ConfigName, "") }, tensor.ErrMalformed, "config.json: ", ""},
		{"config not an object", func(t *testing.T, dir string) { put(t, dir, ConfigName, "[]") }, tensor.ErrMalformed, "config.json: ", ""},
		{"config cut off", func(t *testing.T, dir string) { put(t, dir, ConfigName, `{"a": 1,`) }, tensor.ErrMalformed, "config.json: ", ""},
		{"config twice", func(t *testing.T, dir string) { put(t, dir, ConfigName, `{}{}`) }, tensor.ErrMalformed, "config.json: ", ""},
		{"config member twice", func(t *testing.T, dir string) { put(t, dir, ConfigName, `{"a":1,"a":1}`) }, tensor.ErrMalformed, `"a"`, ""},

		{"no weights", func(t *testing.T, dir string) {
			single(t, dir)
			remove(t, dir, WeightsName)
		}, tensor.ErrMalformed, "no weights; looked for model.safetensors, ", "weights"},
		{"another format only", func(t *testing.T, dir string) {
			single(t, dir)
			remove(t, dir, WeightsName)
			put(t, dir, "tf_model.h5", "x")
		}, tensor.ErrUnsupported, "weights in tf_model.h5, but in none of model.safetensors, ", "save_pretrained"},
		{"original weights only", func(t *testing.T, dir string) {
			single(t, dir)
			remove(t, dir, WeightsName)
			put(t, dir, "consolidated.00.pth", "x")
		}, tensor.ErrUnsupported, "weights in consolidated.00.pth", "the original weights"},
		{"GGUF only", func(t *testing.T, dir string) {
			single(t, dir)
			remove(t, dir, WeightsName)
			put(t, dir, "model.gguf", "x")
		}, tensor.ErrUnsupported, "weights in model.gguf", "give the .gguf file itself"},
		{"pickle that is none", func(t *testing.T, dir string) {
			single(t, dir)
			remove(t, dir, WeightsName)
			put(t, dir, "pytorch_model.bin", "x")
		}, tensor.ErrMalformed, "pytorch_model.bin: malformed input: not a PyTorch checkpoint", ""},
		{"no index", func(t *testing.T, dir string) { remove(t, dir, IndexName) }, tensor.ErrMalformed, "but no " + IndexName, "index"},
		{"weights lead nowhere", func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink("../blobs/none", filepath.Join(dir, WeightsName)))
		}, tensor.ErrMalformed, WeightsName + ": no such file", ""},
		{"weights without tensors", func(t *testing.T, dir string) {
			put(t, dir, WeightsName, "\x02\x00\x00\x00\x00\x00\x00\x00{}")
		}, tensor.ErrMalformed, "no tensors", ""},

		{"index not json", func(t *testing.T, dir string) { put(t, dir, IndexName, "{") }, tensor.ErrMalformed, IndexName + ": ", ""},
		{"index too large", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, IndexName), maxIndex+1))
		}, tensor.ErrMalformed, "limit", ""},
		{"no weight_map", func(t *testing.T, dir string) { put(t, dir, IndexName, `{"metadata":{}}`) }, tensor.ErrMalformed, "weight_map", ""},
		{"empty weight_map", func(t *testing.T, dir string) { put(t, dir, IndexName, `{"weight_map":{}}`) }, tensor.ErrMalformed, "weight_map", ""},
		{"weight_map not an object", func(t *testing.T, dir string) { put(t, dir, IndexName, `{"weight_map":["a"]}`) }, tensor.ErrMalformed, "weight_map", ""},
		{"shard not a string", func(t *testing.T, dir string) { put(t, dir, IndexName, `{"weight_map":{"a":1}}`) }, tensor.ErrMalformed, "weight_map", ""},
		{"tensor twice in the index", func(t *testing.T, dir string) { edit(t, dir, norm, norm+", "+norm) }, tensor.ErrMalformed, "model.norm.weight", ""},
		{"shard with a path", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": "sub/x.safetensors"`) }, tensor.ErrMalformed, `"sub/x.safetensors"`, ""},
		{"shard outside", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": "../x.safetensors"`) }, tensor.ErrMalformed, `"../x.safetensors"`, ""},
		{"shard with backslash", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": "..\\x.safetensors"`) }, tensor.ErrMalformed, `x.safetensors"`, ""},
		{"shard absolute", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": "/x.safetensors"`) }, tensor.ErrMalformed, `"/x.safetensors"`, ""},
		{"shard without a name", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": ""`) }, tensor.ErrMalformed, `model.norm.weight`, ""},
		{"shard is the parent", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": ".."`) }, tensor.ErrMalformed, `".."`, ""},
		{"shard of another format", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": "pytorch_model.bin"`) }, tensor.ErrMalformed, "pytorch_model.bin", ""},
		{"shard of another case", func(t *testing.T, dir string) {
			edit(t, dir, norm, `"model.norm.weight": "MODEL-00002-of-00002.safetensors"`)
		}, tensor.ErrMalformed, "shards MODEL-00002-of-00002.safetensors and " + shard2 + " differ only in case", ""},
		{"shard links to itself", func(t *testing.T, dir string) {
			remove(t, dir, shard1)
			require.NoError(t, os.Symlink(shard1, filepath.Join(dir, shard1)))
		}, tensor.ErrMalformed, shard1 + ": not read: a link that leads back to itself", ""},
		{"shards link in a circle", func(t *testing.T, dir string) {
			remove(t, dir, shard1)
			require.NoError(t, os.Symlink("a", filepath.Join(dir, shard1)))
			require.NoError(t, os.Symlink(shard1, filepath.Join(dir, "a")))
		}, tensor.ErrMalformed, "a link that leads back to itself", ""},
		{"index links to itself", func(t *testing.T, dir string) {
			remove(t, dir, IndexName)
			require.NoError(t, os.Symlink(IndexName, filepath.Join(dir, IndexName)))
		}, tensor.ErrMalformed, IndexName + ": not read: a link that leads back to itself", ""},
		{"config links to itself", func(t *testing.T, dir string) {
			remove(t, dir, ConfigName)
			require.NoError(t, os.Symlink(ConfigName, filepath.Join(dir, ConfigName)))
		}, tensor.ErrMalformed, ConfigName + ": not read: a link that leads back to itself", ""},
		{"shards link to each other", func(t *testing.T, dir string) {
			remove(t, dir, shard1)
			require.NoError(t, os.Symlink(shard2, filepath.Join(dir, shard1)))
		}, tensor.ErrMalformed, "is said to be in shard " + shard2 + " and is in " + shard1, ""},
		{"shard missing", func(t *testing.T, dir string) { remove(t, dir, shard2) }, tensor.ErrMalformed,
			IndexName + `: malformed input: shard ` + shard2 + ` is missing, tensor "lm_head.weight" is in it`, "missing"},
		{"shard truncated", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, shard1), 2000))
		}, tensor.ErrMalformed, shard1 + ": malformed input: truncated", "again"},
		{"shard is a directory", func(t *testing.T, dir string) {
			remove(t, dir, shard1)
			require.NoError(t, os.Mkdir(filepath.Join(dir, shard1), 0o777))
		}, tensor.ErrMalformed, "not a regular file", ""},
		{"tensor not in the index", func(t *testing.T, dir string) { edit(t, dir, `"lm_head.weight": "`+shard2+`",`, "") }, tensor.ErrMalformed,
			`tensor "lm_head.weight" of shard ` + shard2 + ` is not in the weight_map`, ""},
		{"tensor not in its shard", func(t *testing.T, dir string) { edit(t, dir, norm, norm+`, "more": "`+shard1+`"`) }, tensor.ErrMalformed,
			`tensor "more" is not in shard ` + shard1 + ` (1 of 22`, ""},
		{"tensor in another shard", func(t *testing.T, dir string) { edit(t, dir, norm, `"model.norm.weight": "`+shard1+`"`) }, tensor.ErrMalformed,
			`tensor "model.norm.weight" is said to be in shard ` + shard1 + ` and is in ` + shard2, ""},
		{"tensor in two shards", func(t *testing.T, dir string) {
			put(t, dir, "model-x.safetensors", get(t, dir, shard2))
			edit(t, dir, norm, norm+`, "more": "model-x.safetensors"`)
		}, tensor.ErrMalformed, "is said to be in shard " + shard2 + " and is in model-x.safetensors", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := modelDir(t)
			c.spoil(t, dir)
			_, err := Open(dir)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.want)
			require.True(t, strings.HasPrefix(err.Error(), dir) || strings.HasPrefix(err.Error(), "malformed input: "+dir), "%v", err)
			require.NotContains(t, err.Error(), "\n")
			require.Contains(t, hint.Of(err), c.hint)
		})
	}
}

// TestPickled reads the golden's model from the shards that transformers wrote
// before it wrote safetensors.
func TestPickled(t *testing.T) {
	want := openDir(t, "testdata/sharded")
	d := openDir(t, "testdata/pickled")
	tensortest.TestSource(t, d)
	require.ElementsMatch(t, names(want), names(d))
	for info := range want.All() {
		got, err := d.Info(info.Name)
		require.NoError(t, err)
		require.Equal(t, info, got)
		require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, d, info.Name), "%s", info.Name)
	}
	require.Equal(t, tensor.Meta{{Key: "format", Value: "pt"}}, d.Meta())
	require.Empty(t, d.Ignored())
	side, err := d.SideFiles()
	require.NoError(t, err)
	require.Equal(t, []SideFile{{Name: "generation_config.json", From: "testdata/pickled/generation_config.json"}}, side)
}

// pickled returns a copy of the golden with .bin shards.
func pickled(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/pickled")))
	return dir
}

// TestOrder checks which weights are taken if several are there, as
// transformers does.
func TestOrder(t *testing.T) {
	dir := pickled(t)
	require.Len(t, names(openDir(t, dir)), 21, "shards of pickles")
	put(t, dir, "pytorch_model.bin", get(t, dir, "pytorch_model-00002-of-00002.bin"))
	d := openDir(t, dir)
	require.Len(t, names(d), 8, "one file goes before an index")
	require.Equal(t, []string{"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"}, d.Ignored())
	for _, name := range []string{IndexName, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} {
		put(t, dir, name, get(t, "testdata/sharded", name))
	}
	require.Len(t, names(openDir(t, dir)), 21, "safetensors go before pickles")
	put(t, dir, WeightsName, get(t, dir, "model-00001-of-00002.safetensors"))
	require.Len(t, names(openDir(t, dir)), 13)
}

// TestPickledErrors spoils the directory of pickles: what is checked is the same.
func TestPickledErrors(t *testing.T) {
	const shard1, shard2, index = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"
	norm := `"model.norm.weight": "` + shard2 + `"`
	for _, c := range []struct {
		name       string
		old, new   string // in the index
		spoil      func(t *testing.T, dir string)
		kind       error
		want, hint string
	}{
		{"no index", "", "", func(t *testing.T, dir string) { remove(t, dir, index) }, tensor.ErrMalformed, "shards such as " + shard1 + ", but no " + index, "index"},
		{"shard absolute", norm, `"model.norm.weight": "/x.bin"`, nil, tensor.ErrMalformed, `"/x.bin"`, ""},
		{"shard outside", norm, `"model.norm.weight": "../x.bin"`, nil, tensor.ErrMalformed, `"../x.bin", which is not the name of a .bin file`, ""},
		{"shard of another format", norm, `"model.norm.weight": "x.safetensors"`, nil, tensor.ErrMalformed, `"x.safetensors"`, ""},
		{"shard of another case", norm, `"model.norm.weight": "pytorch_model-00002-OF-00002.bin"`, nil, tensor.ErrMalformed, "differ only in case", ""},
		{"shard missing", "", "", func(t *testing.T, dir string) { remove(t, dir, shard1) }, tensor.ErrMalformed, "shard " + shard1 + " is missing", "missing"},
		{"shard truncated", "", "", func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, shard1), 2000))
		}, tensor.ErrMalformed, shard1 + ": malformed input: truncated", "again"},
		{"tensor not in the index", `"lm_head.weight": "` + shard2 + `",`, "", nil, tensor.ErrMalformed, `tensor "lm_head.weight" of shard ` + shard2 + " is not in the weight_map", ""},
		{"tensor not in its shard", norm, norm + `, "more": "` + shard1 + `"`, nil, tensor.ErrMalformed, `tensor "more" is not in shard ` + shard1, ""},
		{"tensor in another shard", norm, `"model.norm.weight": "` + shard1 + `"`, nil, tensor.ErrMalformed, "is said to be in shard " + shard1 + " and is in " + shard2, ""},
		{"a program", "", "", func(t *testing.T, dir string) {
			put(t, dir, shard1, strings.Replace(get(t, dir, shard1), "collections\nOrderedDict\n", "builtins\neval\n))))))))))", 1))
		}, tensor.ErrUnsupported, `asks for "builtins.eval"`, "beware"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := pickled(t)
			if c.old != "" {
				text := get(t, dir, index)
				require.Contains(t, text, c.old)
				put(t, dir, index, strings.Replace(text, c.old, c.new, 1))
			}
			if c.spoil != nil {
				c.spoil(t, dir)
			}
			_, err := Open(dir)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.want)
			require.True(t, strings.HasPrefix(err.Error(), dir), "%v", err)
			require.Contains(t, hint.Of(err), c.hint)
		})
	}
}

// FuzzIndex opens the golden's shards through any index.
func FuzzIndex(f *testing.F) {
	f.Add(get(f, "testdata/sharded", IndexName))
	f.Add(`{"weight_map":{"a":"model-00001-of-00002.safetensors"}}`)
	f.Add(`{"weight_map":{"a":"../x.safetensors"}}`)
	f.Add(`{"weight_map":{"a":null},"metadata":[]}`)
	dir := modelDir(f)
	whole := names(openDir(f, dir))
	f.Fuzz(func(t *testing.T, text string) {
		put(t, dir, IndexName, text)
		d, err := Open(dir)
		if err != nil {
			return
		}
		defer d.Close()
		require.Subset(t, whole, names(d))
		tensortest.TestSource(t, d)
	})
}

func TestListed(t *testing.T) {
	tensors := []tensor.Info{u8("b", 90), u8("c", 10), u8("a", 80), u8("layers.2", 5), u8("layers.10", 5)}
	dir := write(t, Options{MaxShardSize: 100}, nil, tensors...)
	d := openDir(t, dir)
	require.Equal(t, []string{"b", "c", "a", "layers.10", "layers.2"}, d.Listed(), "by name in each shard")
	require.Equal(t, []string{"b", "c", "a", "layers.2", "layers.10"}, names(d), "as they lie there")
	require.Equal(t, []string{filepath.Join(dir, "model-00001-of-00002.safetensors"), filepath.Join(dir, "model-00002-of-00002.safetensors")}, d.Paths())

	pickled := openDir(t, "testdata/pickled")
	require.Equal(t, names(pickled), pickled.Listed(), "as they lie there")
	require.Len(t, pickled.Paths(), 2)
}
