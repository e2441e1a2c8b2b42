package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

const (
	checkpoints = "../../formats/torch/testdata"
	models      = "../../formats/hf/testdata"
)

func openInput(t *testing.T, path string) *formats.Input {
	t.Helper()
	in, err := formats.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, in.Close()) })
	return in
}

// requireSame checks that two inputs have the same tensors, bytes and all.
func requireSame(t *testing.T, want, got tensor.Source) {
	t.Helper()
	n := 0
	for info := range want.All() {
		n++
		other, err := got.Info(info.Name)
		require.NoError(t, err)
		require.Equal(t, info, other)
		require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name), "%s", info.Name)
	}
	for range got.All() {
		n--
	}
	require.Zero(t, n)
}

// TestPyTorchFiles converts checkpoints to safetensors, and says what is not
// among the tensors.
func TestPyTorchFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"training.pth", "legacy_training.bin", "views.pt", "dtypes.pt", "big_endian.pt"} {
		in, out := filepath.Join(checkpoints, name), filepath.Join(dir, name+".safetensors")
		require.Contains(t, ok(t, "verify", in), "PyTorch checkpoint, sound", name)
		text := ok(t, "convert", in, out)
		requireSame(t, openInput(t, in), openInput(t, out))
		if name == "training.pth" {
			require.Contains(t, text, "the tensors are those in model\n")
			require.Contains(t, text, "not read: model.version, epoch, global_step, best, big, minus, and 15 more\n")
		}
	}
	var r inspectResult
	okJSON(t, &r, "inspect", filepath.Join(checkpoints, "training.pth"))
	require.Equal(t, "PyTorch checkpoint", r.Format)
	require.Equal(t, "model", r.Nested)
	require.Contains(t, r.NotRead, "optimizer")
	require.EqualValues(t, 58, r.Parameters)

	ok(t, "convert", filepath.Join(checkpoints, "module.bin"), filepath.Join(dir, "half.safetensors"), "--outtype", "f16")
	info, err := openInput(t, filepath.Join(dir, "half.safetensors")).Info("head.weight")
	require.NoError(t, err)
	require.Equal(t, tensor.F16, info.DType)
	info, err = openInput(t, filepath.Join(dir, "half.safetensors")).Info("ids")
	require.NoError(t, err)
	require.Equal(t, tensor.I64, info.DType)

	o := nibble(t, "inspect", filepath.Join(checkpoints, "refused/class.pt"))
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stderr, `"argparse.Namespace"`)
	require.Contains(t, o.stderr, "nothing of it is executed\nhint: ")
	o = nibble(t, "convert", filepath.Join(checkpoints, "module.bin"), filepath.Join(dir, "model"))
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.stderr, "can only become a .safetensors file")
}

// TestShardsStay converts sharded directories: their shards stay what they are
// unless another size is asked for.
func TestShardsStay(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	shards := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
	want := openInput(t, filepath.Join(models, "sharded"))
	for _, name := range []string{"sharded", "pickled"} {
		ok(t, "convert", filepath.Join(models, name), at(name))
		got := openInput(t, at(name))
		require.Equal(t, want.HF.Shards(), got.HF.Shards(), name)
		requireSame(t, want, got)
		for _, s := range shards {
			require.FileExists(t, filepath.Join(at(name), s))
		}
	}
	ok(t, "convert", at("sharded"), at("f32"), "--outtype", "f32")
	require.Equal(t, want.HF.Shards(), openInput(t, at("f32")).HF.Shards())
	ok(t, "convert", at("sharded"), at("one"), "--max-shard-size", "1MB")
	require.NoFileExists(t, filepath.Join(at("one"), shards[0]))

	require.NoError(t, os.WriteFile(filepath.Join(at("sharded"), "consolidated.safetensors"), []byte("the same again"), 0o666))
	require.Contains(t, ok(t, "inspect", at("sharded")), "\n  not read      consolidated.safetensors\n")
	require.Contains(t, ok(t, "convert", at("sharded"), at("again")), "\n  not read: consolidated.safetensors\n")
	require.NoFileExists(t, filepath.Join(at("again"), "consolidated.safetensors"))
}

func TestListed(t *testing.T) {
	require.Equal(t, `a, "\x1b[2J", é`, listed([]string{"a", "\x1b[2J", "é"}))
	require.Equal(t, "a, a, a, a, a, a, and 2 more", listed(strings.Split("aaaaaaaa", "")))
}
