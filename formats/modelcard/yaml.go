package modelcard

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on the front matter of a README.md. The largest ones in use, with the
// results of benchmarks in them, have some ten thousand lines. The parser's time
// grows with the square of how many keys a mapping has, how deep it nests and
// how many tags and anchors there are.
const (
	maxFrontMatter = 1 << 20
	maxLines       = 20_000
	maxMarks       = 2000
)

// frontMatter returns the mapping between the first line of a README.md, which
// must be "---", and the next such line, or nil if there is none. truncated says
// that there is more of the file than text.
func frontMatter(text string, truncated bool) (*value, error) {
	if truncated {
		text = text[:strings.LastIndexByte(text, '\n')+1]
	}
	lines := splitLines(text)
	if len(lines) == 0 || lines[0] != "---" {
		return nil, nil
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("it is not UTF-8")
	}
	var b strings.Builder
	end := false
	for _, l := range lines[1:] {
		if end = l == "---"; end {
			break
		}
		b.WriteString(l)
		b.WriteByte('\n')
	}
	if truncated && !end {
		return nil, fmt.Errorf("it has no end in the first %d bytes", maxFrontMatter)
	}
	// The reference's own repairs: Norwegian is no truth value, a tab no
	// indentation.
	yaml := strings.ReplaceAll(b.String(), "- no\n", "- \"no\"\n")
	yaml = strings.ReplaceAll(yaml, "\t", "  ")
	v, err := parseYAML(yaml)
	if err != nil {
		return nil, err
	}
	if v.kind != mapping {
		return nil, fmt.Errorf("%v, where there must be a mapping", v.kind)
	}
	return v, nil
}

// parseYAML reads a document as PyYAML's safe_load does: the parser finds out
// where scalars begin and end, and what they are is decided here, by YAML 1.1.
func parseYAML(text string) (v *value, err error) {
	if err := checkBounds(text); err != nil {
		return nil, err
	}
	// A bug in the parser must not cost the conversion of a model.
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("the YAML parser: %v", r)
		}
	}()
	f, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return nil, errors.New(line)
	}
	if len(f.Docs) > 1 {
		return nil, fmt.Errorf("%d documents, where there must be one", len(f.Docs))
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return &value{}, nil
	}
	r := yamlReader{anchors: make(map[string]*value)}
	return r.read(f.Docs[0].Body, 0)
}

// checkBounds refuses what would take the parser too long or too much stack.
func checkBounds(text string) error {
	depth, deepest, marks := 0, 0, 0
	for i := range len(text) {
		depth = nesting(depth, text[i])
		deepest = max(deepest, depth)
		if mark(text, i) {
			marks++
		}
	}
	if deepest > maxDepth {
		return fmt.Errorf("nested more than %d deep", maxDepth)
	}
	lines := 0
	for l := range strings.Lines(text) {
		lines++
		open := len(l) - len(strings.TrimLeft(l, " -?"))
		if strings.Count(l[:open], "-")+strings.Count(l[:open], "?") > maxDepth {
			return fmt.Errorf("nested more than %d deep", maxDepth)
		}
	}
	if lines > maxLines || marks > maxMarks {
		return fmt.Errorf("%d lines with %d tags and anchors, over the limit of %d and %d", lines, marks, maxLines, maxMarks)
	}
	return nil
}

// nesting returns how deep what follows a character lies, if brackets within
// text are taken for those of YAML.
func nesting(depth int, c byte) int {
	switch c {
	case '[', '{':
		return depth + 1
	case ']', '}':
		return max(0, depth-1)
	}
	return depth
}

// mark reports whether a tag, an anchor or an alias may begin at text[i].
func mark(text string, i int) bool {
	return strings.IndexByte("&!*", text[i]) >= 0 && (i == 0 || strings.IndexByte(" \n[{,", text[i-1]) >= 0) &&
		i+1 < len(text) && strings.IndexByte(" \n", text[i+1]) < 0
}

type yamlReader struct {
	anchors map[string]*value
}

func (r *yamlReader) read(n ast.Node, depth int) (*value, error) {
	if depth > 4*maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", 4*maxDepth)
	}
	v := new(value)
	return v, r.fill(v, n, depth)
}

