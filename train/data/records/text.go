package records

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// checkedText passes text on and fails where it is not UTF-8 or has a NUL.
type checkedText struct {
	r    io.Reader
	path string
	line int64
	rest []byte // the beginning of a character
}

func (c *checkedText) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if bad := c.check(p[:n], err == io.EOF); bad != nil {
		return 0, bad
	}
	return n, err
}

// check looks at the next part of the text, with what the part before left.
func (c *checkedText) check(p []byte, last bool) error {
	data := p
	if len(c.rest) > 0 {
		data = append(c.rest, p...)
	}
	n := len(data)
	if !last {
		n -= incomplete(data)
	}
	if i := unsound(data[:n]); i < n {
		what := "text that is not UTF-8"
		if data[i] == 0 {
			what = "a NUL byte in text"
		}
		line := c.line + int64(bytes.Count(data[:i], []byte("\n")))
		return hint.Add(fmt.Errorf("%s:%d: %w: %s", c.path, line, tensor.ErrMalformed, what), "save the file as UTF-8 text")
	}
	c.line += int64(bytes.Count(data[:n], []byte("\n")))
	c.rest = append(c.rest[:0], data[n:]...)
	return nil
}

// unsound returns where the first byte of text is that is NUL or not part of
// UTF-8, len(text) if there is none.
func unsound(text []byte) int {
	if utf8.Valid(text) {
		if i := bytes.IndexByte(text, 0); i >= 0 {
			return i
		}
		return len(text)
	}
	i := 0
	for i < len(text) {
		r, n := utf8.DecodeRune(text[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return i
}

// incomplete returns how many bytes at the end of p begin a character that is not
// complete.
func incomplete(p []byte) int {
	for n := 1; n <= min(len(p), utf8.UTFMax-1); n++ {
		if utf8.RuneStart(p[len(p)-n]) {
			if utf8.FullRune(p[len(p)-n:]) {
				return 0
			}
			return n
		}
	}
	return 0
}
