package parquet

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// maxPage is the greatest page, packed or not.
	maxPage = 256 << 20

	// maxHeader is the greatest header of a page, which is some twenty bytes, and
	// more with statistics.
	maxHeader = 64 << 10

	// maxPageValues bounds the values of a page, of which a repeated one takes no
	// room.
	maxPageValues = 1 << 27
)

// Page types.
const (
	pageData       = 0
	pageIndex      = 1
	pageDictionary = 2
	pageData2      = 3
)

// column reads one column of a row group, value by value.
type column struct {
	*node
	in    *bufio.Reader
	chunk chunk
	dict  *dict

	left     int64 // values that no page has given
	inPage   int64 // values left in the page
	reps     hybrid
	defs     hybrid
	values   values
	ended    bool
	rep, def int   // of the value that is next
	datum    datum // if def says that there is one
}

func newColumn(n *node, c chunk, r io.ReaderAt, size int64) (*column, error) {
	end, ok := safeio.Add(max(0, c.start), max(0, c.size))
	if c.start < int64(len(magic)) || c.size < 0 || c.values < 0 || !ok || end > size-8 {
		return nil, n.fail(fmt.Errorf("%w: %d values in %d bytes at %d of a file of %d", tensor.ErrMalformed, c.values, c.size, c.start, size))
	}
	if c.physical != n.physical {
		return nil, n.fail(fmt.Errorf("%w: the physical type %d, and %d in the schema", tensor.ErrMalformed, c.physical, n.physical))
	}
	return &column{node: n, chunk: c, left: c.values, in: bufio.NewReaderSize(io.NewSectionReader(r, c.start, c.size), maxHeader)}, nil
}

// fail puts the column's name first.
func (n *node) fail(err error) error {
	return fmt.Errorf("column %.100q: %w", n.path, err)
}

// advance takes the next value. After the last one ended is set.
func (c *column) advance() error {
	if err := c.take(); err != nil {
		return c.fail(err)
	}
	return nil
}

func (c *column) take() error {
	for c.inPage == 0 {
		if c.left == 0 {
			c.ended = true
			return nil
		}
		if err := c.page(); err != nil {
			return err
		}
	}
	c.inPage--
	var err error
	if c.rep, err = level(&c.reps, c.node.rep); err != nil {
		return err
	}
	if c.def, err = level(&c.defs, c.node.def); err != nil {
		return err
	}
	if c.def < c.node.def {
		return nil
	}
	c.datum, err = c.values.next()
	return err
}

// level returns the next of some levels, of which the greatest is known; of those
// that can be nothing but 0 none are stored.
func level(from *hybrid, most int) (int, error) {
	if most == 0 {
		return 0, nil
	}
	v, err := from.next()
	if err == nil && int64(v) > int64(most) {
		err = fmt.Errorf("%w: a level of %d, at most %d in the schema", tensor.ErrMalformed, v, most)
	}
	return int(v), err
}

// pageHeader is what is read of a page's header.
type pageHeader struct {
	kind                 int64
	plain, packed        int64 // sizes
	crc                  int64
	checked              bool
	values, encoding     int64
	defLevels, repLevels int64 // encodings in version 1, sizes in version 2
	isPlain              bool  // version 2 whose values are not packed
}

func (c *column) header() (pageHeader, error) {
	for n := 512; ; n = maxHeader {
		b, err := c.in.Peek(n)
		if err != nil && err != io.EOF {
			return pageHeader{}, err
		}
		t := &thrift{b: b}
		h := readHeader(t)
		switch {
		case t.err == nil:
			_, err := c.in.Discard(len(b) - len(t.b))
			return h, err
		case !errors.Is(t.err, errShort) || n == maxHeader || err == io.EOF:
			return pageHeader{}, fmt.Errorf("the header of a page: %w", t.err)
		}
	}
}

func readHeader(t *thrift) pageHeader {
	var h pageHeader
	t.fields(func(id int64, kind byte) {
		switch id {
		case 1:
			h.kind = t.integer(kind)
		case 2:
			h.plain = t.integer(kind)
		case 3:
			h.packed = t.integer(kind)
		case 4:
			h.crc, h.checked = t.integer(kind), true
		case 5, 7, 8:
			t.structure(kind, func(field int64, kind byte) {
				switch {
				case field == 1:
					h.values = t.integer(kind)
				case field == 2 && id != 8 || field == 4 && id == 8:
					h.encoding = t.integer(kind)
				case field == 3 && id == 5 || field == 5 && id == 8:
					h.defLevels = t.integer(kind)
				case field == 4 && id == 5 || field == 6 && id == 8:
					h.repLevels = t.integer(kind)
				case field == 7 && id == 8:
					h.isPlain = !t.boolean(kind)
				default:
					t.skip(kind, false)
				}
			})
		default:
			t.skip(kind, false)
		}
	})
	return h
}

