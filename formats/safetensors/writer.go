package safetensors

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/tensor"
)

// A Writer is a tensor.Sink that writes one safetensors file. The file has its
// name only once Finish has succeeded.
type Writer struct {
	path   string
	file   *fsx.File
	meta   tensor.Meta
	order  []placed // as in the file
	bodies []body   // as in the layout
	at     []int    // where in order each tensor of the layout is
	start  int64    // where in the file the data begins
	size   int64    // of the data
}

var _ tensor.Sink = (*Writer)(nil)

// Create starts writing the file path. Unless force is set it must not exist.
func Create(path string, force bool) (*Writer, error) {
	f, err := fsx.Create(path, force)
	if err != nil {
		return nil, err
	}
	return &Writer{path: path, file: f}, nil
}

// Begin implements tensor.Sink. Metadata values must be strings.
//
// The file's order is the layout's, sorted by the size of an element, largest
// first, with late tensors last. The format allows no padding between tensors,
// so this order alone puts each at a multiple of its element size. Elsewhere
// PyTorch does not view mapped bytes in a wider dtype ("self.storage_offset()
// must be divisible by ...", Tensor.view), and MLX copies them. The reference
// writer sorts for the same reason (prepare in tensor.rs).
func (w *Writer) Begin(meta tensor.Meta, layout []tensor.Info) error {
	err := w.begin(meta, layout)
	if err != nil {
		w.file.Abort()
		return fmt.Errorf("%s: %w", w.path, err)
	}
	return nil
}

func (w *Writer) begin(meta tensor.Meta, layout []tensor.Info) error {
	if err := check(meta, layout); err != nil {
		return err
	}
	w.meta = meta
	w.at = make([]int, len(layout))
	w.order = make([]placed, len(layout))
	for i, at := range fileOrder(layout) {
		w.at[at] = i
		w.order[i].info = layout[at]
	}
	// With late tensors at their largest, this is the longest that the header
	// can become, so the data can have its place now.
	end, err := place(w.order)
	if err != nil {
		return err
	}
	header, err := encodeHeader(meta, w.order, 0)
	if err != nil {
		return err
	}
	w.start, w.size = int64(len(header)), end
	if err := w.file.Reserve(w.start + end); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(header, 0); err != nil {
		return err
	}
	for i, info := range layout {
		if info.Late() {
			w.bodies = append(w.bodies, &late{name: info.Name})
		} else {
			w.bodies = append(w.bodies, fsx.NewRegion(w.file, w.path, w.start+w.order[w.at[i]].begin, info.Size()))
		}
	}
	return nil
}

// check returns an error if the format cannot hold the metadata or a tensor.
// Metadata values and the spelling of names are checked by encodeHeader.
func check(meta tensor.Meta, layout []tensor.Info) error {
	keys := make(map[string]bool, len(meta))
	for _, kv := range meta {
		if keys[kv.Key] {
			return fmt.Errorf("metadata %q: %w: the key occurs twice", kv.Key, tensor.ErrMalformed)
		}
		keys[kv.Key] = true
	}
	entries := make([]tensor.Entry, len(layout))
	for i, info := range layout {
		switch {
		case info.Name == metadataKey:
			return fmt.Errorf("tensor %q: %w: safetensors keeps the name for the metadata", info.Name, tensor.ErrUnsupported)
		case !holds(info.DType):
			return fmt.Errorf("tensor %q: %w: safetensors has no dtype %v", info.Name, tensor.ErrUnsupported, info.DType)
		}
		entries[i].Info = info
	}
	_, err := tensor.NewTable(meta, entries) // names and shapes
	return err
}

// fileOrder returns the indexes of the layout in the order of the file.
func fileOrder(layout []tensor.Info) []int {
	order := make([]int, len(layout))
	for i := range order {
		order[i] = i
	}
	rank := func(i int) int64 {
		if layout[i].Late() {
			return -1
		}
		if elems, bytes := layout[i].DType.Block(); elems == 1 {
			return bytes
		}
		return 1 // the sub-byte floats are read as bytes
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rank(b), rank(a)) })
	return order
}

// Body implements tensor.Sink.
func (w *Writer) Body(i int) (io.WriterAt, error) {
	if i < 0 || i >= len(w.bodies) {
		return nil, fmt.Errorf("%s: body %d of %d asked for", w.path, i, len(w.bodies))
	}
	return w.bodies[i], nil
}

// Finish implements tensor.Sink.
func (w *Writer) Finish() error {
	if err := w.finish(); err != nil {
		w.file.Abort()
		return fmt.Errorf("%s: %w", w.path, err)
	}
	return w.file.Commit()
}

func (w *Writer) finish() error {
	anyLate := false
	for i, b := range w.bodies {
		info := &w.order[w.at[i]].info
		if err := b.Complete(); err != nil {
			return fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		if l, ok := b.(*late); ok {
			anyLate = true
			info.Shape = tensor.Shape{int64(len(l.data))}
		}
	}
	if !anyLate {
		return nil
	}
	end, err := place(w.order)
	if err != nil {
		return err
	}
	w.size = end
	for i, b := range w.bodies {
		if l, ok := b.(*late); ok {
			if _, err := w.file.WriteAt(l.data, w.start+w.order[w.at[i]].begin); err != nil {
				return err
			}
		}
	}
	header, err := encodeHeader(w.meta, w.order, int(w.start))
	if err != nil {
		return err
	}
	if _, err := w.file.WriteAt(header, 0); err != nil {
		return err
	}
	return w.file.Truncate(w.start + end)
}

// Abort implements tensor.Sink.
func (w *Writer) Abort() error { return w.file.Abort() }

// Size returns the number of bytes of all tensors, without the header. Until
// Finish it counts late tensors at their largest.
func (w *Writer) Size() int64 { return w.size }

// A body takes the bytes of one tensor.
type body interface {
	io.WriterAt
	Complete() error
}

// late takes the bytes of a late tensor, whose place depends on the others'
// lengths.
type late struct {
	name string

	mu      sync.Mutex
	data    []byte
	written int
}

// WriteAt implements io.WriterAt.
func (l *late) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > tensor.MaxLate-int64(len(p)) {
		return 0, fmt.Errorf("tensor %q: %d bytes at %d of a late tensor, which has %d at most", l.name, len(p), off, tensor.MaxLate)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if need := int(off) + len(p) - len(l.data); need > 0 {
		l.data = append(l.data, make([]byte, need)...)
	}
	l.written += len(p)
	return copy(l.data[off:], p), nil
}

// Complete returns an error if there is a hole.
func (l *late) Complete() error {
	if l.written != len(l.data) {
		return fmt.Errorf("%d of %d bytes have been written", l.written, len(l.data))
	}
	return nil
}
