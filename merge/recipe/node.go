package recipe

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on a file. The parser's time grows with the square of some of them.
const (
	maxSize  = 1 << 18
	maxDepth = 32
)

// node is what a file says: a scalar, a list or a mapping.
type node struct {
	line   int
	kind   kind
	text   string // of a scalar
	quoted bool
	list   []*node
	fields []field
}

type field struct {
	key  string
	line int
	*node
}

type kind uint8

const (
	null kind = iota
	scalar
	list
	mapping
)

func (k kind) String() string {
	return [...]string{"nothing", "a value", "a list", "a mapping"}[k]
}

// fault is an error about a line.
func fault(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...))
}

// value returns what a scalar means.
func (n *node) value() any {
	if n.quoted {
		return n.text
	}
	return Value(n.text)
}

// Value returns what a value without quotes means: a float64, a bool or a string.
func Value(text string) any {
	// Numbers as PyYAML and pydantic read them between the two: 1e-3 is one.
	if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
		return v
	}
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		return true
	case "false", "no", "off":
		return false
	}
	return text
}

// parse reads one document.
func parse(text []byte) (n *node, err error) {
	if len(text) > maxSize {
		return nil, fmt.Errorf("%d bytes, over the limit of %d", len(text), maxSize)
	}
	if err := shallow(string(text)); err != nil {
		return nil, err
	}
	defer func() { // from what the parser does not expect
		if r := recover(); r != nil {
			n, err = nil, fmt.Errorf("the YAML parser: %v", r)
		}
	}()
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return nil, errors.New(line)
	}
	if len(f.Docs) > 1 {
		return nil, fmt.Errorf("%d documents, where there must be one", len(f.Docs))
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return &node{line: 1}, nil
	}
	return read(f.Docs[0].Body, 0)
}

// shallow refuses what nests too deep for the parser's stack.
func shallow(text string) error {
	depth := 0
	for l := range strings.Lines(text) {
		open := l[:len(l)-len(strings.TrimLeft(l, " -?"))]
		if strings.Count(open, "-")+strings.Count(open, "?") > maxDepth {
			return fmt.Errorf("nested more than %d deep", maxDepth)
		}
		for _, c := range l {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(0, depth-1)
			}
			if depth > maxDepth {
				return fmt.Errorf("nested more than %d deep", maxDepth)
			}
		}
	}
	return nil
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 1
}

func read(n ast.Node, depth int) (*node, error) {
	if n == nil {
		return &node{line: 1}, nil
	}
	out := &node{line: lineOf(n)}
	if depth > maxDepth {
		return nil, fault(out.line, "nested more than %d deep", maxDepth)
	}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.MappingNode:
		return out, out.fill(n.Values, depth)
	case *ast.MappingValueNode:
		return out, out.fill([]*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.kind = list
		for _, e := range n.Values {
			x, err := read(e, depth+1)
			if err != nil {
				return nil, err
			}
			out.list = append(out.list, x)
		}
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return nil, fault(out.line, "an anchor, an alias or a tag: a recipe is read without them")
	case *ast.LiteralNode:
		out.kind, out.text, out.quoted = scalar, n.Value.Value, true
	case *ast.StringNode:
		t := n.Token.Type
		out.kind, out.text, out.quoted = scalar, n.Value, t == token.SingleQuoteType || t == token.DoubleQuoteType
	default:
		out.kind, out.text = scalar, n.GetToken().Value
	}
	return out, nil
}

func (n *node) fill(pairs []*ast.MappingValueNode, depth int) error {
	n.kind = mapping
	if len(pairs) > 0 {
		n.line = lineOf(pairs[0].Key)
	}
	for _, p := range pairs {
		key, err := read(p.Key, depth+1)
		if err != nil {
			return err
		}
		if key.kind != scalar {
			return fault(key.line, "%v as the key of a mapping", key.kind)
		}
		x, err := read(p.Value, depth+1)
		if err != nil {
			return err
		}
		for _, f := range n.fields {
			if f.key == key.text {
				return fault(key.line, "the key %q occurs twice", key.text)
			}
		}
		n.fields = append(n.fields, field{key.text, key.line, x})
	}
	return nil
}
