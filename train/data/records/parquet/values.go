package parquet

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/seed18967229/nibble/tensor"
)

// Encodings.
const (
	encPlain           = 0
	encPlainDictionary = 2
	encRLE             = 3
	encDelta           = 5
	encDeltaLength     = 6
	encDeltaBytes      = 7
	encDictionary      = 8
	encSplit           = 9
)

// datum is one value: a number's bits, or bytes, valid until the next value.
type datum struct {
	bits  uint64
	bytes []byte
}

// values are the values of a page that are not null, in order.
type values interface {
	next() (datum, error)
}

// valueSize returns the bytes of a value of a physical type, 0 if they differ.
func (n *node) valueSize() int {
	switch n.physical {
	case typeInt32, typeFloat:
		return 4
	case typeInt64, typeDouble:
		return 8
	case typeInt96:
		return 12
	case typeFixed:
		return int(n.length)
	}
	return 0
}

func (n *node) isBytes() bool {
	return n.physical == typeBytes || n.physical == typeFixed || n.physical == typeInt96
}

// decode returns the values in b.
func (n *node) decode(encoding int64, b []byte, count int64, dict *dict) (values, error) {
	switch size := n.valueSize(); {
	case encoding == encPlain && n.physical == typeBool:
		return &packedBools{b: b}, nil
	case encoding == encPlain && n.physical == typeBytes:
		return &plainBytes{b}, nil
	case encoding == encPlain:
		return &plainFixed{b: b, size: size, bytes: n.isBytes()}, nil
	case encoding == encPlainDictionary || encoding == encDictionary:
		if dict == nil {
			return nil, fmt.Errorf("%w: a page without the dictionary it needs", tensor.ErrMalformed)
		}
		return newIndices(b, dict)
	case encoding == encRLE && n.physical == typeBool:
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return nil, errValues
		}
		return &levelBools{hybrid{b: b[4:][:binary.LittleEndian.Uint32(b)], width: 1}}, nil
	case encoding == encDelta && (n.physical == typeInt32 || n.physical == typeInt64):
		d, err := newDelta(b, count)
		return d, err
	case encoding == encDeltaLength && n.physical == typeBytes:
		return newDeltaLength(b, count)
	case encoding == encDeltaBytes && (n.physical == typeBytes || n.physical == typeFixed):
		return newDeltaBytes(b, count, n)
	case encoding == encSplit && size > 0:
		return &split{b: b, n: len(b) / size, size: size, bytes: n.isBytes()}, nil
	}
	return nil, fmt.Errorf("%w: values of the physical type %d in the encoding %d", tensor.ErrUnsupported, n.physical, encoding)
}

type packedBools struct {
	b  []byte
	at int
}

func (p *packedBools) next() (datum, error) {
	if p.at >= 8*len(p.b) {
		return datum{}, errValues
	}
	v := p.b[p.at/8] >> (p.at % 8) & 1
	p.at++
	return datum{bits: uint64(v)}, nil
}

type levelBools struct{ hybrid }

func (l *levelBools) next() (datum, error) {
	v, err := l.hybrid.next()
	return datum{bits: uint64(v)}, err
}

type plainBytes struct{ b []byte }

func (p *plainBytes) next() (datum, error) {
	if len(p.b) < 4 {
		return datum{}, errValues
	}
	n := binary.LittleEndian.Uint32(p.b)
	if uint64(n) > uint64(len(p.b)-4) {
		return datum{}, errValues
	}
	v := p.b[4:][:n]
	p.b = p.b[4+n:]
	return datum{bytes: v}, nil
}

type plainFixed struct {
	b     []byte
	size  int
	bytes bool
}

func (p *plainFixed) next() (datum, error) {
	if len(p.b) < p.size {
		return datum{}, errValues
	}
	v := p.b[:p.size]
	p.b = p.b[p.size:]
	if p.bytes {
		return datum{bytes: v}, nil
	}
	return datum{bits: little(v)}, nil
}

// split has the first bytes of all values, then the second ones, and so on.
type split struct {
	b       []byte
	n, size int
	at      int
	bytes   bool
	value   []byte
}

func (s *split) next() (datum, error) {
	if s.at >= s.n {
		return datum{}, errValues
	}
	s.value = s.value[:0]
	for i := range s.size {
		s.value = append(s.value, s.b[i*s.n+s.at])
	}
	s.at++
	if s.bytes {
		return datum{bytes: s.value}, nil
	}
	return datum{bits: little(s.value)}, nil
}

// dict is the values of a dictionary page.
type dict struct {
	n     *node
	b     []byte
	ends  []uint32 // of bytes of different lengths
	count int
}

func newDict(n *node, b []byte, count int64) (*dict, error) {
	d := &dict{n: n, b: b}
	switch size := n.valueSize(); {
	case n.physical == typeBool:
		return nil, fmt.Errorf("%w: a dictionary of booleans", tensor.ErrMalformed)
	case size > 0:
		d.count = len(b) / size
	default:
		p := &plainBytes{b}
		for len(p.b) > 0 && int64(len(d.ends)) < count {
			if _, err := p.next(); err != nil {
				return nil, err
			}
			d.ends = append(d.ends, uint32(len(b)-len(p.b)))
		}
		d.count = len(d.ends)
	}
	if int64(d.count) < count {
		return nil, errValues
	}
	return d, nil
}

