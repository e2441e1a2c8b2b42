package tensor

import (
	"io"
	"os"
)

// Part is a run of bytes of which a larger one is put together.
type Part struct {
	Size int64
	Open func() (io.ReaderAt, error)
}

// Concat returns how to open the parts one after another. A run of stored bytes
// stays one: Extents finds where its parts are.
func Concat(parts ...Part) func() (io.ReaderAt, error) {
	return func() (io.ReaderAt, error) {
		rs := make(readers, len(parts))
		for i, p := range parts {
			r, err := p.Open()
			if err != nil {
				return nil, err
			}
			rs[i] = reader{p.Size, r}
		}
		return rs, nil
	}
}

type reader struct {
	size int64
	r    io.ReaderAt
}

type readers []reader

// ReadAt implements io.ReaderAt.
func (rs readers) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, io.EOF
	}
	for _, r := range rs {
		if off >= r.size {
			off -= r.size
			continue
		}
		want := int(min(int64(len(p)-n), r.size-off))
		got, err := r.r.ReadAt(p[n:n+want], off)
		n += got
		if got < want {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		if off = 0; n == len(p) {
			return n, nil
		}
	}
	return n, io.EOF
}

// An Extent is where stored bytes are in a file.
type Extent struct {
	File      *os.File
	Off, Size int64
}

// Extents returns the places in files of which the n bytes of r at off consist,
// in order, and whether they are stored bytes and nothing else: those can be
// moved from file to file without passing through the program.
func Extents(r io.ReaderAt, off, n int64) ([]Extent, bool) {
	switch r := r.(type) {
	case *os.File:
		return []Extent{{r, off, n}}, true
	case *io.SectionReader:
		outer, start, size := r.Outer()
		if off < 0 || n > size-off {
			return nil, false
		}
		return Extents(outer, start+off, n)
	case readers:
		var out []Extent
		for _, part := range r {
			if off >= part.size {
				off -= part.size
				continue
			}
			take := min(n, part.size-off)
			list, ok := Extents(part.r, off, take)
			if !ok {
				return nil, false
			}
			out, off = append(out, list...), 0
			if n -= take; n == 0 {
				return out, true
			}
		}
		return out, n == 0
	}
	return nil, false
}
