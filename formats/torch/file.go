package torch

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// DetectSize is how many bytes at the beginning of a file tell what it is.
const DetectSize = 32

const (
	zipMagic = "PK\x03\x04"

	// legacyMagic is 0x1950a86a20f9469cfc6c as a pickle has it.
	legacyMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
)

// Detect reports whether a file that begins with head, of DetectSize bytes or
// the whole file, may be a PyTorch checkpoint: a zip archive, or a pickle of
// PyTorch's old magic number.
func Detect(head []byte) bool { return isZip(head) || isLegacy(head) }

func isZip(head []byte) bool { return bytes.HasPrefix(head, []byte(zipMagic)) }

func isLegacy(head []byte) bool {
	return len(head) > 0 && head[0] == opProto && bytes.Contains(head, []byte(legacyMagic))
}

// Parse reads what a checkpoint of size bytes says about its tensors and returns
// them in the order of the checkpoint. It holds none of the data and reads it
// from r when asked.
//
// The checkpoint must be a dict of tensors by name, or hold such a dict, as
// {"model": {...}, "epoch": 3} does. If there are several, that under
// state_dict, model_state_dict, model or module is taken, and it is an error if
// there is none. What is no tensor is passed over.
//
// Errors name the tensor or the place in the pickle and wrap
// tensor.ErrMalformed, or tensor.ErrUnsupported for what only PyTorch can make.
// The Meta is {"format": "pt"}, as safetensors files of PyTorch have it.
func Parse(r io.ReaderAt, size int64) (*tensor.Table, error) {
	c, err := parse(r, size)
	if err != nil {
		return nil, err
	}
	return c.table, nil
}

// checkpoint is what a file turns out to hold.
type checkpoint struct {
	table   *tensor.Table
	nested  string
	ignored []string
}

// content is the object of a checkpoint, its storages placed.
type content struct {
	root any
	swap bool // big-endian
}

func parse(r io.ReaderAt, size int64) (*checkpoint, error) {
	head := make([]byte, min(size, DetectSize))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return nil, unexpected(err)
	}
	var c content
	var err error
	switch {
	case isZip(head):
		c, err = readZip(r, size)
	case isLegacy(head):
		c, err = readLegacy(r, size)
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		err = hint.Add(malformed("a Git LFS pointer, not the file that it stands for"), "run git lfs pull in the repository that it came with")
	default:
		err = malformed("not a PyTorch checkpoint: it begins with %q", head[:min(len(head), 9)])
	}
	if err != nil {
		return nil, err
	}
	d, err := choose(c.root)
	if err != nil {
		return nil, err
	}
	entries := make([]tensor.Entry, len(d.tensors))
	for i, t := range d.tensors {
		info, err := t.view.info(t.name)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.name, err)
		}
		entries[i] = tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) { return t.view.open(r, c.swap), nil }}
	}
	table, err := tensor.NewTable(tensor.Meta{{Key: "format", Value: "pt"}}, entries)
	if err != nil {
		return nil, err
	}
	return &checkpoint{table, d.path, d.ignored}, nil
}

// A File is an open PyTorch checkpoint. Its tensors can be read until it is
// closed.
type File struct {
	*tensor.Table
	checkpoint *checkpoint
	f          *os.File
}

// Open opens a checkpoint and reads it as Parse does. Errors begin with the
// path.
func Open(path string) (*File, error) {
	f, size, err := safeio.OpenFile(path)
	if err != nil {
		return nil, err
	}
	c, err := parse(f, size)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &File{Table: c.table, checkpoint: c, f: f}, nil
}

// Nested returns where in the checkpoint the tensors are, as "model" or
// "model.state_dict"; it is "" if the checkpoint is the dict of tensors itself.
func (f *File) Nested() string { return f.checkpoint.nested }

// Ignored returns the names of what lies beside the tensors and the dict that
// they are in: "epoch", "optimizer". Of very many it lists the first.
func (f *File) Ignored() []string { return f.checkpoint.ignored }

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
