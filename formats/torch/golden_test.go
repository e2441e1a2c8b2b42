package torch

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

type expectation struct {
	Nested  string
	Tensors []struct {
		Name, DType, SHA256 string
		Shape               tensor.Shape
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return b
}

func expectations(t testing.TB) map[string]expectation {
	t.Helper()
	var expect struct{ Files map[string]expectation }
	require.NoError(t, json.Unmarshal(readFile(t, "expect.json"), &expect))
	require.Len(t, expect.Files, 13)
	return expect.Files
}

func open(t testing.TB, name string) *File {
	t.Helper()
	f, err := Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// TestGolden reads what torch.save wrote and compares with what torch.load
// reads.
func TestGolden(t *testing.T) {
	for name, want := range expectations(t) {
		t.Run(name, func(t *testing.T) {
			f := open(t, name)
			tensortest.TestSource(t, f)
			require.Equal(t, want.Nested, f.Nested())
			require.Equal(t, tensor.Meta{{Key: "format", Value: "pt"}}, f.Meta())
			list := slices.Collect(f.All())
			require.Len(t, list, len(want.Tensors))
			for i, w := range want.Tensors {
				require.Equal(t, w.Name, list[i].Name)
				require.Equal(t, w.DType, list[i].DType.String(), "%s", w.Name)
				require.True(t, w.Shape.Equal(list[i].Shape), "%s: %v, not %v", w.Name, list[i].Shape, w.Shape)
				sum := sha256.Sum256(tensortest.Bytes(t, f, w.Name))
				require.Equal(t, w.SHA256, hex.EncodeToString(sum[:]), "%s", w.Name)
			}

			data := readFile(t, name)
			require.True(t, Detect(data[:DetectSize]))
			src, err := Parse(bytes.NewReader(data), int64(len(data)))
			require.NoError(t, err)
			require.Equal(t, list, slices.Collect(src.All()))
		})
	}
}

// TestIgnored checks what is said of things beside the tensors.
func TestIgnored(t *testing.T) {
	for _, name := range []string{"training.pth", "protocol3.pt", "protocol5.pt", "legacy_training.bin", "legacy_protocol4.bin"} {
		require.Equal(t, []string{
			"model.version",
			"epoch", "global_step", "best", "big", "minus", "name", "none", "flag", "optimizer", "rng", "numpy", "size", "device",
			"dtype", "set", "frozen", "count", "complex", "bytearray", "deep",
		}, open(t, name).Ignored(), name)
	}
	require.Equal(t, []string{"model", "epoch"}, open(t, "lightning.ckpt").Ignored())
	require.Equal(t, []string{"model.n", "x"}, open(t, "deep.pt").Ignored())
	require.Empty(t, open(t, "module.bin").Ignored())
}

// TestOthers reads files that others made.
func TestOthers(t *testing.T) {
	for name, want := range map[string]struct{ nested, tensor, shape string }{
		"test.pt":               {"", "test", "[2, 4]"},
		"test_with_key.pt":      {"model_state_dict", "test", "[2, 4]"},
		"fortran_tensor_3d.pth": {"", "tensor_fortran", "[2, 3, 4]"},
	} {
		f := open(t, "candle/"+name)
		require.Equal(t, want.nested, f.Nested())
		info, err := f.Info(want.tensor)
		require.NoError(t, err)
		require.Equal(t, tensor.I64, info.DType)
		require.Equal(t, want.shape, info.Shape.String())
		// They count from 1.
		b := tensortest.Bytes(t, f, want.tensor)
		for i := range int(info.Shape.Elems()) {
			require.EqualValues(t, i+1, binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
}

func TestRefused(t *testing.T) {
	const nothing = "nothing of it is executed"
	for name, want := range map[string]struct {
		is         error
		says, hint string
	}{
		"tensor.pt":     {tensor.ErrUnsupported, "the checkpoint is a tensor, not a dict", "a name"},
		"list.pt":       {tensor.ErrUnsupported, "the checkpoint is a list, not a dict", "a name"},
		"module.pt":     {tensor.ErrUnsupported, `"torch.nn.modules.linear.Linear", which is not among what a file of tensors needs; ` + nothing, "state_dict()"},
		"class.pt":      {tensor.ErrUnsupported, `"argparse.Namespace", which is not among what a file of tensors needs; ` + nothing, "state_dict()"},
		"sparse.pt":     {tensor.ErrUnsupported, "torch._utils._rebuild_sparse_tensor: a sparse tensor; " + nothing, "plain"},
		"quantized.pt":  {tensor.ErrUnsupported, "torch._utils._rebuild_qtensor: a tensor in torch's own quantization", "plain"},
		"meta.pt":       {tensor.ErrUnsupported, "torch._utils._rebuild_meta_tensor_no_storage: a tensor without data", "plain"},
		"complex128.pt": {tensor.ErrUnsupported, `tensor "a": unsupported input: dtype torch.complex128`, ""},
		"conj.pt":       {tensor.ErrUnsupported, `a tensor with the bit "conj"`, "resolve_conj"},
		"script.pt":     {tensor.ErrUnsupported, "a TorchScript archive", "torch.jit.load"},
		"deflated.pt":   {tensor.ErrUnsupported, "is compressed or encrypted", "zip -0"},
		"two.pt":        {tensor.ErrUnsupported, `tensors in 2 dicts: in "generator", in "critic"`, "alone"},
		"numbered.pt":   {tensor.ErrUnsupported, "a tensor at the top under an int, not a name", ""},
		"nothing.pt":    {tensor.ErrMalformed, "no dict of tensors", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata/refused", name)
			_, err := Open(path)
			require.ErrorIs(t, err, want.is)
			require.True(t, strings.HasPrefix(err.Error(), path+": "), "%v", err)
			require.ErrorContains(t, err, want.says)
			require.Contains(t, hint.Of(err), want.hint)
		})
	}
	entries, err := os.ReadDir("testdata/refused")
	require.NoError(t, err)
	require.Len(t, entries, 14)
}
