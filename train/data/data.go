package data

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// Mask says whether loss is taken on prompts.
type Mask uint8

const (
	// MaskDefault takes loss on completions only, and on all of a text.
	MaskDefault Mask = iota
	// MaskPrompt takes loss on completions only. Data without prompts is an
	// error.
	MaskPrompt
	// NoMask takes loss on prompts too.
	NoMask
)

// Options say how examples are made.
type Options struct {
	Tokenizer *tokenizer.Tokenizer

	// MaxSeqLength is the greatest number of tokens in an example, 2 or more.
	// The end of a longer row is cut off; plain text is cut into windows.
	MaxSeqLength int

	Mask Mask
}

// Set is the data of one run. Valid and Test are nil if there is none.
type Set struct {
	Train, Valid, Test *Dataset
}

// Open opens a data set: a folder with train.jsonl or train.txt, and valid and
// test in the same way if there are any, or one file, which becomes Train.
//
// What a file holds is told by its name (.jsonl or .ndjson for rows, .txt or .md
// for text), else by its content: rows if the first line is a JSON object. In a
// folder only such names and .json count.
//
// Every row is read and checked. Errors name the file and the line; they wrap
// tensor.ErrMalformed if a row is not of a known shape, not UTF-8, longer than
// 64 MiB, or has no token that loss would be taken on; tensor.ErrUnsupported for
// compressed files and other formats; fs.ErrNotExist if there is no file.
func Open(path string, o Options) (*Set, error) {
	if o.MaxSeqLength < 2 {
		return nil, fmt.Errorf("maximum sequence length %d; want 2 or more", o.MaxSeqLength)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, hint.Add(err, "give a folder with train.jsonl, or one .jsonl or .txt file")
	}
	if !info.IsDir() {
		d, err := openFile(path, o)
		if err != nil {
			return nil, err
		}
		return &Set{Train: d}, nil
	}
	s := &Set{}
	for _, part := range []struct {
		name string
		to   **Dataset
	}{{"train", &s.Train}, {"valid", &s.Valid}, {"test", &s.Test}} {
		file, err := find(path, part.name)
		if err == nil && file != "" {
			*part.to, err = openFile(file, o)
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if s.Train == nil {
		return nil, errors.Join(hint.Add(fmt.Errorf("%s: no train.jsonl or train.txt: %w", path, fs.ErrNotExist),
			"name the training file train.jsonl (or train.txt), or give the file itself instead of its folder"), s.Close())
	}
	return s, nil
}

// Close closes the files.
func (s *Set) Close() error {
	var errs []error
	for _, d := range []*Dataset{s.Train, s.Valid, s.Test} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}

// find returns the file of one part of a folder, "" if there is none.
func find(dir, name string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var found, other string
	for _, e := range entries {
		ext, ok := strings.CutPrefix(e.Name(), name+".")
		switch kind := kindOf(e.Name()); {
		case !ok || e.IsDir():
		case kind == otherFile:
			other = e.Name()
		case kind == unknownFile || strings.Contains(ext, "."):
		case found != "":
			return "", hint.Add(fmt.Errorf("%s: %w: both %s and %s", dir, tensor.ErrMalformed, found, e.Name()), "keep one of them")
		default:
			found = e.Name()
		}
	}
	switch {
	case found != "":
		return filepath.Join(dir, found), nil
	case other != "":
		return "", unsupportedFile(filepath.Join(dir, other))
	}
	return "", nil
}

// Stats counts what a Dataset holds.
type Stats struct {
	Examples  int
	Tokens    int64 // in all examples, after cutting
	Labels    int64 // of them, those that loss is taken on
	Truncated int   // examples whose end was cut off
	Cut       int64 // the tokens that were cut off
	Longest   int   // the most tokens in one example
}

func (s *Stats) add(t Stats) {
	s.Examples += t.Examples
	s.Tokens += t.Tokens
	s.Labels += t.Labels
	s.Truncated += t.Truncated
	s.Cut += t.Cut
	s.Longest = max(s.Longest, t.Longest)
}

// count adds one example, of which cut tokens were cut off.
func (s *Stats) count(e Example, cut int) {
	one := Stats{Examples: 1, Tokens: int64(len(e.Tokens)), Labels: int64(e.Labels()), Cut: int64(cut), Longest: len(e.Tokens)}
	if cut > 0 {
		one.Truncated = 1
	}
	s.add(one)
}

// Example is one sequence of tokens, or several that are packed into one and do not see
// each other.
type Example struct {
	Tokens []int32

	// Loss[j] says whether predicting Tokens[j] from what stands before it in its
	// document is trained. It has the length of Tokens, or is nil: then everything is.
	// What it says of the first token of a document means nothing.
	Loss []bool

	// Ends are the ends of the documents in Tokens; nil is one.
	Ends []int
}

// Documents calls f with the bounds of each document.
func (e Example) Documents(f func(from, to int)) {
	if len(e.Ends) == 0 {
		f(0, len(e.Tokens))
		return
	}
	from := 0
	for _, to := range e.Ends {
		f(from, to)
		from = to
	}
}

// Labels returns the number of tokens that loss is taken on.
func (e Example) Labels() int {
	n := 0
	e.Documents(func(from, to int) {
		for j := from + 1; j < to; j++ {
			if e.Loss == nil || e.Loss[j] {
				n++
			}
		}
	})
	return n
}

// Dataset is a sequence of examples. It is safe for concurrent use.
type Dataset struct {
	path  string
	stats Stats
	src   examples
}

// examples is where a Dataset takes its examples from.
type examples interface {
	example(i int) (Example, error)
	Close() error
}

// Path returns the file that the examples come from.
func (d *Dataset) Path() string { return d.path }

// Len returns the number of examples, at least 1.
func (d *Dataset) Len() int { return d.stats.Examples }

// Stats returns the totals of all examples.
func (d *Dataset) Stats() Stats { return d.stats }

// IsText reports whether the examples are windows of plain text, which ReadText
// returns whole.
func (d *Dataset) IsText() bool {
	_, ok := d.src.(*windows)
	return ok
}

// Example returns one example. Its Tokens may be changed only if nobody else
// uses them; they have room for no more.
func (d *Dataset) Example(i int) (Example, error) {
	if i < 0 || i >= d.Len() {
		return Example{}, fmt.Errorf("%s: example %d of %d", d.path, i, d.Len())
	}
	return d.src.example(i)
}

// Close closes the file.
func (d *Dataset) Close() error { return d.src.Close() }

// openFile opens one file.
func openFile(path string, o Options) (*Dataset, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d, err := openAs(f, path, o)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

func openAs(f *os.File, path string, o Options) (*Dataset, error) {
	kind, bom, err := sniff(f, path)
	if err != nil {
		return nil, err
	}
	d := &Dataset{path: path}
	if kind == rowFile {
		d.src, d.stats, err = openRows(f, bom, path, o)
	} else {
		d.src, d.stats, err = openText(f, bom, path, o)
	}
	if err != nil {
		return nil, err
	}
	if d.stats.Examples > math.MaxInt32 {
		return nil, fmt.Errorf("%s: %w: %d examples; at most %d are counted", path, tensor.ErrUnsupported, d.stats.Examples, math.MaxInt32)
	}
	return d, nil
}
