package data

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// fileKind is what a file holds.
type fileKind uint8

const (
	unknownFile fileKind = iota // to be told by its content
	rowFile
	textFile
	jsonFile  // rows, or else something we do not read
	otherFile // compressed, or a table
)

// kindOf tells what a file holds by its name.
func kindOf(name string) fileKind {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".jsonl", ".ndjson":
		return rowFile
	case ".txt", ".text", ".md":
		return textFile
	case ".json":
		return jsonFile
	case ".gz", ".zst", ".bz2", ".xz", ".zip", ".tar", ".parquet", ".arrow", ".feather", ".csv", ".tsv", ".xlsx":
		return otherFile
	}
	return unknownFile
}

// magics are the beginnings of formats that are not text.
var magics = []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "BZh", "\xfd7zXZ\x00", "PK\x03\x04", "PAR1", "ARROW1"}

// sniff tells what a file holds and how long the byte order mark at its
// beginning is.
func sniff(f *os.File, path string) (kind fileKind, bom int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, 0, fmt.Errorf("%s: not a file", path)
	}
	kind = kindOf(path)
	head := make([]byte, 64<<10)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return 0, 0, err
	}
	head = head[:n]
	for _, magic := range magics {
		if bytes.HasPrefix(head, []byte(magic)) {
			kind = otherFile
		}
	}
	if kind == otherFile {
		return 0, 0, unsupportedFile(path)
	}
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		return 0, 0, hint.Add(fmt.Errorf("%s: %w: text in UTF-16", path, tensor.ErrMalformed), "save the file as UTF-8")
	}
	if rest, ok := bytes.CutPrefix(head, []byte("\xef\xbb\xbf")); ok {
		head, bom = rest, 3
	}
	first := trim(head)
	if len(first) == 0 && int64(n) == info.Size() {
		return 0, 0, hint.Add(fmt.Errorf("%s: %w: the file is empty", path, tensor.ErrMalformed), "put one example on each line")
	}
	if kind == rowFile || kind == textFile {
		return kind, bom, nil
	}
	if line, _, whole := bytes.Cut(first, []byte("\n")); bytes.HasPrefix(line, []byte("{")) && (jsontext.Value(line).IsValid() || !whole && n == cap(head)) {
		return rowFile, bom, nil
	}
	if kind == jsonFile {
		return 0, 0, hint.Add(fmt.Errorf("%s: %w: JSON that is not one object per line", path, tensor.ErrUnsupported),
			"write each example on a line of its own, as jq -c '.[]' does with a list")
	}
	return textFile, bom, nil
}

func unsupportedFile(path string) error {
	return hint.Add(fmt.Errorf("%s: %w: neither JSON Lines nor text", path, tensor.ErrUnsupported),
		"decompress or convert the file to .jsonl or .txt first")
}
