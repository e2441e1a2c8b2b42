package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
)

// ErrChanged is returned for a file that is not any more what it was when the Stream
// was made: what has been read of it and what would be do not belong together.
var ErrChanged = errors.New("changed while it was in use")

var errNotDirect = errors.New("no unbuffered reads")

// disk is a file that tensors are read from.
type disk struct {
	f    *os.File    // the Source's
	path string      // it was opened by
	was  os.FileInfo // then

	direct   *os.File // for unbuffered reads, or nil
	buffered atomic.Bool
}

// newDisk returns the file f, read past the page cache if that is asked for and can
// be.
func newDisk(f *os.File, unbuffered bool) (*disk, error) {
	was, err := f.Stat()
	if err != nil {
		return nil, safeio.WithPath(f.Name(), err)
	}
	d := &disk{f: f, path: f.Name(), was: was}
	if unbuffered {
		d.direct, err = fsx.OpenDirect(d.path)
		if err == nil {
			if is, err := d.direct.Stat(); err != nil || !os.SameFile(was, is) {
				d.close() // another file of that name, which check will find
			}
		}
	}
	d.buffered.Store(d.direct == nil)
	return d, nil
}

func (d *disk) close() {
	if d.direct != nil {
		d.direct.Close()
		d.direct = nil
	}
}

// check returns an error if the file has changed, or if there is another one in its
// place. One that has been removed can still be read, and no other run is going to
// take what is there for it.
func (d *disk) check() error {
	is, err := d.f.Stat()
	if err != nil {
		return safeio.WithPath(d.path, err)
	}
	switch {
	case is.Size() != d.was.Size():
		err = fmt.Errorf("%s: %w: it had %d bytes and has %d", d.path, ErrChanged, d.was.Size(), is.Size())
	case !is.ModTime().Equal(d.was.ModTime()):
		err = fmt.Errorf("%s: %w: it was written to at %s", d.path, ErrChanged, is.ModTime().Format("15:04:05"))
	default:
		if named, serr := os.Stat(d.path); serr == nil && !os.SameFile(named, d.was) {
			err = fmt.Errorf("%s: %w: another file is in its place", d.path, ErrChanged)
		}
	}
	return hint.Add(err, "put the file back as it was; what has been saved is good, and training goes on from its last checkpoint with --resume")
}

// failed returns the error of a read that did not succeed: what happened to the file,
// if that is known.
func (d *disk) failed(off, n int64, err error) error {
	if changed := d.check(); errors.Is(changed, ErrChanged) {
		return changed
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return hint.Add(fmt.Errorf("%s: bytes %d to %d: %w", d.path, off, off+n, err),
		"the disk does not give the file back: once it can be read, training goes on from its last checkpoint with --resume")
}

// readBuffered reads all of p at off through the page cache.
func (d *disk) readBuffered(p []byte, off int64, keep bool) error {
	n, err := d.f.ReadAt(p, off)
	if !keep {
		start := off &^ (page - 1)
		fsx.Forget(d.f, start, roundUp(off+int64(n), page)-start)
	}
	if n < len(p) {
		return d.failed(off, int64(len(p)), err)
	}
	return nil
}

// readStraight reads at least need bytes, as readDirect does.
func (d *disk) readStraight(p []byte, off int64, need int) error {
	err := readDirect(d.direct, p, off, need)
	if err == errNotDirect {
		d.buffered.Store(true)
		return err
	}
	if err != nil {
		return d.failed(off, int64(need), err)
	}
	return nil
}
