package records

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

const wantList = `want a list of objects, [{"text": "..."}, ...], an object of which one key holds the list, or one object on each line`

// columns are keys whose lists of objects are part of a row, not a list of rows: an
// object with one of them is a row.
var columns = []string{"messages", "conversations", "conversation", "chosen", "rejected", "prompt", "completion", "tools", "documents"}

// list are the rows of a JSON file that is a list of objects, or an object with one.
type list struct {
	src     *source
	limited *limit
	dec     *jsontext.Decoder
	counted *lineCounter
	line    int64  // of what has been read so far
	key     string // that the list is under
	found   bool
	state   func(*list) (Row, error)
}

func openList(src *source, _ Options) (rows, error) {
	l := &list{src: src, counted: &lineCounter{r: src.in}, line: 1, state: (*list).begin}
	l.limited = &limit{r: l.counted}
	l.dec = jsontext.NewDecoder(l.limited)
	return l, nil
}

// next goes through the states of the file: its beginning, the keys before the
// list, the list, the keys after it, the end.
func (l *list) next() (Row, error) {
	for {
		row, err := l.state(l)
		if err != nil || row.Value != nil {
			return row, err
		}
	}
}

func (l *list) begin() (Row, error) {
	switch l.peek() {
	case '[':
		l.state = (*list).elements
	case '{':
		l.state = (*list).keys
	default:
		_, err := l.dec.ReadToken()
		if err == nil {
			err = fmt.Errorf("%w: neither a list nor an object", tensor.ErrMalformed)
		}
		return Row{}, l.fail(err)
	}
	_, err := l.dec.ReadToken()
	l.recount()
	return Row{}, l.fail(err)
}

// keys reads the keys of the outer object up to the list of rows, and those after.
func (l *list) keys() (Row, error) {
	if l.peek() == '}' {
		if _, err := l.dec.ReadToken(); err != nil {
			return Row{}, l.fail(err)
		}
		if !l.found {
			return Row{}, l.fail(fmt.Errorf("%w: one object over several lines, without a list of rows", tensor.ErrMalformed))
		}
		l.state = (*list).end
		return Row{}, nil
	}
	name, err := l.dec.ReadToken()
	if err != nil {
		return Row{}, l.fail(err)
	}
	key := name.String()
	if l.peek() != '[' {
		return Row{}, l.skip(0)
	}
	if _, err := l.dec.ReadToken(); err != nil {
		return Row{}, l.fail(err)
	}
	if l.peek() != '{' || slices.Contains(columns, key) {
		return Row{}, l.skip(1)
	}
	l.recount()
	if l.found {
		return Row{}, hint.Add(l.fail(fmt.Errorf("%w: two lists of objects, %.60q and %.60q", tensor.ErrMalformed, l.key, key)), "keep the one with the rows, as jq '.KEY' does")
	}
	l.found, l.key = true, key
	l.state = (*list).elements
	return Row{}, nil
}

// elements reads the rows.
func (l *list) elements() (Row, error) {
	kind := l.peek()
	if kind == ']' {
		_, err := l.dec.ReadToken()
		l.state = (*list).end
		if l.found {
			l.state = (*list).keys
		}
		return Row{}, l.fail(err)
	}
	// Between two values are white space and a comma only.
	l.line += int64(bytes.Count(between(l.dec.UnreadBuffer()), []byte("\n")))
	value, err := l.dec.ReadValue()
	if err != nil {
		return Row{}, l.fail(err)
	}
	if kind != '{' {
		return Row{}, l.fail(fmt.Errorf("%w: not an object: %s", tensor.ErrMalformed, Excerpt(value)))
	}
	row := Row{Value: value, Line: l.line}
	l.line += int64(bytes.Count(value, []byte("\n")))
	return row, nil
}

// end makes sure that nothing follows.
func (l *list) end() (Row, error) {
	l.peek()
	_, err := l.dec.ReadToken()
	if err == io.EOF {
		return Row{}, io.EOF
	}
	if err == nil {
		err = fmt.Errorf("%w: more after the end of the JSON value", tensor.ErrMalformed)
	}
	return Row{}, l.fail(err)
}

// skip passes over a value, of which depth levels have been entered, token by token
// so that it is never in memory as a whole.
func (l *list) skip(depth int) error {
	for {
		l.allow()
		token, err := l.dec.ReadToken()
		if err != nil {
			return l.fail(err)
		}
		switch token.Kind() {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth == 0 {
			l.recount()
			return nil
		}
	}
}

// peek returns the kind of what is next, having read that far.
func (l *list) peek() jsontext.Kind {
	l.allow()
	return l.dec.PeekKind()
}

// allow lets the next value be as long as a row may be.
func (l *list) allow() { l.limited.end = l.dec.InputOffset() + MaxRow + bufferSize }

// recount sets the line to where the decoder is.
func (l *list) recount() {
	l.line = 1 + l.counted.lines - int64(bytes.Count(l.dec.UnreadBuffer(), []byte("\n")))
}

// fail says where an error is.
func (l *list) fail(err error) error {
	if err == nil {
		return nil
	}
	var syntax *jsontext.SyntacticError
	line, what := l.line, err
	switch {
	case errors.Is(err, errLong):
		what = fmt.Errorf("%w: a row of more than %d MiB", tensor.ErrMalformed, MaxRow>>20)
	case errors.As(err, &syntax):
		// The decoder's place is the beginning of the value that is wrong.
		if at := syntax.ByteOffset - l.dec.InputOffset(); at >= 0 && at <= int64(len(l.dec.UnreadBuffer())) {
			l.recount()
			line = l.line + int64(bytes.Count(l.dec.UnreadBuffer()[:at], []byte("\n")))
		}
		what = fmt.Errorf("%w: not JSON: %s", tensor.ErrMalformed, printable([]byte(strings.TrimPrefix(err.Error(), "jsontext: "))))
	case errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF:
		l.recount()
		line = l.line
		what = fmt.Errorf("%w: the file ends in the middle", tensor.ErrMalformed)
	case !errors.Is(err, tensor.ErrMalformed):
		return err // of reading
	case hint.Of(err) != "":
		return err
	}
	return hint.Add(fmt.Errorf("%s:%d: %w", l.src.path, line, what), wantList)
}

// between returns the beginning of b that separates two values.
func between(b []byte) []byte {
	for i, c := range b {
		switch c {
		case ' ', '\t', '\r', '\n', ',':
		default:
			return b[:i]
		}
	}
	return b
}

// lineCounter counts the lines that have been read.
type lineCounter struct {
	r     io.Reader
	lines int64
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.lines += int64(bytes.Count(p[:n], []byte("\n")))
	return n, err
}

// holdsRows reports whether the beginning of an object shows that one of its keys
// holds a list of rows.
func holdsRows(head []byte) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(head))
	if t, err := dec.ReadToken(); err != nil || t.Kind() != '{' {
		return false
	}
	for {
		name, err := dec.ReadToken()
		if err != nil || name.Kind() != '"' {
			return false
		}
		key := name.String()
		if dec.PeekKind() != '[' || slices.Contains(columns, key) {
			if dec.SkipValue() != nil {
				return false
			}
			continue
		}
		if _, err := dec.ReadToken(); err != nil {
			return false
		}
		if dec.PeekKind() == '{' {
			return true
		}
		for dec.StackDepth() > 1 {
			if _, err := dec.ReadToken(); err != nil {
				return false
			}
		}
	}
}
