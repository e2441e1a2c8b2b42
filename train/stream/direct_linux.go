package stream

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

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

// largePages has the memory consist of large pages where there are any, so that fewer
// have to be looked up.
func largePages(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) } // advice
