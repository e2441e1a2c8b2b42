package fsx

import (
	"fmt"
	"io"
	"sync/atomic"
)

// A Region is a part of a file that is to be filled from any number of
// goroutines, each byte once and in any order.
type Region struct {
	file    io.WriterAt
	path    string
	start   int64
	size    int64
	written atomic.Int64
}

// NewRegion returns the size bytes of file from start on. Errors of writing
// begin with path.
func NewRegion(file io.WriterAt, path string, start, size int64) *Region {
	return &Region{file: file, path: path, start: start, size: size}
}

// WriteAt implements io.WriterAt within the region; what does not fit is an
// error and writes nothing.
func (r *Region) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > r.size-int64(len(p)) {
		return 0, fmt.Errorf("%s: %d bytes at %d do not fit into %d", r.path, len(p), off, r.size)
	}
	n, err := r.file.WriteAt(p, r.start+off)
	r.written.Add(int64(n))
	if err != nil {
		err = fmt.Errorf("%s: %w", r.path, underlying(err))
	}
	return n, err
}

// Complete returns an error if bytes are missing. Each is to be written once,
// so counting them is enough.
func (r *Region) Complete() error {
	if n := r.written.Load(); n != r.size {
		return fmt.Errorf("%d of %d bytes have been written", n, r.size)
	}
	return nil
}
