package safetensors

import (
	"fmt"
	"io"
	"os"

	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// Parse reads the header of a safetensors file of size bytes and returns its
// tensors, in the order of their data, and its metadata, in the order of the
// header, with string values. It holds none of the data and reads it from r
// when asked.
//
// Everything the reference implementation checks is checked (Metadata::validate
// and SafeTensors::read_metadata in tensor.rs): the header's length and JSON,
// every field's type, that dtype, shape and offsets agree, and that the tensors
// cover the data without overlap or gap. Errors name the tensor and wrap
// tensor.ErrMalformed, or tensor.ErrUnsupported for a dtype not known here.
func Parse(r io.ReaderAt, size int64) (*tensor.Table, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	entries := make([]tensor.Entry, len(h.tensors))
	for i, t := range h.tensors {
		entries[i] = tensor.Entry{Info: t.info, Open: func() (io.ReaderAt, error) {
			return io.NewSectionReader(r, h.start+t.begin, t.end-t.begin), nil
		}}
	}
	return tensor.NewTable(h.meta, entries)
}

// A File is an open safetensors file. Its tensors can be read until it is
// closed.
type File struct {
	*tensor.Table
	f    *os.File
	size int64
}

// Open opens a safetensors file and checks its header as Parse does. Errors
// begin with the path.
func Open(path string) (*File, error) {
	f, size, err := safeio.OpenFile(path)
	if err != nil {
		return nil, err
	}
	t, err := Parse(f, size)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &File{Table: t, f: f, size: size}, nil
}

// Path returns the path that the file was opened by.
func (f *File) Path() string { return f.f.Name() }

// Size returns the number of bytes that the file has.
func (f *File) Size() int64 { return f.size }

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
