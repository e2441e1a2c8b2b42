package records

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// MaxRow is the greatest length of a row in bytes, as it stands in its file.
const MaxRow = 64 << 20

// Options say how a file is read.
type Options struct {
	// ScratchDir is where a Parquet file is decompressed to if it is in a .gz or
	// .zst, "" for the system's folder. The file there has no name.
	ScratchDir string
}

// Row is one row of a file.
type Row struct {
	// Value is one JSON object: valid, in UTF-8, no key twice. It is valid until
	// the next call of Next.
	Value jsontext.Value

	// Line is the line that the row begins on, from 1; in Parquet the number of
	// the row. Where makes a place of it.
	Line int64
}

// Reader reads one file. It is not safe for concurrent use.
type Reader struct {
	path   string
	format *format
	src    *source
	rows   rows
	text   io.Reader
	read   bool // a row has been read
	err    error
}

// rows are the rows of one format. Errors name the file and the line; io.EOF is
// the end.
type rows interface {
	next() (Row, error)
}

// progress is for rows that are not read from the beginning of a file to its end.
type progress interface {
	done() (part, of int64)
}

// Open opens a file. The caller closes it.
//
// Errors of Open, Next and Read name the file and, where there is one, the line or
// row. They wrap tensor.ErrMalformed if the content is not what it must be or a row
// is longer than MaxRow; tensor.ErrUnsupported for formats that are not read.
func Open(path string, o Options) (*Reader, error) {
	src, err := openSource(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{path: path, src: src}
	if err := r.open(o); err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return r, nil
}

func (r *Reader) open(o Options) error {
	var err error
	if r.format, err = sniff(r.src); err != nil {
		return err
	}
	if r.format.rows == nil {
		r.text = &checkedText{r: r.src.in, path: r.path, line: 1}
		return nil
	}
	r.rows, err = r.format.rows(r.src, o)
	return err
}

// Path returns the path that was given to Open.
func (r *Reader) Path() string { return r.path }

// Format names what the file holds: "JSON Lines", "JSON", "CSV", "TSV", "Parquet"
// or "text".
func (r *Reader) Format() string { return r.format.name }

// Text reports whether the file is plain text, which Read returns and of which
// there are no rows.
func (r *Reader) Text() bool { return r.text != nil }

// Read reads plain text, without the byte order mark that it may begin with. It
// fails where the text is not UTF-8 or has a NUL.
func (r *Reader) Read(p []byte) (int, error) {
	if r.text == nil {
		return 0, hint.Add(fmt.Errorf("%s: %w: rows of %s where plain text is needed", r.path, tensor.ErrUnsupported, r.format.name),
			"give a .txt file; jq -r .text FILE.jsonl makes text of JSON rows that have one")
	}
	return r.text.Read(p)
}

// Next returns the next row, io.EOF after the last. A file without any row is an
// error. So is every call after an error.
func (r *Reader) Next() (Row, error) {
	if r.rows == nil {
		return Row{}, fmt.Errorf("%s: %w: plain text has no rows", r.path, tensor.ErrUnsupported)
	}
	if r.err != nil {
		return Row{}, r.err
	}
	row, err := r.rows.next()
	switch {
	case err == io.EOF && !r.read:
		r.err = hint.Add(fmt.Errorf("%s: %w: the file has no rows", r.path, tensor.ErrMalformed), "%s", r.format.want)
	case err != nil:
		r.err = err
	default:
		r.read = true
		return row, nil
	}
	return Row{}, r.err
}

// Where says where a row is, as errors do: "data.jsonl:3", "data.parquet: row 3".
func (r *Reader) Where(line int64) string {
	return fmt.Sprintf("%s%s%d", r.path, r.format.place, line)
}

// Size returns the size of the file in bytes.
func (r *Reader) Size() int64 { return r.src.size }

// Position returns how many bytes of Size have been read.
func (r *Reader) Position() int64 {
	if p, ok := r.rows.(progress); ok {
		part, of := p.done()
		return int64(float64(r.src.size) * float64(part) / float64(max(1, of)))
	}
	return r.src.read
}

// Close closes the file.
func (r *Reader) Close() error {
	var err error
	if c, ok := r.rows.(io.Closer); ok {
		err = c.Close()
	}
	return errors.Join(err, r.src.Close())
}

// Excerpt returns the beginning of a row to show in an error, on one line and with
// nothing in it that a terminal would obey.
func Excerpt(row []byte) string {
	const shown = 60
	start := printable(row[:min(len(row), shown)])
	if len(row) > shown {
		start += "..."
	}
	return start
}

// readLine returns the next line with its end, which is valid until the next call,
// and io.EOF with the last one.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return line, err
	}
	long := bytes.Clone(line)
	for err == bufio.ErrBufferFull {
		if len(long) > MaxRow {
			return nil, errLong
		}
		line, err = in.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

// errLong is what a row of more than MaxRow bytes is.
var errLong = errors.New("longer than a row may be")