func (d *dict) value(i uint32) (datum, error) {
	if uint64(i) >= uint64(d.count) {
		return datum{}, fmt.Errorf("%w: value %d of a dictionary of %d", tensor.ErrMalformed, i, d.count)
	}
	if size := d.n.valueSize(); size > 0 {
		v := d.b[int(i)*size:][:size]
		if d.n.isBytes() {
			return datum{bytes: v}, nil
		}
		return datum{bits: little(v)}, nil
	}
	from := uint32(0)
	if i > 0 {
		from = d.ends[i-1]
	}
	return datum{bytes: d.b[from+4 : d.ends[i]]}, nil
}

// indices are values of a dictionary.
type indices struct {
	hybrid
	dict *dict
}

func newIndices(b []byte, d *dict) (values, error) {
	if len(b) == 0 {
		return &indices{dict: d}, nil // of nothing but nulls
	}
	if b[0] > 32 {
		return nil, fmt.Errorf("%w: indices of %d bits", tensor.ErrMalformed, b[0])
	}
	return &indices{hybrid{b: b[1:], width: int(b[0])}, d}, nil
}

func (x *indices) next() (datum, error) {
	i, err := x.hybrid.next()
	if err != nil {
		return datum{}, err
	}
	return x.dict.value(i)
}

// delta reads whole numbers as differences in blocks of several widths.
type delta struct {
	b         []byte
	perMini   int
	minis     int
	total     uint64 // values not yet returned
	first     bool
	value     uint64
	least     uint64 // difference of the block
	widths    []byte // of the small blocks that are left in the block
	mini      []byte
	at, width int
	left      int // in mini
}

func newDelta(b []byte, count int64) (*delta, error) {
	var head [4]uint64
	for i := range head {
		var err error
		if head[i], b, err = uvarint(b); err != nil {
			return nil, errValues
		}
	}
	block, minis := head[0], head[1]
	if minis < 1 || minis > 512 || block > 1<<20 || block%minis != 0 || block/minis%8 != 0 || block == 0 {
		return nil, fmt.Errorf("%w: blocks of %d values in %d parts", tensor.ErrMalformed, block, minis)
	}
	if head[2] > uint64(count) {
		return nil, fmt.Errorf("%w: %d values in a page of %d", tensor.ErrMalformed, head[2], count)
	}
	return &delta{b: b, perMini: int(block / minis), minis: int(minis), total: head[2], first: true, value: uint64(zigzag(head[3]))}, nil
}

func (d *delta) next() (datum, error) {
	v, err := d.number()
	return datum{bits: v}, err
}

func (d *delta) number() (uint64, error) {
	if d.total == 0 {
		return 0, errValues
	}
	d.total--
	if d.first {
		d.first = false
		return d.value, nil
	}
	if d.left == 0 {
		if err := d.load(); err != nil {
			return 0, err
		}
	}
	d.value += d.least + unpack(d.mini, d.at, d.width)
	d.at += d.width
	d.left--
	return d.value, nil
}

// load begins the next small block.
func (d *delta) load() error {
	if len(d.widths) == 0 {
		least, rest, err := uvarint(d.b)
		if err != nil || len(rest) < d.minis {
			return errValues
		}
		d.least = uint64(zigzag(least))
		d.widths, d.b = rest[:d.minis], rest[d.minis:]
	}
	d.width = int(d.widths[0])
	d.widths = d.widths[1:]
	n := d.perMini / 8 * d.width
	if d.width > 64 || n > len(d.b) {
		return errValues
	}
	d.mini, d.b, d.at, d.left = d.b[:n], d.b[n:], 0, d.perMini
	return nil
}

// end returns what follows the numbers.
func (d *delta) end() ([]byte, error) {
	all := *d
	for all.total > 0 {
		if _, err := all.number(); err != nil {
			return nil, err
		}
	}
	return all.b, nil
}

// deltaLength has the lengths of all values in front.
type deltaLength struct {
	lengths *delta
	b       []byte
}

func newDeltaLength(b []byte, count int64) (*deltaLength, error) {
	lengths, err := newDelta(b, count)
	if err != nil {
		return nil, err
	}
	rest, err := lengths.end()
	return &deltaLength{lengths, rest}, err
}

func (d *deltaLength) next() (datum, error) {
	n, err := d.lengths.number()
	if err != nil || n > uint64(len(d.b)) {
		return datum{}, errValues
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return datum{bytes: v}, nil
}

// deltaBytes has how much of the value before is the beginning of each.
type deltaBytes struct {
	prefixes *delta
	suffixes *deltaLength
	value    []byte
	n        *node
}

func newDeltaBytes(b []byte, count int64, n *node) (*deltaBytes, error) {
	prefixes, err := newDelta(b, count)
	if err != nil {
		return nil, err
	}
	rest, err := prefixes.end()
	if err != nil {
		return nil, err
	}
	suffixes, err := newDeltaLength(rest, count)
	return &deltaBytes{prefixes: prefixes, suffixes: suffixes, n: n}, err
}

func (d *deltaBytes) next() (datum, error) {
	n, err := d.prefixes.number()
	if err != nil || n > uint64(len(d.value)) {
		return datum{}, errValues
	}
	s, err := d.suffixes.next()
	if err != nil {
		return datum{}, err
	}
	d.value = append(d.value[:n], s.bytes...)
	if len(d.value) > maxPage || d.n.physical == typeFixed && len(d.value) != int(d.n.length) {
		return datum{}, fmt.Errorf("%w: a value of %d bytes", tensor.ErrMalformed, len(d.value))
	}
	return datum{bytes: d.value}, nil
}

// width returns the bits of numbers up to v.
func width(v int) int { return bits.Len(uint(v)) }
