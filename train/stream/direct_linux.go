package stream

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openDirect opens a file for unbuffered reads.
func openDirect(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readDirect reads at least need of the len(p) bytes at off without the page cache:
// a file may end before p does. All three are whole pages, but for need. It returns
// errNotDirect where that cannot be done after all.
func readDirect(f *os.File, p []byte, off int64, need int) error {
	for n := 0; n < need; {
		k, err := unix.Pread(int(f.Fd()), p[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
			return errNotDirect
		case err != nil:
			return err
		case k == 0, k%page != 0 && n+k < need:
			return io.ErrUnexpectedEOF
		default:
			n += k
		}
	}
	return nil
}

// forget tells the system that bytes which have been read are not needed in the page
// cache.
func forget(f *os.File, off, n int64) {
	start := off &^ (page - 1)
	_ = unix.Fadvise(int(f.Fd()), start, roundUp(off+n, page)-start, unix.FADV_DONTNEED) // advice
}

// largePages has the memory consist of large pages where there are any, so that fewer
// have to be looked up.
func largePages(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) } // advice
