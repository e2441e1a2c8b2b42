package tensor

import (
	"fmt"
	"io"
	"iter"
)

// A Source is an immutable set of named tensors. It is safe for concurrent
// use, and reading from it needs memory only for what is asked for.
type Source interface {
	// All yields every tensor in a deterministic order: that of the file, or
	// of the rule that a derived Source is made by. Names are unique and every
	// Info is valid.
	All() iter.Seq[Info]

	// Info returns the description of one tensor, or an error that wraps
	// ErrNotFound and names it.
	Info(name string) (Info, error)

	// Raw returns a reader over the stored bytes of a tensor: exactly
	// Info.Size of them, with a cursor of its own. A derived Source computes
	// the bytes as they are read; whole rows are the natural unit.
	Raw(name string) (*io.SectionReader, error)

	// Meta returns the file's metadata, in order.
	Meta() Meta
}

// Entry is one tensor of a Table: its description and how to open its bytes.
type Entry struct {
	Info Info

	// Open returns the Info.Size stored bytes. What it returns is used
	// concurrently.
	Open func() (io.ReaderAt, error)
}

// Table is a Source assembled from entries. Readers build one from a header;
// derived Sources build one from the entries of another.
type Table struct {
	meta    Meta
	entries []Entry
	index   map[string]int
}

var _ Source = (*Table)(nil)

// NewTable returns a Source of the given entries, in that order. It returns an
// error that wraps ErrMalformed if an Info is not valid or a name occurs twice.
func NewTable(meta Meta, entries []Entry) (*Table, error) {
	t := &Table{meta: meta, entries: entries, index: make(map[string]int, len(entries))}
	for i, e := range entries {
		if err := e.Info.Validate(); err != nil {
			return nil, err
		}
		if _, dup := t.index[e.Info.Name]; dup {
			return nil, fmt.Errorf("tensor %q: %w: the name occurs twice", e.Info.Name, ErrMalformed)
		}
		t.index[e.Info.Name] = i
	}
	return t, nil
}

// All implements Source.
func (t *Table) All() iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for _, e := range t.entries {
			if !yield(e.Info) {
				return
			}
		}
	}
}

// Info implements Source.
func (t *Table) Info(name string) (Info, error) {
	i, ok := t.index[name]
	if !ok {
		return Info{}, fmt.Errorf("tensor %q: %w", name, ErrNotFound)
	}
	return t.entries[i].Info, nil
}

// Raw implements Source.
func (t *Table) Raw(name string) (*io.SectionReader, error) {
	i, ok := t.index[name]
	if !ok {
		return nil, fmt.Errorf("tensor %q: %w", name, ErrNotFound)
	}
	r, err := t.entries[i].Open()
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	return io.NewSectionReader(r, 0, t.entries[i].Info.Size()), nil
}

// Meta implements Source.
func (t *Table) Meta() Meta { return t.meta }

// Forward returns the entry that passes the tensor of src on unchanged, under
// the name of info if that differs. It is how a derived Source keeps what it
// does not change.
func Forward(src Source, info Info, as string) Entry {
	name := info.Name
	info.Name = as
	return Entry{Info: info, Open: func() (io.ReaderAt, error) { return src.Raw(name) }}
}

// Has reports whether src has a tensor of that name.
func Has(src Source, name string) bool {
	_, err := src.Info(name)
	return err == nil
}
