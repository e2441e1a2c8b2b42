package formats

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	src := tensortest.NewSource(t, nil, tensortest.Normal("a", tensor.Shape{2, 3}, 1, 1))
	// The names say nothing: what a file is, its content says.
	a, err := safetensors.Create(filepath.Join(dir, "a.gguf"), false)
	require.NoError(t, err)
	tensortest.Copy(t, src, a)
	b, err := gguf.Create(filepath.Join(dir, "b.safetensors"), false)
	require.NoError(t, err)
	tensortest.Copy(t, src, b)
	pickled, err := os.ReadFile("torch/testdata/module.bin")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c.safetensors"), pickled, 0o666))
	for path, kind := range map[string]Kind{
		filepath.Join(dir, "a.gguf"):              Safetensors,
		filepath.Join(dir, "b.safetensors"):       GGUF,
		"../testdata/llama/gqa":                   HF,
		"../testdata/llama/gqa/adapter_r3":        Adapter,
		"../testdata/llama/gqa/model.safetensors": Safetensors,
		"hf/testdata/pickled":                     HF,
		"torch/testdata/training.pth":             Torch,
		"torch/testdata/legacy_protocol4.bin":     Torch,
		filepath.Join(dir, "c.safetensors"):       Torch,
	} {
		in, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, kind, in.Kind, path)
		require.Equal(t, path, in.Path)
		require.Equal(t, kind == HF, in.HF != nil)
		require.Equal(t, kind == GGUF, in.GGUF != nil)
		require.Equal(t, kind == Adapter, in.Adapter != nil)
		require.Equal(t, kind == Torch, in.Torch != nil)
		tensortest.TestSource(t, in)
		require.NoError(t, in.Close())
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
		return path
	}
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.Mkdir(empty, 0o777))
	for name, c := range map[string]struct {
		path string
		is   error
		hint string
	}{
		"missing":           {filepath.Join(dir, "none"), fs.ErrNotExist, "check the path"},
		"empty file":        {put("e", ""), tensor.ErrMalformed, "directory"},
		"short":             {put("s", "GGU"), tensor.ErrMalformed, ""},
		"something else":    {put("x", "#!/bin/sh\necho"), tensor.ErrMalformed, "Git LFS"},
		"GGUF and no more":  {put("g", "GGUF"), tensor.ErrMalformed, ""},
		"a zip archive":     {put("z", "PK\x05\x06"+strings.Repeat("\x00", 18)), tensor.ErrMalformed, ""},
		"a program":         {put("p", "\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."), tensor.ErrMalformed, ""},
		"a checkpoint of 0": {put("m", "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."), tensor.ErrMalformed, ""},
		"safetensors's end": {put("t", "\x02\x00\x00\x00\x00\x00\x00\x00{"), tensor.ErrMalformed, ""},
		"empty directory":   {empty, tensor.ErrMalformed, ""},
		"device":            {"/dev/null", tensor.ErrUnsupported, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(c.path)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.path)
			require.Contains(t, hint.Of(err), c.hint)
		})
	}
}