// fill makes v what the node is. That v exists before it is filled lets an
// alias stand inside of what it stands for.
func (r *yamlReader) fill(v *value, n ast.Node, depth int) error {
	switch n := n.(type) {
	case nil, *ast.NullNode:
	case *ast.MappingNode:
		return r.fillMapping(v, n.Values, depth)
	case *ast.MappingValueNode:
		return r.fillMapping(v, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		v.kind = list
		for _, e := range n.Values {
			x, err := r.read(e, depth+1)
			if err != nil {
				return err
			}
			v.list = append(v.list, x)
		}
	case *ast.AnchorNode:
		r.anchors[n.Name.String()] = v
		return r.fill(v, n.Value, depth+1)
	case *ast.AliasNode:
		a, ok := r.anchors[n.Value.String()]
		if !ok {
			return fmt.Errorf("alias of %q, which there is none of", n.Value.String())
		}
		*v = *a
	case *ast.TagNode:
		if err := r.fill(v, n.Value, depth+1); err != nil {
			return err
		}
		v.retag(n.Start.Value)
	case *ast.MappingKeyNode:
		return r.fill(v, n.Value, depth+1)
	case *ast.LiteralNode:
		v.kind, v.text = str, n.Value.Value
	case *ast.StringNode:
		*v = plain(n.Value)
		if t := n.Token.Type; t == token.SingleQuoteType || t == token.DoubleQuoteType {
			v.kind = str
		}
	default:
		*v = plain(n.GetToken().Value)
	}
	return nil
}

// fillMapping reads a mapping; the last of equal keys counts, and all of them
// before those that "<<" brings.
func (r *yamlReader) fillMapping(v *value, pairs []*ast.MappingValueNode, depth int) error {
	v.kind, v.fields = mapping, make(map[string]*value)
	own := make(map[string]*value)
	for _, p := range pairs {
		x, err := r.read(p.Value, depth+1)
		if err != nil {
			return err
		}
		if p.Key.IsMergeKey() {
			if err := v.merge(x); err != nil {
				return err
			}
			continue
		}
		key, err := r.read(p.Key, depth+1)
		if err != nil {
			return err
		}
		if key.kind == str {
			own[key.text] = x
		}
	}
	for k, x := range own {
		v.fields[k] = x
	}
	return nil
}

func (v *value) merge(from *value) error {
	sources := []*value{from}
	if from.kind == list {
		sources = from.list
	}
	for _, s := range sources {
		if s.kind != mapping {
			return fmt.Errorf("%v after <<, where there must be a mapping", s.kind)
		}
		for k, x := range s.fields {
			v.fields[k] = x
		}
	}
	return nil
}

// plain returns what a scalar without quotes is, by the rules of PyYAML's
// resolver.
func plain(text string) value {
	for _, r := range resolvers {
		if r.pattern.MatchString(text) {
			return value{kind: r.kind, text: text}
		}
	}
	return value{kind: str, text: text}
}

var resolvers = []struct {
	kind    kind
	pattern *regexp.Regexp
}{
	{null, regexp.MustCompile(`^(~|null|Null|NULL|)$`)},
	{boolean, regexp.MustCompile(`^(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$`)},
	{float, regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)},
	{integer, regexp.MustCompile(`^([-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+)$`)},
	{other, regexp.MustCompile(`^([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?)$`)},
}

// retag makes a value what its tag says.
func (v *value) retag(tag string) {
	scalar := v.kind != list && v.kind != mapping
	switch {
	case tag == "!":
	case tag == "!!str" && scalar:
		v.kind = str
	case tag == "!!int" && scalar:
		v.kind = integer
	case tag == "!!float" && scalar:
		v.kind = float
	case tag == "!!bool" && scalar:
		v.kind = boolean
	case tag == "!!null" && scalar:
		v.kind = null
	case tag == "!!seq" && v.kind == list, tag == "!!map" && v.kind == mapping:
	default:
		*v = value{kind: other, text: tag + " " + v.text}
	}
}
