package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// Magic is what a GGUF file begins with.
const Magic = "GGUF"

const (
	version          = 3  // the version that is written
	defaultAlignment = 32 // of the data of each tensor, in bytes

	maxName = 63 // bytes, GGML_MAX_NAME less the terminator
	maxDims = 4  // GGML_MAX_DIMS

	minKV   = 8 + 1 + 4 + 1     // key, type, a value of one byte
	minInfo = 8 + 4 + 0 + 4 + 8 // name, number of dimensions, type, offset
)

// File is an open GGUF file, or all parts of one that is split: a tensor.Source
// that reads from them on demand.
type File struct {
	*tensor.Table
	files []*os.File
}

// Open opens a GGUF file and reads its header as Parse does. Given the first
// part of a split model it opens the others too, which lie beside it, and gives
// the tensors of all, in order, under the metadata of the first without what it
// says of the parts. Errors begin with the path of the file at fault.
func Open(path string) (*File, error) {
	f := new(File)
	t, err := openParts(path, func(path string) (io.ReaderAt, int64, error) {
		r, size, err := safeio.OpenFile(path)
		if err == nil {
			f.files = append(f.files, r)
		}
		return r, size, err
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	f.Table = t
	return f, nil
}

// Paths returns the files that the Source reads from, the one given to Open
// first.
func (f *File) Paths() []string {
	var paths []string
	for _, r := range f.files {
		paths = append(paths, r.Name())
	}
	return paths
}

// Close closes the files. The Source cannot be read from any more.
func (f *File) Close() error {
	var errs []error
	for _, r := range f.files {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// Parse reads the header of a GGUF file of size bytes and returns its tensors,
// which read from r. The values of the metadata are of the Go types uint8,
// int8, uint16, int16, uint32, int32, uint64, int64, float32, float64, bool and
// string, and slices of these; a slice is never nil. A tensor of no dimensions,
// which ggml does not know, is given as one of a single element.
//
// A big-endian file gives what the little-endian file of the same content
// would: the bytes of its tensors are put in order as they are read.
//
// An error wraps tensor.ErrMalformed if the file breaks the rules of the format
// or ends too early, and tensor.ErrUnsupported if it is of version 1 or later
// than 3, one part of a split model, holds a tensor type that is not known, an
// array of arrays, or a header of more than 256 MiB.
func Parse(r io.ReaderAt, size int64) (*tensor.Table, error) {
	meta, entries, err := parsePart(r, size)
	if err != nil {
		return nil, err
	}
	switch n, err := partCount(meta); {
	case err != nil:
		return nil, err
	case n > 1:
		return nil, hint.Add(fmt.Errorf("key %q: %w: one part of a model split into %d files", KeySplitCount, tensor.ErrUnsupported, n),
			"give the first part by its name; the others are found beside it")
	}
	return tensor.NewTable(meta, entries)
}

// parsePart reads the header of one file, whether a part or all of a model.
func parsePart(r io.ReaderAt, size int64) (tensor.Meta, []tensor.Entry, error) {
	d := newDecoder(r, size)
	if err := d.magic(); err != nil {
		return nil, nil, err
	}
	tensors, err := d.count("tensor count", minInfo)
	if err != nil {
		return nil, nil, err
	}
	kvs, err := d.count("metadata count", minKV)
	if err != nil {
		return nil, nil, err
	}
	meta, err := d.meta(kvs)
	if err != nil {
		return nil, nil, err
	}
	align := int64(defaultAlignment)
	if a, ok := tensor.Lookup[uint32](meta, KeyAlignment); ok {
		align = int64(a)
	}
	entries, err := d.tensors(tensors, align, r)
	return meta, entries, err
}

// magic reads up to and including the version, and finds the byte order.
func (d *decoder) magic() error {
	b, err := d.next(4, "the magic")
	if err != nil {
		return err
	}
	if string(b) != Magic {
		return malformed(0, "not a GGUF file: it begins with %q, not %q", b, Magic)
	}
	v, err := d.uint32("the version")
	if err != nil {
		return err
	}
	if v != 0 && v&0xffff == 0 {
		// The version is small, so in the other byte order its low half is 0.
		d.order, v = binary.BigEndian, bits.ReverseBytes32(v)
	}
	switch {
	case v == 0:
		return malformed(4, "version 0")
	case v == 1:
		return hint.Add(unsupported(4, "version 1"), "convert the original model again; llama.cpp reads this file no more either")
	case v > version:
		return hint.Add(unsupported(4, "version %d; versions 2 and 3 are known", v), "the file is damaged, or newer than this version of nibble")
	}
	return nil
}

// meta reads n key-value pairs.
func (d *decoder) meta(n int64) (tensor.Meta, error) {
	var meta tensor.Meta
	seen := make(map[string]bool)
	for i := range n {
		at := d.off
		key, err := d.string()
		if err != nil {
			return nil, fmt.Errorf("metadata entry %d: %w", i, err)
		}
		switch {
		case key == "":
			return nil, malformed(at, "metadata entry %d has an empty key", i)
		case seen[key]:
			return nil, malformed(at, "key %q occurs twice", key)
		}
		seen[key] = true
		at = d.off
		value, err := readValue(d)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
		if key == KeyAlignment {
			if a, ok := value.(uint32); !ok {
				return nil, malformed(at, "key %q is a %T, not a uint32", key, value)
			} else if bits.OnesCount32(a) != 1 {
				return nil, malformed(at, "key %q is %d, not a power of two", key, a)
			}
		}
		meta = append(meta, tensor.KV{Key: key, Value: value})
	}
	return meta, nil
}

// place is where the data of a tensor is, relative to the data section.
type place struct {
	info        tensor.Info
	offset, end int64
}

// follow returns where the data of a tensor ends that begins at offset, and
// where that of the next one begins, and whether both fit an int64.
func follow(offset int64, info tensor.Info, align int64) (end, next int64, ok bool) {
	if end, ok = safeio.Add(offset, info.Size()); ok {
		next, ok = padded(end, align)
	}
	return end, next, ok
}

// padded returns n rounded up to a multiple of align, a power of two, and
// whether it fits an int64.
func padded(n, align int64) (int64, bool) {
	n, ok := safeio.Add(n, align-1)
	return n &^ (align - 1), ok
}

// tensors reads n tensor descriptions and finds their data.
func (d *decoder) tensors(n, align int64, r io.ReaderAt) ([]tensor.Entry, error) {
	var places []place
	seen := make(map[string]bool)
	next := int64(0) // where the data of the next tensor must begin
	for i := range n {
		at := d.off
		p, err := d.tensor(i)
		if err != nil {
			return nil, err
		}
		if seen[p.info.Name] {
			return nil, malformed(at, "tensor %q occurs twice", p.info.Name)
		}
		seen[p.info.Name] = true
		if p.offset != next {
			return nil, malformed(d.off-8, "tensor %q has its data at offset %d, not %d: there must be no gap and no overlap",
				p.info.Name, uint64(p.offset), next)
		}
		var ok bool
		if p.end, next, ok = follow(p.offset, p.info, align); !ok {
			return nil, malformed(at, "tensor %q: the data so far has more bytes than 64 bits can count", p.info.Name)
		}
		places = append(places, p)
	}
	if n == 0 {
		return nil, nil
	}
	start, _ := padded(d.off, align)
	entries := make([]tensor.Entry, n)
	for i, p := range places {
		// In this form no sum can overflow.
		if start > d.size || p.end > d.size-start {
			return nil, truncated(d.size, "the file ends here, before the data of tensor %q does; by its header it should have %d bytes",
				p.info.Name, uint64(start)+uint64(places[n-1].end))
		}
		entries[i] = tensor.Entry{Info: p.info, Open: func() (io.ReaderAt, error) {
			data := io.NewSectionReader(r, start+p.offset, p.info.Size())
			if d.order == binary.BigEndian {
				return swapped(p.info, data), nil
			}
			return data, nil
		}}
	}
	return entries, nil
}

// tensor reads the description of tensor i. The end of its place is not yet
// known.
func (d *decoder) tensor(i int64) (place, error) {
	at := d.off
	name, err := d.string()
	if err != nil {
		return place{}, fmt.Errorf("tensor %d: %w", i, err)
	}
	if why := badName(name); why != "" {
		return place{}, malformed(at, "tensor %.80q: %s", name, why)
	}
	p := place{info: tensor.Info{Name: name}}
	if err := d.shapeAndType(&p.info); err != nil {
		return place{}, fmt.Errorf("tensor %q: %w", name, err)
	}
	if err := p.info.Validate(); err != nil {
		return place{}, fmt.Errorf("at byte %d: %w", at, err)
	}
	offset, err := d.uint64("an offset")
	if err != nil {
		return place{}, fmt.Errorf("tensor %q: %w", name, err)
	}
	p.offset = int64(offset) // one that does not fit becomes negative, and is none that is asked for
	return p, nil
}

// shapeAndType reads what stands between the name and the offset.
func (d *decoder) shapeAndType(info *tensor.Info) error {
	at := d.off
	dims, err := d.uint32("the number of dimensions")
	if err != nil {
		return err
	}
	if dims > maxDims {
		return malformed(at, "%d dimensions; there can be %d", dims, maxDims)
	}
	for range dims {
		n, err := d.uint64("a dimension")
		if err != nil {
			return err
		}
		if int64(n) < 0 {
			return malformed(d.off-8, "a dimension of %d", int64(n))
		}
		info.Shape = append(info.Shape, int64(n))
	}
	slices.Reverse(info.Shape)
	if dims == 0 {
		info.Shape = tensor.Shape{1} // ggml knows no scalars
	}
	at = d.off
	id, err := d.uint32("a type")
	if err != nil {
		return err
	}
	if info.DType, err = dtypeOf(id); err != nil {
		return fmt.Errorf("at byte %d: %w", at, err)
	}
	return nil
}

// badName says why ggml cannot hold the name of a tensor, or nothing.
func badName(name string) string {
	switch {
	case len(name) > maxName:
		return fmt.Sprintf("the name has %d bytes; there can be %d", len(name), maxName)
	case strings.Contains(name, "\x00"):
		return "the name holds a zero byte, where ggml ends it"
	}
	return ""
}
