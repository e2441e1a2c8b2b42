package gguf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// SplitOptions says where a new part begins. The zero value splits nothing.
type SplitOptions struct {
	// MaxSize is the largest sum of the sizes of a part's tensors, in bytes,
	// headers and padding not counted; 0 sets no limit. A tensor that is larger
	// has a part to itself.
	MaxSize int64

	// MaxTensors is the largest number of tensors of a part; 0 sets no limit.
	MaxTensors int

	// NoTensorFirst makes a first part of the metadata alone.
	NoTensorFirst bool
}

// divide returns the tensors of each part, as gguf-py's GGUFWriter divides them.
func (o SplitOptions) divide(layout []tensor.Info) [][]tensor.Info {
	var parts [][]tensor.Info
	if o.NoTensorFirst {
		parts = append(parts, nil)
	}
	start, size := 0, int64(0)
	for i, info := range layout {
		next := info.Size()
		if i > start && (o.MaxTensors > 0 && i-start >= o.MaxTensors || o.MaxSize > 0 && next > o.MaxSize-size) {
			parts = append(parts, layout[start:i])
			start, size = i, 0
		}
		size += next
	}
	return append(parts, layout[start:])
}

// SplitWriter is a tensor.Sink that writes a model as a Writer does, but in
// several files. What is in which, and every byte, is as gguf-py's GGUFWriter
// has it.
type SplitWriter struct {
	path    string
	options SplitOptions
	force   bool

	parts  []*Writer
	starts []int // of each part: its first tensor
}

var _ tensor.Sink = (*SplitWriter)(nil)

// CreateSplit starts writing a model whose parts are named after path: of
// PATH.gguf the first is PATH-00001-of-00003.gguf. If all of it fits in one
// part, the file is path. Unless force is set, no file may exist; this, and
// whether path can be written at all, shows when the parts are known, in Begin.
func CreateSplit(path string, o SplitOptions, force bool) (*SplitWriter, error) {
	if o.MaxSize < 0 || o.MaxTensors < 0 {
		return nil, fmt.Errorf("%s: a part cannot be limited to %d bytes or %d tensors", path, o.MaxSize, o.MaxTensors)
	}
	return &SplitWriter{path: path, options: o, force: force}, nil
}

// Paths returns the names the files will have. They are known once Begin has
// been called.
func (w *SplitWriter) Paths() []string {
	var paths []string
	for _, p := range w.parts {
		paths = append(paths, p.path)
	}
	return paths
}

// Begin implements tensor.Sink. The metadata is that of a Writer; what it says
// of parts is replaced.
func (w *SplitWriter) Begin(meta tensor.Meta, layout []tensor.Info) error {
	err := w.begin(meta, layout)
	if err != nil {
		w.Abort()
	}
	return err
}

func (w *SplitWriter) begin(meta tensor.Meta, layout []tensor.Info) error {
	if w.parts != nil {
		return fmt.Errorf("%s: writing has begun already", w.path)
	}
	parts, err := w.options.parts(meta, layout)
	if err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	at := 0
	for i, part := range parts {
		path := w.path
		if len(parts) > 1 {
			path = stem(w.path) + partSuffix(i, len(parts))
		}
		p, err := Create(path, w.force)
		if err != nil {
			return err
		}
		w.parts, w.starts = append(w.parts, p), append(w.starts, at)
		if err := p.begin(part.meta, part.layout); err != nil {
			return err
		}
		at += len(part.layout)
	}
	return nil
}

// part is the content of one file.
type part struct {
	meta   tensor.Meta
	layout []tensor.Info
}

// parts returns the files of a model.
func (o SplitOptions) parts(meta tensor.Meta, layout []tensor.Info) ([]part, error) {
	seen := make(map[string]bool, len(layout))
	for _, info := range layout {
		if err := info.Validate(); err != nil {
			return nil, err
		}
		if seen[info.Name] {
			return nil, fmt.Errorf("tensor %q: %w: the name occurs twice", info.Name, tensor.ErrMalformed)
		}
		seen[info.Name] = true
	}
	divided := o.divide(layout)
	if len(divided) > math.MaxUint16 || len(layout) > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d parts of %d tensors; GGUF can count %d and %d", tensor.ErrUnsupported,
			len(divided), len(layout), math.MaxUint16, math.MaxInt32)
	}
	meta = slices.DeleteFunc(slices.Clone(meta), ofSplit)
	var parts []part
	for i, infos := range divided {
		if len(divided) > 1 {
			meta = append(meta,
				tensor.KV{Key: KeySplitNo, Value: uint16(i)},
				tensor.KV{Key: KeySplitCount, Value: uint16(len(divided))},
				tensor.KV{Key: KeySplitTensors, Value: int32(len(layout))})
		}
		parts = append(parts, part{meta, infos})
		meta = nil
	}
	return parts, nil
}

// Sizes returns how many bytes each file has that a SplitWriter makes of a model.
func (o SplitOptions) Sizes(meta tensor.Meta, layout []tensor.Info) ([]int64, error) {
	parts, err := o.parts(meta, layout)
	if err != nil {
		return nil, err
	}
	sizes := make([]int64, len(parts))
	for i, p := range parts {
		h, err := newHeader(p.meta, p.layout)
		if err != nil {
			return nil, err
		}
		sizes[i] = h.size
	}
	return sizes, nil
}

// stem returns a path without the extension of its name.
func stem(path string) string {
	name := filepath.Base(path)
	if i := strings.LastIndexByte(name, '.'); i > 0 && i < len(name)-1 {
		return path[:len(path)-len(name)+i]
	}
	return path
}

// Body implements tensor.Sink.
func (w *SplitWriter) Body(i int) (io.WriterAt, error) {
	// The part that holds tensor i is the last that does not begin after it. One
	// without tensors begins where the next does.
	part := sort.SearchInts(w.starts, i+1) - 1
	if part < 0 {
		return nil, fmt.Errorf("%s: there is no tensor %d", w.path, i)
	}
	return w.parts[part].Body(i - w.starts[part])
}

// Finish implements tensor.Sink. The files get their names once all are durable,
// the first last: without it the others are of no use, so a crash leaves no
// model that looks whole and is not. For the same reason a first part that is
// to be replaced is removed before.
func (w *SplitWriter) Finish() error {
	if err := w.finish(); err != nil {
		w.Abort()
		return err
	}
	return nil
}

func (w *SplitWriter) finish() error {
	if w.parts == nil {
		return fmt.Errorf("%s: nothing has been written", w.path)
	}
	for _, p := range w.parts {
		if err := p.complete(); err != nil {
			return fmt.Errorf("%s: %w", p.path, err)
		}
	}
	for _, p := range w.parts {
		if err := p.file.Sync(); err != nil {
			return safeio.WithPath(p.path, err)
		}
	}
	first := w.parts[0].path
	if w.force && len(w.parts) > 1 {
		if err := os.Remove(first); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return safeio.WithPath(first, err)
		}
	}
	for i, p := range slices.Backward(w.parts) {
		if err := p.file.Commit(); err != nil {
			for _, named := range w.parts[i+1:] {
				os.Remove(named.path)
			}
			return err
		}
	}
	return nil
}

// Abort implements tensor.Sink.
func (w *SplitWriter) Abort() error {
	var errs []error
	for _, p := range w.parts {
		errs = append(errs, p.Abort())
	}
	return errors.Join(errs...)
}
