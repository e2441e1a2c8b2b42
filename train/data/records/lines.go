package records

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

const wantLines = `want one JSON object on each line, as {"text": "..."}`

// lines are the rows of JSON Lines. Lines with nothing on them are no rows.
type lines struct {
	src  *source
	line int64
	end  bool
}

func openLines(src *source, _ Options) (rows, error) { return &lines{src: src}, nil }

func (l *lines) next() (Row, error) {
	for !l.end {
		l.line++
		line, err := readLine(l.src.in)
		switch {
		case errors.Is(err, errLong):
			return Row{}, l.fail(fmt.Errorf("%w: a line of more than %d MiB", tensor.ErrMalformed, MaxRow>>20))
		case err != nil && err != io.EOF:
			return Row{}, err
		}
		l.end = err == io.EOF
		if line = trim(line); len(line) == 0 {
			continue
		}
		if err := checkObject(line); err != nil {
			return Row{}, l.fail(err)
		}
		return Row{Value: line, Line: l.line}, nil
	}
	return Row{}, io.EOF
}

func (l *lines) fail(err error) error {
	return hint.Add(fmt.Errorf("%s:%d: %w", l.src.path, l.line, err), wantLines)
}

// trim removes the white space of JSON.
func trim(line []byte) []byte { return bytes.Trim(line, " \t\r\n") }

// checkObject says what keeps a row from being one JSON object.
func checkObject(row []byte) error {
	v := jsontext.Value(row)
	if v.IsValid() {
		if v.Kind() == '{' {
			return nil
		}
		return fmt.Errorf("%w: not an object: %s", tensor.ErrMalformed, Excerpt(row))
	}
	why := ": "
	if v.Kind() == '{' {
		// Decoding says what IsValid found.
		dec := jsontext.NewDecoder(bytes.NewReader(row))
		_, err := dec.ReadValue()
		if err == nil {
			err = errors.New("more after the object")
		}
		why = fmt.Sprintf(": %s: ", printable([]byte(strings.TrimPrefix(err.Error(), "jsontext: "))))
	}
	return fmt.Errorf("%w: not JSON%s%s", tensor.ErrMalformed, why, Excerpt(row))
}

// printable replaces what a terminal would not print as one character, and line ends
// and tabs by a space.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return utf8.RuneError
	}, string(text))
}
