package records

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

const wantTable = "want a first line with the names of the columns, then one row a line; a field with a quote, a separator or a line end in it stands in double quotes, and quotes in it are doubled"

// table are the rows of CSV and TSV.
type table struct {
	src     *source
	in      *csv.Reader
	limited *limit
	keys    [][]byte // each with a colon, the later ones with a comma in front
	buf     []byte
	after   int64 // the line after the last record
}

func openCSV(src *source, _ Options) (rows, error) { return openTable(src, ',') }
func openTSV(src *source, _ Options) (rows, error) { return openTable(src, '\t') }

func openTable(src *source, comma rune) (rows, error) {
	t := &table{src: src, after: 1, limited: &limit{r: &checkedText{r: src.in, path: src.path, line: 1}}}
	t.in = csv.NewReader(t.limited)
	t.in.Comma = comma
	t.in.ReuseRecord = true
	names, line, err := t.record()
	if err == io.EOF {
		return t, nil // no rows
	}
	if err != nil {
		return nil, err
	}
	if len(names) == 1 && comma == ',' && strings.ContainsAny(names[0], ";\t") {
		return nil, hint.Add(fmt.Errorf("%s:%d: %w: the names of the columns have no comma between them: %s", src.path, line, tensor.ErrMalformed, Excerpt([]byte(names[0]))),
			"save the file with commas, or with tabs and the name .tsv")
	}
	seen := map[string]bool{}
	for i, name := range names {
		if seen[name] {
			return nil, hint.Add(fmt.Errorf("%s:%d: %w: two columns of the name %.60q", src.path, line, tensor.ErrMalformed, name), "rename one of them")
		}
		seen[name] = true
		var key []byte
		if i > 0 {
			key = append(key, ',')
		}
		if key, err = jsontext.AppendQuote(key, name); err != nil {
			return nil, fmt.Errorf("%s:%d: %w: the name of a column: %v", src.path, line, tensor.ErrMalformed, err)
		}
		t.keys = append(t.keys, append(key, ':'))
	}
	return t, nil
}

func (t *table) next() (Row, error) {
	fields, line, err := t.record()
	if err != nil {
		return Row{}, err
	}
	t.buf = append(t.buf[:0], '{')
	for i, field := range fields {
		t.buf = append(t.buf, t.keys[i]...)
		if t.buf, err = jsontext.AppendQuote(t.buf, field); err != nil {
			return Row{}, fmt.Errorf("%s:%d: %w: %v", t.src.path, line, tensor.ErrMalformed, err)
		}
	}
	t.buf = append(t.buf, '}')
	return Row{Value: t.buf, Line: line}, nil
}

// record returns the fields of the next record and the line it begins on.
func (t *table) record() ([]string, int64, error) {
	t.limited.end = t.in.InputOffset() + MaxRow + bufferSize
	fields, err := t.in.Read()
	var parse *csv.ParseError
	switch {
	case err == nil:
		line, _ := t.in.FieldPos(0)
		last, _ := t.in.FieldPos(len(fields) - 1)
		t.after = int64(last+strings.Count(fields[len(fields)-1], "\n")) + 1
		return fields, int64(line), nil
	case errors.Is(err, errLong):
		return nil, 0, hint.Add(fmt.Errorf("%s:%d: %w: a row of more than %d MiB", t.src.path, t.after, tensor.ErrMalformed, MaxRow>>20), "is a quote not closed? %s", wantTable)
	case errors.Is(err, csv.ErrFieldCount) && errors.As(err, &parse):
		err = fmt.Errorf("%s:%d: %w: %d fields; want %d, as the first line has: %s", t.src.path, parse.StartLine, tensor.ErrMalformed, len(fields), len(t.keys), Excerpt([]byte(strings.Join(fields, string(t.in.Comma)))))
	case errors.As(err, &parse):
		err = fmt.Errorf("%s:%d: %w: %v", t.src.path, parse.StartLine, tensor.ErrMalformed, parse.Err)
	default:
		return nil, 0, err // the end, or what is not text
	}
	return nil, 0, hint.Add(err, wantTable)
}

// limit reads up to a place that moves.
type limit struct {
	r       io.Reader
	at, end int64
}

func (l *limit) Read(p []byte) (int, error) {
	if l.at >= l.end {
		return 0, errLong
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.end-l.at)])
	l.at += int64(n)
	return n, err
}
