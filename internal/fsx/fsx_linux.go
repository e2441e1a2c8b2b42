package fsx

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/seed18967229/nibble/internal/hint"
)

// rename gives temp the name path; unless force is set, path must still be
// free.
func rename(temp, path string, force bool) error {
	if force {
		return os.Rename(temp, path)
	}
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return ErrExists
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return os.Rename(temp, path)
	}
	return err
}

// replaceDir gives temp the name path. A directory that is there already is
// exchanged for it in one step and then removed.
func replaceDir(temp, path string) error {
	// An empty directory, or none, gives way by itself.
	err := os.Rename(temp, path)
	if err == nil {
		return nil
	}
	switch xerr := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE); {
	case xerr == nil:
		return os.RemoveAll(temp)
	case errors.Is(xerr, unix.EINVAL), errors.Is(xerr, unix.ENOSYS):
		return swapDir(temp, path)
	}
	return err
}

// allocate sets space aside. A file system that cannot do so says so, and is
// trusted to find the space later.
func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

func checkFree(path string, size int64) error {
	if free := Free(path); free > 0 && size > free {
		return hint.Add(fmt.Errorf("needs %d bytes but the disk has %d free: %w", size, free, unix.ENOSPC),
			"free some space or choose an output on another disk")
	}
	return nil
}

// Free returns how many bytes can be written where path is or would be, 0 if that is not
// known.
func Free(path string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(Existing(path), &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// umask reads the process's mask; it can be read only by setting it.
var umask = sync.OnceValue(func() os.FileMode {
	m := unix.Umask(0)
	unix.Umask(m)
	return os.FileMode(m)
})

// move is copy_file_range(2), at most a gibibyte at a time.
func move(dst *os.File, to int64, src *os.File, from, n int64) (int64, error) {
	for {
		k, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(min(n, 1<<30)), 0)
		switch {
		case err == unix.EINTR:
			continue
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
			return 0, ErrCannotMove
		}
		return int64(max(k, 0)), err
	}
}
