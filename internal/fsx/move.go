package fsx

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrCannotMove is returned where the system cannot move bytes from file to
// file by itself: the caller is to read and write them.
var ErrCannotMove = errors.New("bytes cannot be moved by the system")

// MoveFrom moves n bytes of src from offset at on to off in the region, without
// passing them through the program. It returns how many have been moved; what
// does not fit is an error and moves nothing.
func (r *Region) MoveFrom(off int64, src *os.File, at, n int64) (int64, error) {
	file, ok := r.file.(*File)
	if !ok {
		return 0, ErrCannotMove
	}
	if off < 0 || off > r.size-n {
		return 0, fmt.Errorf("%s: %d bytes at %d do not fit into %d", r.path, n, off, r.size)
	}
	var done int64
	for done < n {
		k, err := move(file.File, r.start+off+done, src, at+done, n-done)
		r.written.Add(k)
		done += k
		switch {
		case errors.Is(err, ErrCannotMove) && done == 0:
			return 0, ErrCannotMove
		case err != nil:
			return done, fmt.Errorf("%s: %w", r.path, underlying(err))
		case k == 0:
			return done, fmt.Errorf("%s: %w", src.Name(), io.ErrUnexpectedEOF)
		}
	}
	return done, nil
}