// page reads the next page of data, and the dictionary if that comes first.
func (c *column) page() error {
	h, err := c.header()
	if err != nil {
		return err
	}
	if h.packed < 0 || h.plain < 0 || h.packed > maxPage || h.plain > maxPage {
		return hint.Add(fmt.Errorf("%w: a page of %d bytes, %d when unpacked; at most %d MiB are read", tensor.ErrUnsupported, h.packed, h.plain, maxPage>>20),
			"write the file again with smaller pages, as pyarrow does with its defaults")
	}
	if h.values < 0 || h.values > maxPageValues {
		return fmt.Errorf("%w: a page of %d values", tensor.ErrUnsupported, h.values)
	}
	b, err := safeio.ReadN(c.in, uint64(h.packed))
	if err != nil {
		return fmt.Errorf("%w: a page of %d bytes goes on after the column's end", tensor.ErrMalformed, h.packed)
	}
	if h.checked && uint32(h.crc) != crc32.ChecksumIEEE(b) {
		return fmt.Errorf("%w: a page's checksum differs", tensor.ErrMalformed)
	}
	switch h.kind {
	case pageData:
		return c.data(h, b)
	case pageData2:
		return c.data2(h, b)
	case pageDictionary:
		if c.dict != nil {
			return fmt.Errorf("%w: two dictionaries", tensor.ErrMalformed)
		}
		if h.encoding != encPlain && h.encoding != encPlainDictionary {
			return fmt.Errorf("%w: a dictionary in the encoding %d", tensor.ErrUnsupported, h.encoding)
		}
		if b, err = c.unpack(b, h.plain); err != nil {
			return err
		}
		c.dict, err = newDict(c.node, b, h.values)
		return err
	}
	return nil // an index, or what a later version has
}

// data begins a page of version 1, which is packed as a whole.
func (c *column) data(h pageHeader, b []byte) error {
	b, err := c.unpack(b, h.plain)
	if err != nil {
		return err
	}
	for _, level := range []struct {
		to       *hybrid
		most     int
		encoding int64
	}{{&c.reps, c.node.rep, h.repLevels}, {&c.defs, c.node.def, h.defLevels}} {
		if level.most == 0 {
			continue
		}
		if level.encoding != encRLE {
			return fmt.Errorf("%w: levels in the encoding %d", tensor.ErrUnsupported, level.encoding)
		}
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return errValues
		}
		n := binary.LittleEndian.Uint32(b)
		*level.to = hybrid{b: b[4:][:n], width: width(level.most)}
		b = b[4+n:]
	}
	return c.begin(h, b)
}

// data2 begins a page of version 2, of which only the values are packed.
func (c *column) data2(h pageHeader, b []byte) error {
	levels := h.repLevels + h.defLevels
	if h.repLevels < 0 || h.defLevels < 0 || levels < 0 || levels > int64(len(b)) || levels > h.plain {
		return errValues
	}
	c.reps = hybrid{b: b[:h.repLevels], width: width(c.node.rep)}
	c.defs = hybrid{b: b[h.repLevels:levels], width: width(c.node.def)}
	b = b[levels:]
	if !h.isPlain && len(b) > 0 {
		var err error
		if b, err = c.unpack(b, h.plain-levels); err != nil {
			return err
		}
	}
	return c.begin(h, b)
}

func (c *column) begin(h pageHeader, b []byte) error {
	if h.values > c.left {
		return fmt.Errorf("%w: a page of %d values where %d are left", tensor.ErrMalformed, h.values, c.left)
	}
	c.left -= h.values
	c.inPage = h.values
	var err error
	c.values, err = c.decode(h.encoding, b, h.values, c.dict)
	return err
}

// codecs unpack pages, by their numbers in the format.
var codecs = map[int64]struct {
	name   string
	unpack func(b []byte, size int64) ([]byte, error)
}{
	0: {"none", func(b []byte, _ int64) ([]byte, error) { return b, nil }},
	1: {"snappy", unpackSnappy},
	2: {"gzip", func(b []byte, size int64) ([]byte, error) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		return safeio.ReadN(z, uint64(size))
	}},
	6: {"zstd", func(b []byte, size int64) ([]byte, error) {
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return safeio.ReadN(z, uint64(size))
	}},
}

// maxWindow is the most memory that zstd may ask for. Pages are small.
const maxWindow = 32 << 20

// unpack returns the content of a page, which is to be of the given size.
func (c *column) unpack(b []byte, size int64) ([]byte, error) {
	codec, ok := codecs[c.chunk.codec]
	if !ok {
		return nil, hint.Add(fmt.Errorf("%w: pages packed with the codec %d", tensor.ErrUnsupported, c.chunk.codec), "write the file again packed with snappy or zstd")
	}
	out, err := codec.unpack(b, size)
	if err != nil {
		return nil, fmt.Errorf("%w: a page cannot be unpacked (%s): %v", tensor.ErrMalformed, codec.name, err)
	}
	if int64(len(out)) != size {
		return nil, fmt.Errorf("%w: a page of %d bytes; want %d", tensor.ErrMalformed, len(out), size)
	}
	return out, nil
}

// unpackSnappy checks the size that b declares: no three bytes of Snappy stand for
// more than 64.
func unpackSnappy(b []byte, size int64) ([]byte, error) {
	n, err := s2.DecodedLen(b)
	if err != nil {
		return nil, err
	}
	if int64(n) != size || n/22 > len(b) {
		return nil, fmt.Errorf("%d bytes that are said to become %d", len(b), n)
	}
	return s2.Decode(nil, b)
}
