package parquet

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

const (
	magic     = "PAR1"
	encrypted = "PARE"

	// maxFooter is the greatest footer. They are a few kilobytes; those of
	// thousands of columns and row groups a few megabytes.
	maxFooter = 16 << 20
)

// footer is what is read of a file's metadata.
type footer struct {
	schema []element
	rows   int64
	groups []rowGroup
}

// element is a column, or a group of columns.
type element struct {
	physical   int64 // noType for a group
	length     int64 // of FIXED_LEN_BYTE_ARRAY
	repetition int64
	name       string
	children   int64
	kind       kind
	scale      int64
	unit       int64 // of times: the digits after the second
}

type rowGroup struct {
	columns []chunk
	rows    int64
}

// chunk is one column in a row group.
type chunk struct {
	physical int64
	codec    int64
	values   int64
	start    int64
	size     int64
}

// readFooter reads the metadata at the end of a file.
func readFooter(r io.ReaderAt, size int64) (*footer, error) {
	var ends [8]byte
	if size < 12 {
		return nil, fmt.Errorf("%w: %d bytes are no Parquet file", tensor.ErrMalformed, size)
	}
	if _, err := r.ReadAt(ends[:4], 0); err != nil {
		return nil, err
	}
	begin := string(ends[:4])
	if _, err := r.ReadAt(ends[:], size-8); err != nil {
		return nil, err
	}
	switch end := string(ends[4:]); {
	case begin == encrypted || end == encrypted:
		return nil, hint.Add(fmt.Errorf("%w: an encrypted Parquet file", tensor.ErrUnsupported), "decrypt the file first")
	case begin != magic:
		return nil, fmt.Errorf("%w: the file begins with %q, not %q as Parquet does", tensor.ErrMalformed, begin, magic)
	case end != magic:
		return nil, hint.Add(fmt.Errorf("%w: the file ends with %q, not %q as Parquet does", tensor.ErrMalformed, end, magic),
			"the file was cut off: download it again")
	}
	n := int64(binary.LittleEndian.Uint32(ends[:]))
	if n > size-12 || n > maxFooter {
		return nil, fmt.Errorf("%w: a footer of %d bytes in a file of %d", tensor.ErrMalformed, n, size)
	}
	b, err := safeio.ReadN(io.NewSectionReader(r, size-8-n, n), uint64(n))
	if err != nil {
		return nil, err
	}
	t := &thrift{b: b}
	var f footer
	t.fields(func(id int64, kind byte) {
		switch id {
		case 2:
			t.list(kind, func(kind byte) {
				if f.schema = append(f.schema, readElement(t, kind)); len(f.schema) > 4*maxColumns {
					t.fail(fmt.Errorf("%w: a schema of more than %d elements", tensor.ErrUnsupported, 4*maxColumns))
				}
			})
		case 3:
			f.rows = t.integer(kind)
		case 4:
			t.list(kind, func(kind byte) { f.groups = append(f.groups, readGroup(t, kind)) })
		case 8:
			t.fail(hint.Add(fmt.Errorf("%w: an encrypted Parquet file", tensor.ErrUnsupported), "decrypt the file first"))
		default:
			t.skip(kind, false)
		}
	})
	if t.err != nil {
		return nil, fmt.Errorf("footer: %w", t.err)
	}
	return &f, nil
}

func readElement(t *thrift, kind byte) element {
	e := element{physical: noType, unit: -1}
	t.structure(kind, func(id int64, kind byte) {
		switch id {
		case 1:
			e.physical = t.integer(kind)
		case 2:
			e.length = t.integer(kind)
		case 3:
			e.repetition = t.integer(kind)
		case 4:
			e.name = t.text(kind)
		case 5:
			e.children = t.integer(kind)
		case 6:
			e.converted(t.integer(kind))
		case 7:
			e.scale = t.integer(kind)
		case 10:
			e.logical(t, kind)
		default:
			t.skip(kind, false)
		}
	})
	return e
}

func readGroup(t *thrift, kind byte) rowGroup {
	var g rowGroup
	t.structure(kind, func(id int64, kind byte) {
		switch id {
		case 1:
			t.list(kind, func(kind byte) { g.columns = append(g.columns, readChunk(t, kind)) })
		case 3:
			g.rows = t.integer(kind)
		default:
			t.skip(kind, false)
		}
	})
	if len(g.columns) == 0 {
		t.fail(fmt.Errorf("%w: a row group without columns", tensor.ErrMalformed))
	}
	return g
}

func readChunk(t *thrift, kind byte) chunk {
	var c chunk
	var dictionary int64
	t.structure(kind, func(id int64, kind byte) {
		switch id {
		case 1:
			t.fail(fmt.Errorf("%w: a column in another file, %.100q", tensor.ErrUnsupported, t.text(kind)))
		case 3:
			t.structure(kind, func(id int64, kind byte) {
				switch id {
				case 1:
					c.physical = t.integer(kind)
				case 4:
					c.codec = t.integer(kind)
				case 5:
					c.values = t.integer(kind)
				case 7:
					c.size = t.integer(kind)
				case 9:
					c.start = t.integer(kind)
				case 11:
					dictionary = t.integer(kind)
				default:
					t.skip(kind, false)
				}
			})
		case 8, 9:
			t.fail(hint.Add(fmt.Errorf("%w: an encrypted Parquet file", tensor.ErrUnsupported), "decrypt the file first"))
		default:
			t.skip(kind, false)
		}
	})
	if c.start < int64(len(magic)) {
		t.fail(fmt.Errorf("%w: a column that is at byte %d", tensor.ErrMalformed, c.start))
	}
	if dictionary > 0 && dictionary < c.start {
		c.start = dictionary
	}
	return c
}
