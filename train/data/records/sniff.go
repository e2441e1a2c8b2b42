package records

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// format is one kind of content.
type format struct {
	name  string
	exts  []string // of names
	place string   // between a path and the number of a row
	want  string   // what a file must look like
	rows  func(*source, Options) (rows, error)
}

var (
	jsonLines = &format{"JSON Lines", []string{".jsonl", ".ndjson"}, ":", wantLines, openLines}
	plainText = &format{"text", []string{".txt", ".text", ".md"}, ":", "", nil}
)

// formats are all of them.
var formats = []*format{jsonLines, plainText}

// notRead are formats that are known and not read.
var notRead = []string{".bz2", ".xz", ".zip", ".7z", ".rar", ".tar", ".tgz", ".arrow", ".feather", ".xls", ".xlsx", ".ods", ".orc", ".avro"}

// magics are the beginnings of content that is known and not read.
var magics = []string{"BZh", "\xfd7zXZ\x00", "PK\x03\x04", "ARROW1", "\x1f\x8b", "\x28\xb5\x2f\xfd"}

const readable = "convert the file to .jsonl, .json, .csv, .tsv, .parquet or .txt first; each may be packed as .gz or .zst"

// formatOf returns what a name without compression says a file holds, nil if it
// says nothing; known is false for names of formats that are not read.
func formatOf(name string) (f *format, known bool) {
	ext := strings.ToLower(filepath.Ext(name))
	for _, f := range formats {
		if slices.Contains(f.exts, ext) {
			return f, true
		}
	}
	return nil, !slices.Contains(notRead, ext)
}

// sniff tells what a file holds and passes over the byte order mark that it may
// begin with.
func sniff(s *source) (*format, error) {
	_, name := compressedAs(filepath.Base(s.path))
	said, known := formatOf(name)
	head, err := s.in.Peek(headSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	whole := err == io.EOF
	for _, magic := range magics {
		known = known && !bytes.HasPrefix(head, []byte(magic))
	}
	if !known {
		return nil, hint.Add(fmt.Errorf("%s: %w: a format that is not read", s.path, tensor.ErrUnsupported), readable)
	}
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		return nil, hint.Add(fmt.Errorf("%s: %w: text in UTF-16", s.path, tensor.ErrMalformed), "save the file as UTF-8")
	}
	if rest, ok := bytes.CutPrefix(head, []byte("\xef\xbb\xbf")); ok {
		head = rest
		if _, err := s.in.Discard(3); err != nil {
			return nil, err
		}
	}
	first := trim(head)
	if len(first) == 0 && whole {
		return nil, hint.Add(fmt.Errorf("%s: %w: the file is empty", s.path, tensor.ErrMalformed), "put one example on each line")
	}
	if said != nil {
		return said, nil
	}
	if line, _, ended := bytes.Cut(first, []byte("\n")); bytes.HasPrefix(line, []byte("{")) && (jsontext.Value(line).IsValid() || !ended && !whole) {
		return jsonLines, nil
	}
	return plainText, nil
}
