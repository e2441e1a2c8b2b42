package parquet

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/tensor"
)

// Physical types.
const (
	noType     = -1
	typeBool   = 0
	typeInt32  = 1
	typeInt64  = 2
	typeInt96  = 3
	typeFloat  = 4
	typeDouble = 5
	typeBytes  = 6
	typeFixed  = 7
)

// kind is what a column means.
type kind uint8

const (
	plain kind = iota
	text
	list
	dictionary // a map
	decimal
	date
	clock
	timestamp
	unsigned
	uuid
	half
	opaque // bytes of a meaning that is not shown
)

// converted sets the meaning by the older of the two ways to say it.
func (e *element) converted(v int64) {
	if e.kind != plain {
		return
	}
	switch v {
	case 0, 4, 19:
		e.kind = text
	case 1, 2:
		e.kind = dictionary
	case 3:
		e.kind = list
	case 5:
		e.kind = decimal
	case 6:
		e.kind = date
	case 7:
		e.kind, e.unit = clock, 3
	case 8:
		e.kind, e.unit = clock, 6
	case 9:
		e.kind, e.unit = timestamp, 3
	case 10:
		e.kind, e.unit = timestamp, 6
	case 11, 12, 13, 14:
		e.kind = unsigned
	case 20, 21:
		e.kind = opaque
	}
}

// logical sets the meaning by the newer of the two ways to say it, which counts.
func (e *element) logical(t *thrift, kind byte) {
	t.structure(kind, func(id int64, kind byte) {
		t.structure(kind, func(field int64, kind byte) {
			switch {
			case id == 5 && field == 1:
				e.scale = t.integer(kind)
			case (id == 7 || id == 8) && field == 2:
				t.structure(kind, func(unit int64, kind byte) {
					e.unit = 3 * unit
					t.skip(kind, false)
				})
			case id == 10 && field == 2:
				if !t.boolean(kind) {
					e.kind = unsigned
				}
			default:
				t.skip(kind, false)
			}
		})
		switch id {
		case 1, 4, 12:
			e.kind = text
		case 2:
			e.kind = dictionary
		case 3:
			e.kind = list
		case 5:
			e.kind = decimal
		case 6:
			e.kind = date
		case 7:
			e.kind = clock
		case 8:
			e.kind = timestamp
		case 13:
			e.kind = opaque
		case 14:
			e.kind = uuid
		case 15:
			e.kind = half
		}
	})
}

const (
	// maxColumns bounds the columns of a file, each of which has a buffer.
	maxColumns = 10_000

	maxDepth = 64
)

// node is an element of the schema in its place.
type node struct {
	element
	path     string
	key      []byte // the name as JSON, with a colon
	children []*node
	leaves   []int // the columns in it, in order
	optional bool
	repeated bool
	def, rep int // the levels at which it is there, and at which it repeats

	// item is what the list in this group holds, nil if it is no list; many is what
	// repeats in it.
	item *node
	many *node
}

// schema is the tree of a file's columns.
type schema struct {
	root   *node
	leaves []*node
	rest   []element
}

func newSchema(elements []element) (*schema, error) {
	if len(elements) == 0 {
		return nil, fmt.Errorf("%w: no schema", tensor.ErrMalformed)
	}
	s := &schema{rest: elements}
	s.rest[0].repetition = 0
	root, err := s.node(nil, 0)
	if err != nil {
		return nil, err
	}
	if len(s.rest) > 0 {
		return nil, fmt.Errorf("%w: %d elements of the schema have no place in it", tensor.ErrMalformed, len(s.rest))
	}
	s.root = root
	return s, nil
}

// node takes the next element of the schema and what is in it.
func (s *schema) node(parent *node, depth int) (*node, error) {
	if len(s.rest) == 0 {
		return nil, fmt.Errorf("%w: the schema ends early", tensor.ErrMalformed)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: columns nested more than %d deep", tensor.ErrMalformed, maxDepth)
	}
	n := &node{element: s.rest[0]}
	s.rest = s.rest[1:]
	if parent != nil {
		n.def, n.rep, n.path = parent.def, parent.rep, n.name
		if parent.path != "" {
			n.path = parent.path + "." + n.name
		}
	}
	switch n.repetition {
	case 0:
	case 1:
		n.optional = true
		n.def++
	case 2:
		n.repeated = true
		n.def++
		n.rep++
	default:
		return nil, fmt.Errorf("%w: column %.100q repeats as %d", tensor.ErrMalformed, n.path, n.repetition)
	}
	key, err := jsontext.AppendQuote(nil, n.name)
	if err != nil {
		return nil, fmt.Errorf("%w: the name of column %.100q: %v", tensor.ErrMalformed, n.path, err)
	}
	n.key = append(key, ':')
	if n.physical != noType {
		return n, s.leaf(n)
	}
	if n.element.children < 1 {
		return nil, fmt.Errorf("%w: column %.100q is a group of nothing", tensor.ErrMalformed, n.path)
	}
	names := map[string]bool{}
	from := len(s.leaves)
	for range n.element.children {
		c, err := s.node(n, depth+1)
		if err != nil {
			return nil, err
		}
		if names[c.name] {
			return nil, fmt.Errorf("%w: two columns of the name %.100q", tensor.ErrMalformed, c.path)
		}
		names[c.name] = true
		n.children = append(n.children, c)
	}
	for i := from; i < len(s.leaves); i++ {
		n.leaves = append(n.leaves, i)
	}
	n.findList()
	return n, nil
}

func (s *schema) leaf(n *node) error {
	n.leaves = []int{len(s.leaves)}
	s.leaves = append(s.leaves, n)
	switch {
	case len(s.leaves) > maxColumns:
		return fmt.Errorf("%w: more than %d columns", tensor.ErrUnsupported, maxColumns)
	case n.element.children > 0:
		return fmt.Errorf("%w: column %.100q has a type and columns", tensor.ErrMalformed, n.path)
	case n.physical < typeBool || n.physical > typeFixed:
		return fmt.Errorf("%w: column %.100q of the unknown type %d", tensor.ErrMalformed, n.path, n.physical)
	case n.physical == typeFixed && (n.length < 1 || n.length > maxPage):
		return fmt.Errorf("%w: column %.100q of %d bytes a value", tensor.ErrMalformed, n.path, n.length)
	}
	return nil
}

// findList tells whether a group stands for a list or a map, and what it holds. The
// repeated group in it is usually there for its own sake, with one field, the
// element; older files have the element itself repeat.
func (n *node) findList() {
	if n.repeated || n.kind != list && n.kind != dictionary || len(n.children) != 1 || !n.children[0].repeated {
		return
	}
	n.many = n.children[0]
	n.item = n.many
	if m := n.many; n.kind == list && len(m.children) == 1 && m.name != "array" && m.name != n.name+"_tuple" {
		n.item = m.children[0]
	}
}
