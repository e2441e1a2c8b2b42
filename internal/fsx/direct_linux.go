package fsx

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenDirect opens a file for reading past the page cache: offsets, lengths and memory
// are multiples of its pages then.
func OpenDirect(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Forget tells the system that n bytes of a file, 0 for all from off on, are not needed in
// the page cache.
func Forget(f *os.File, off, n int64) {
	_ = unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED) // advice
}
