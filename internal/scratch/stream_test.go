package scratch

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStream(t *testing.T) {
	dir := t.TempDir()
	s, err := NewStream(dir)
	require.NoError(t, err)
	var want []byte
	for i := range 100 {
		part := bytes.Repeat([]byte{byte(i)}, 1+37*i)
		n, err := s.Write(part)
		require.NoError(t, err)
		require.Equal(t, len(part), n)
		want = append(want, part...)
		require.Equal(t, int64(len(want)), s.Size())
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
