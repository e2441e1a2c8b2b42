package gguf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// Writer is a tensor.Sink that writes a GGUF file of version 3, the alignment
// being the default 32. The file has its name only once it is complete.
//
// GGUF can hold what TypeID has an id for, in up to four dimensions, under
// names of up to 63 bytes. It has no scalars: a Shape of no dimensions is
// written, and read again, as one of a single element.
type Writer struct {
	path   string
	file   *fsx.File
	layout []tensor.Info
	bodies []*fsx.Region
	begun  bool
}

var _ tensor.Sink = (*Writer)(nil)

// Create starts writing path. Unless force is set, path must not exist.
func Create(path string, force bool) (*Writer, error) {
	f, err := fsx.Create(path, force)
	if err != nil {
		return nil, err
	}
	return &Writer{path: path, file: f}, nil
}

// Begin implements tensor.Sink. The metadata is written in the order of meta,
// each value with the GGUF type of its Go type (see Parse). KeyAlignment must
// not be among it, nor a KeySplitCount above 1.
func (w *Writer) Begin(meta tensor.Meta, layout []tensor.Info) error {
	n, err := partCount(meta)
	switch {
	case err != nil:
		err = fmt.Errorf("%s: %w", w.path, err)
	case n > 1:
		err = fmt.Errorf("%s: key %q: %w: this is not one of %d files; CreateSplit makes those", w.path, KeySplitCount, tensor.ErrUnsupported, n)
	default:
		err = w.begin(meta, layout)
	}
	if err != nil {
		w.Abort()
	}
	return err
}

// begin writes the header of a file, whether a part or all of a model.
func (w *Writer) begin(meta tensor.Meta, layout []tensor.Info) error {
	if w.begun {
		return fmt.Errorf("%s: writing has begun already", w.path)
	}
	h, err := newHeader(meta, layout)
	if err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	// The padding is what is never written: the file is made of zeros.
	if err := w.file.Reserve(h.size); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(h.bytes, 0); err != nil {
		return safeio.WithPath(w.path, err)
	}
	for i, info := range layout {
		w.bodies = append(w.bodies, fsx.NewRegion(w.file, w.path, h.starts[i], info.Size()))
	}
	w.layout, w.begun = layout, true
	return nil
}

// Body implements tensor.Sink.
func (w *Writer) Body(i int) (io.WriterAt, error) {
	if i < 0 || i >= len(w.bodies) {
		return nil, fmt.Errorf("%s: there is no tensor %d of %d", w.path, i, len(w.bodies))
	}
	return w.bodies[i], nil
}

// Finish implements tensor.Sink.
func (w *Writer) Finish() error {
	if err := w.complete(); err != nil {
		w.Abort()
		return fmt.Errorf("%s: %w", w.path, err)
	}
	return w.file.Commit()
}

// complete returns an error if a byte is missing.
func (w *Writer) complete() error {
	if !w.begun {
		return errors.New("nothing has been written")
	}
	for i, b := range w.bodies {
		if err := b.Complete(); err != nil {
			return fmt.Errorf("tensor %q: %w", w.layout[i].Name, err)
		}
	}
	return nil
}

// Abort implements tensor.Sink.
func (w *Writer) Abort() error { return w.file.Abort() }

// header is the encoded header of a file, with its padding, and what follows
// from it.
type header struct {
	bytes  []byte
	starts []int64 // where in the file the data of each tensor begins
	size   int64   // of the file
}

// errTooLong keeps the writer from what the reader would refuse.
var errTooLong = fmt.Errorf("%w: a header of more than %d bytes", tensor.ErrUnsupported, maxHeader)

func newHeader(meta tensor.Meta, layout []tensor.Info) (*header, error) {
	b := append([]byte(nil), Magic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint64(b, uint64(len(layout)))
	b = le.AppendUint64(b, uint64(len(meta)))
	b, err := appendMeta(b, meta)
	if err != nil {
		return nil, err
	}
	starts := make([]int64, len(layout))
	seen := make(map[string]bool, len(layout))
	next := int64(0)
	for i, info := range layout {
		if seen[info.Name] {
			return nil, fmt.Errorf("tensor %q: %w: the name occurs twice", info.Name, tensor.ErrMalformed)
		}
		seen[info.Name] = true
		if b, err = appendInfo(b, info, next); err != nil {
			return nil, err
		}
		starts[i] = next
		var ok bool
		if _, next, ok = follow(next, info, defaultAlignment); !ok || next > math.MaxInt64-maxHeader {
			return nil, fmt.Errorf("tensor %q: %w: the data so far has more bytes than a file can", info.Name, tensor.ErrUnsupported)
		}
	}
	b = append(b, make([]byte, -len(b)&(defaultAlignment-1))...)
	if len(b) > maxHeader {
		return nil, errTooLong
	}
	for i := range starts {
		starts[i] += int64(len(b))
	}
	return &header{b, starts, int64(len(b)) + next}, nil
}

func appendMeta(b []byte, meta tensor.Meta) ([]byte, error) {
	seen := make(map[string]bool, len(meta))
	for i, kv := range meta {
		switch {
		case kv.Key == "":
			return nil, fmt.Errorf("metadata entry %d: %w: an empty key", i, tensor.ErrMalformed)
		case kv.Key == KeyAlignment:
			return nil, fmt.Errorf("key %q: %w: the alignment is always the default, %d", kv.Key, tensor.ErrUnsupported, defaultAlignment)
		case seen[kv.Key]:
			return nil, fmt.Errorf("key %q: %w: it occurs twice", kv.Key, tensor.ErrMalformed)
		}
		seen[kv.Key] = true
		var err error
		if b, err = appendValue(appendString(b, kv.Key), kv.Value); err != nil {
			return nil, fmt.Errorf("key %q: %w", kv.Key, err)
		}
		if len(b) > maxHeader {
			return nil, errTooLong
		}
	}
	return b, nil
}

// appendInfo appends the description of a tensor whose data is at offset.
func appendInfo(b []byte, info tensor.Info, offset int64) ([]byte, error) {
	id, ok := TypeID(info.DType)
	switch {
	case info.Late():
		return nil, fmt.Errorf("tensor %q: %w: GGUF holds no tensor of a length not known beforehand", info.Name, tensor.ErrUnsupported)
	case !ok:
		return nil, fmt.Errorf("tensor %q: %w: GGUF has no type for %v", info.Name, tensor.ErrUnsupported, info.DType)
	case len(info.Shape) > maxDims:
		return nil, fmt.Errorf("tensor %q: %w: %d dimensions; GGUF holds %d", info.Name, tensor.ErrUnsupported, len(info.Shape), maxDims)
	}
	if why := badName(info.Name); why != "" {
		return nil, fmt.Errorf("tensor %q: %w: GGUF cannot hold it: %s", info.Name, tensor.ErrUnsupported, why)
	}
	if err := info.Validate(); err != nil {
		return nil, err
	}
	dims := slices.Clone(info.Shape)
	if len(dims) == 0 {
		dims = tensor.Shape{1}
	}
	slices.Reverse(dims)
	b = appendString(b, info.Name)
	b = le.AppendUint32(b, uint32(len(dims)))
	for _, n := range dims {
		b = le.AppendUint64(b, uint64(n))
	}
	b = le.AppendUint32(b, id)
	return le.AppendUint64(b, uint64(offset)), nil
}
