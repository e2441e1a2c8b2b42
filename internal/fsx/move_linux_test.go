package fsx

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMoveFrom(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	require.NoError(t, os.WriteFile(from, []byte("0123456789"), 0o666))
	src, err := os.Open(from)
	require.NoError(t, err)
	defer src.Close()

	out := filepath.Join(dir, "out")
	f, err := Create(out, false)
	require.NoError(t, err)
	require.NoError(t, f.Reserve(8))
	r := NewRegion(f, out, 2, 6)
	n, err := r.MoveFrom(1, src, 3, 4)
	require.NoError(t, err)
	require.Equal(t, int64(4), n)

	_, err = r.MoveFrom(3, src, 0, 4)
	require.ErrorContains(t, err, "do not fit")
	_, err = r.MoveFrom(-1, src, 0, 1)
	require.ErrorContains(t, err, "do not fit")
	n, err = r.MoveFrom(0, src, 8, 4)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, int64(2), n, "as far as the source goes")
	require.NoError(t, r.Complete(), "4 and 2 of 6")
	require.NoError(t, f.Commit())
	require.Equal(t, "\x00\x0089456\x00", read(t, out))

	r = NewRegion(writerAt{}, out, 0, 6)
	_, err = r.MoveFrom(0, src, 0, 1)
	require.ErrorIs(t, err, ErrCannotMove, "what is written to is no file")
}

type writerAt struct{}

func (writerAt) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
