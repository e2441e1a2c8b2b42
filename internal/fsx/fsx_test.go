package fsx

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	f, err := Create(path, false)
	require.NoError(t, err)
	require.NoError(t, f.Reserve(10))
	_, err = f.WriteAt([]byte("0123456789"), 0)
	require.NoError(t, err)
	require.NoFileExists(t, path, "not before it is whole")
	require.NoError(t, f.Commit())
	require.NoError(t, f.Commit(), "a second Commit is a no-op")
	require.NoError(t, f.Abort(), "Abort after Commit is a no-op")
	require.Equal(t, "0123456789", read(t, path))
	require.Equal(t, []string{"out"}, names(t, dir))
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, 0o666&^umask(), st.Mode().Perm())

	_, err = Create(path, false)
	require.ErrorIs(t, err, ErrExists)
	require.Contains(t, hint.Of(err), "--force")

	f, err = Create(path, true)
	require.NoError(t, err)
	require.Equal(t, "0123456789", read(t, path), "the old one stays until the new one is whole")
	require.NoError(t, f.Abort())
	require.NoError(t, f.Abort())
	require.Equal(t, "0123456789", read(t, path))
	require.NoError(t, WriteFile(path, []byte("new"), true))
	require.Equal(t, "new", read(t, path))
	require.ErrorIs(t, WriteFile(path, []byte("newer"), false), ErrExists)
	require.Equal(t, []string{"out"}, names(t, dir))
}

func TestFileThatAppearsMeanwhile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	f, err := Create(path, false)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("theirs"), 0o666))
	require.ErrorIs(t, f.Commit(), ErrExists)
	require.Equal(t, "theirs", read(t, path))
	require.Equal(t, []string{"out"}, names(t, dir))
}

func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err := Create(filepath.Join(file, "below a file"), false)
	require.Error(t, err)
	_, err = Create(filepath.Join(dir, "no", "such", "dir"), false)
	require.ErrorContains(t, err, "cannot be written")
	require.NotEmpty(t, hint.Of(err))
	_, err = Create(dir, true)
	require.ErrorContains(t, err, "is a directory")
	_, err = CreateDir(filepath.Join(file, "below a file"), false, nil)
	require.Error(t, err)
	_, err = CreateDir(file, true, nil)
	require.ErrorContains(t, err, "is a file")
	require.Equal(t, []string{"file"}, names(t, dir))
}

func TestNoRoom(t *testing.T) {
	f, err := Create(filepath.Join(t.TempDir(), "out"), false)
	require.NoError(t, err)
	defer f.Abort()
	err = f.Reserve(1 << 60)
	require.ErrorContains(t, err, "free")
	require.Contains(t, hint.Of(err), "free some space")
}

func TestDir(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "model")
	isOurs := func(names []string) bool { return slices.Contains(names, "config.json") }

	d, err := CreateDir(path, false, isOurs)
	require.NoError(t, err)
	require.NoError(t, d.WriteFile("config.json", []byte("1")))
	require.NoDirExists(t, path)
	require.NoError(t, d.Commit())
	require.NoError(t, d.Abort(), "Abort after Commit is a no-op")
	require.Equal(t, "1", read(t, filepath.Join(path, "config.json")))
	require.Equal(t, []string{"model"}, names(t, parent))

	_, err = CreateDir(path, false, isOurs)
	require.ErrorIs(t, err, ErrExists)

	d, err = CreateDir(path, true, isOurs)
	require.NoError(t, err)
	require.NoError(t, d.WriteFile("config.json", []byte("2")))
	require.NoError(t, d.WriteFile("more", nil))
	require.Equal(t, "1", read(t, filepath.Join(path, "config.json")), "the old one stays until the new one is whole")
	require.NoError(t, d.Commit())
	require.Equal(t, []string{"config.json", "more"}, names(t, path))
	require.Equal(t, []string{"model"}, names(t, parent), "nothing of the old one is left")

	d, err = CreateDir(path, true, isOurs)
	require.NoError(t, err)
	require.NoError(t, d.WriteFile("config.json", []byte("3")))
	require.NoError(t, d.Abort())
	require.Equal(t, "2", read(t, filepath.Join(path, "config.json")))
	require.Equal(t, []string{"model"}, names(t, parent))
}

func TestDirThatIsNotOurs(t *testing.T) {
	path := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(path, "precious"), nil, 0o666))
	_, err := CreateDir(path, true, func([]string) bool { return false })
	require.ErrorIs(t, err, ErrExists)
	require.Equal(t, []string{"precious"}, names(t, path))

	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.Mkdir(empty, 0o777))
	d, err := CreateDir(empty, false, nil)
	require.NoError(t, err, "an empty directory is as good as none")
	require.NoError(t, d.WriteFile("f", nil))
	require.NoError(t, d.Commit())
	require.Equal(t, []string{"f"}, names(t, empty))
}

func TestSwapDir(t *testing.T) {
	parent := t.TempDir()
	for _, n := range []string{"old", "new"} {
		require.NoError(t, os.Mkdir(filepath.Join(parent, n), 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(parent, n, n), nil, 0o666))
	}
	require.NoError(t, swapDir(filepath.Join(parent, "new"), filepath.Join(parent, "old")))
	require.Equal(t, []string{"old"}, names(t, parent))
	require.Equal(t, []string{"new"}, names(t, filepath.Join(parent, "old")))
	require.Error(t, swapDir(filepath.Join(parent, "none"), filepath.Join(parent, "old")))
	require.Equal(t, []string{"new"}, names(t, filepath.Join(parent, "old")), "the old one comes back")
}

func TestCheckOutput(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	require.NoError(t, os.WriteFile(in, nil, 0o666))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(in, link))
	require.Error(t, CheckOutput(link, "", in))
	require.Error(t, CheckOutput(filepath.Join(dir, ".", "in"), in))
	require.NoError(t, CheckOutput(filepath.Join(dir, "out"), in))
	require.NoError(t, errors.Join(nil, CheckOutput(dir, in)))
}

func TestRegion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := Create(path, false)
	require.NoError(t, err)
	require.NoError(t, f.Reserve(10))
	r := NewRegion(f, path, 3, 4)
	for _, off := range []int64{-1, 4, 1 << 62} {
		_, err := r.WriteAt([]byte("x"), off)
		require.ErrorContains(t, err, path)
	}
	_, err = r.WriteAt([]byte("cd"), 2)
	require.NoError(t, err)
	require.ErrorContains(t, r.Complete(), "2 of 4 bytes")
	_, err = r.WriteAt([]byte("ab"), 0)
	require.NoError(t, err)
	require.NoError(t, r.Complete())
	require.NoError(t, f.Commit())
	require.Equal(t, "\x00\x00\x00abcd\x00\x00\x00", read(t, path))
	_, err = r.WriteAt([]byte("x"), 0)
	require.ErrorContains(t, err, path+": ")
	require.NotContains(t, err.Error(), "nibble-", "the temporary name means nothing to the user")
}
