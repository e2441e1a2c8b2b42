package tensor

import "io"

// Part is a run of stored bytes, one of those that a tensor is made of.
type Part struct {
	Size int64

	// Open returns the Size bytes. What it returns is used concurrently.
	Open func() (io.ReaderAt, error)
}

// Concat returns how to open the parts one after another, for an Entry whose
// bytes lie apart from each other.
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
