package safeio

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, []byte("12345"), 0o600))
	require.NoError(t, os.Symlink(path, filepath.Join(dir, "link")))
	for _, p := range []string{path, filepath.Join(dir, "link")} {
		b, err := ReadFile(p, 5)
		require.NoError(t, err)
		require.Equal(t, "12345", string(b))
	}

	_, err := ReadFile(path, 4)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, path+": ")
	_, err = ReadFile(dir, 5)
	require.ErrorIs(t, err, ErrRefused)
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(dir, "null")))
	_, err = ReadFile(filepath.Join(dir, "null"), 5)
	require.ErrorIs(t, err, ErrRefused)

	require.NoError(t, os.Symlink("circle", filepath.Join(dir, "circle")))
	_, err = ReadFile(filepath.Join(dir, "circle"), 5)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "circle: not read: a link that leads back to itself")

	_, err = ReadFile(filepath.Join(dir, "none"), 5)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, filepath.Join(dir, "none")+": no such file or directory", err.Error())
}
