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
	jsonList  = &format{"JSON", []string{".json"}, ":", wantList, openList}
	commas    = &format{"CSV", []string{".csv"}, ":", wantTable, openCSV}
	tabs      = &format{"TSV", []string{".tsv", ".tab"}, ":", wantTable, openTSV}
	columnar  = &format{"Parquet", []string{".parquet", ".pq"}, ": row ", wantParquet, openParquet}
	plainText = &format{"text", []string{".txt", ".text", ".md"}, ":", "", nil}
)

// formats are all of them.
var formats = []*format{jsonLines, jsonList, commas, tabs, columnar, plainText}

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
	switch {
	case bytes.HasPrefix(head, []byte("PAR1")) || bytes.HasPrefix(head, []byte("PARE")):
		return columnar, nil
	case said == columnar && len(head) > 0:
		return nil, hint.Add(fmt.Errorf("%s: %w: the content is not Parquet", s.path, tensor.ErrMalformed),
			"the download may have failed (a page of HTML, or a Git LFS pointer): look at the file")
	}
	for _, magic := range magics {
		known = known && !bytes.HasPrefix(head, []byte(magic))
	}
	if !known {
		return nil, notReadable(s.path)
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
	return told(said, first, whole), nil
}

// told tells by the beginning what a file holds that is not Parquet, if its name
// does not.
func told(said *format, first []byte, whole bool) *format {
	if said != nil && said != jsonList {
		return said
	}
	line, rest, ended := bytes.Cut(first, []byte("\n"))
	switch {
	case bytes.HasPrefix(first, []byte("[")):
		if said == jsonList || opensList(first) {
			return jsonList
		}
	case bytes.HasPrefix(first, []byte("{")):
		one := jsontext.Value(line).IsValid() || !ended && !whole
		if one && (len(trim(rest)) > 0 || !holdsRows(line)) {
			return jsonLines
		}
		if said == jsonList || holdsRows(first) {
			return jsonList
		}
	case said == jsonList && !jsontext.Value(line).IsValid():
		return jsonLines // which says best what is wrong
	}
	if said != nil {
		return said
	}
	return plainText
}

// opensList reports whether text begins with a list of objects. A text may begin
// with a bracket, but hardly goes on as JSON.
func opensList(first []byte) bool {
	rest, ok := bytes.CutPrefix(trim(first[1:]), []byte("{"))
	rest = trim(rest)
	return ok && (bytes.HasPrefix(rest, []byte(`"`)) || bytes.HasPrefix(rest, []byte("}")))
}

func notReadable(path string) error {
	return hint.Add(fmt.Errorf("%s: %w: a format that is not read", path, tensor.ErrUnsupported), readable)
}
