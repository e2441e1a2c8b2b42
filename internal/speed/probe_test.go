package speed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
)

func TestProbed(t *testing.T) {
	dir, scratch := t.TempDir(), t.TempDir()
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(small, []byte("x"), 0o666))
	require.NoError(t, os.WriteFile(large, make([]byte, 3*diskChunk+17), 0o666))
	w := kernel.Dense{Data: NewBuffer(4*256*512, 3).Floats, Rows: 256, Cols: 512}

	p, err := Probed(t.Context(), w, 64, []string{small, large}, scratch)
	require.NoError(t, err)
	require.Positive(t, p.Product)
	require.Greater(t, p.MultiplyAdd, p.Product/4) // however busy the machine is
	require.Positive(t, p.Read)
	require.Positive(t, p.Write)
	left, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Empty(t, left)

	p, err = Probed(t.Context(), w, 64, []string{small}, "")
	require.NoError(t, err)
	require.Zero(t, p.Write)

	_, err = Probed(t.Context(), w, 64, nil, "")
	require.ErrorContains(t, err, "no file")
	_, err = Probed(t.Context(), w, 64, []string{filepath.Join(dir, "none")}, "")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = ProbeWrite(t.Context(), filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestProbesEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, make([]byte, diskChunk), 0o666))
	_, _, err := ProbeRead(ctx, []string{path})
	require.ErrorIs(t, err, context.Canceled)
	dir := t.TempDir()
	_, err = ProbeWrite(ctx, dir)
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	failed := errors.New("failed")
	_, err = repeated(t.Context(), 1, func() error { return failed })
	require.ErrorIs(t, err, failed)
}

// A step takes as long as what takes longer.
func TestPredictedSeconds(t *testing.T) {
	p := Probe{Product: 10, Read: 4, Write: 2}
	for _, c := range []struct {
		work Work
		want float64
	}{
		{Work{Operations: 50}, 5},
		{Work{Operations: 50, Read: 8, Written: 4}, 5},
		{Work{Operations: 50, Read: 8, Written: 8}, 6},
		{Work{}, 0},
	} {
		require.Equal(t, c.want, p.Seconds(c.work))
	}
	require.Equal(t, 5.0, Probe{Product: 10}.Seconds(Work{Operations: 50, Read: 1 << 40}))
}
