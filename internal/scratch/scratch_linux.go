package scratch

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// open makes a file in dir that, if the file system can do that, has no name and is
// written and read past the page cache.
func open(dir string) (f *os.File, named bool, err error) {
	const flags = unix.O_RDWR | unix.O_CLOEXEC | unix.O_TMPFILE
	for _, direct := range []int{unix.O_DIRECT, 0} {
		if fd, err := unix.Open(dir, flags|direct, 0o600); err == nil {
			return os.NewFile(uintptr(fd), dir), false, nil
		}
	}
	if f, err = os.CreateTemp(dir, ".nibble-scratch-*"); err != nil {
		return nil, false, err
	}
	_ = setDirect(f, true) // or through the page cache
	return f, true, nil
}

// refused says that a file system does not do what it was asked past the page cache.
func refused(err error) bool { return errors.Is(err, unix.EINVAL) }

// buffered has a file written and read through the page cache. It reports whether it
// was not before.
func buffered(f *os.File) bool { return setDirect(f, false) == nil }

var errAsBefore = errors.New("as before")

func setDirect(f *os.File, on bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if (flags&unix.O_DIRECT != 0) == on {
		return errAsBefore
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags^unix.O_DIRECT)
	return err
}
