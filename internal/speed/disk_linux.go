package speed

import (
	"os"

	"golang.org/x/sys/unix"
)

// openDirect opens a file for reading past the page cache, or if its file system
// cannot do that, through it.
func openDirect(path string) (f *os.File, direct bool, err error) {
	if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0); err == nil {
		return os.NewFile(uintptr(fd), path), true, nil
	}
	f, err = os.Open(path)
	return f, false, err
}

// forget asks the system to drop a file from the page cache.
func forget(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
