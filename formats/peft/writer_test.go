package peft

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// Tensors that come last to first and at once make the files that PEFT writes.
func TestWriterSameBytesAsPEFT(t *testing.T) {
	a := open(t, filepath.Join("testdata", "golden"))
	dir := filepath.Join(t.TempDir(), "out")
	layout := slices.Collect(a.All())
	w, err := Create(dir, a.Config, layout, false)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for _, info := range slices.Backward(layout) {
		x := tensortest.Floats(t, a, info.Name)
		wg.Go(func() {
			if err := w.Put(info.Name, x); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoDirExists(t, dir)
	require.NoError(t, w.Finish())
	require.NoError(t, w.Commit())
	require.NoError(t, w.Abort(), "after Commit nothing happens")
	for _, file := range []string{ConfigName, WeightsName} {
		require.Equal(t, string(read(t, filepath.Join("testdata", "golden", file))), string(read(t, filepath.Join(dir, file))), "%s", file)
	}
}

func TestWriterFailures(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "out")
	layout := []tensor.Info{{Name: "q.lora_A.weight", DType: tensor.F32, Shape: tensor.Shape{1, 3}}}
	w, err := Create(dir, NewConfig(), layout, false)
	require.NoError(t, err)
	require.ErrorIs(t, w.Put("k.lora_A.weight", nil), tensor.ErrNotFound)
	require.Error(t, w.Put("q.lora_A.weight", make([]float32, 4)), "one too many")
	require.Error(t, w.Finish(), "nothing was stored")
	require.NoError(t, w.Abort())
	require.Empty(t, tensortest.Files(t, parent))

	bad := NewConfig()
	bad.R = 0
	_, err = Create(dir, bad, layout, false)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.Empty(t, tensortest.Files(t, parent))

	require.NoError(t, os.MkdirAll(dir, 0o777))
	put(t, dir, "notes.txt", []byte("mine"))
	for _, force := range []bool{false, true} {
		_, err = Create(dir, NewConfig(), layout, force)
		require.ErrorIs(t, err, fsx.ErrExists, "what is no adapter is not replaced")
	}
	put(t, dir, ConfigName, []byte("{}"))
	w, err = Create(dir, NewConfig(), layout, true)
	require.NoError(t, err)
	require.NoError(t, w.Put("q.lora_A.weight", []float32{1, 2, 3}))
	require.NoError(t, w.Finish())
	require.NoError(t, w.Commit())
	require.Equal(t, []float32{1, 2, 3}, tensortest.Floats(t, open(t, dir), "q.lora_A.weight"))
}
