package data

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/records"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// Mask says whether loss is taken on prompts.
type Mask uint8

const (
	// MaskDefault takes loss on completions and on the assistant's turns only, and on
	// all of a text.
	MaskDefault Mask = iota
	// MaskPrompt does the same. Data without prompts is an error.
	MaskPrompt
	// NoMask takes loss on prompts too.
	NoMask
)

// Overlong says what becomes of a row with more than MaxSeqLength tokens.
type Overlong uint8

const (
	// Truncate cuts off its end. A row that has nothing to train on then is an error.
	Truncate Overlong = iota
	// Drop leaves it out.
	Drop
	// Refuse makes it an error.
	Refuse
)

// Options say how examples are made.
type Options struct {
	Tokenizer *tokenizer.Tokenizer

	// MaxSeqLength is the greatest number of tokens in an example, 2 or more. Overlong
	// says what becomes of a longer row; plain text is cut into windows.
	MaxSeqLength int
	Overlong     Overlong

	Mask Mask

	// MaskHistory takes loss only on the last turn of the assistant.
	MaskHistory bool

	// Format is one of Formats, or "" for what the first row of each file looks like;
	// Fields names keys that are not the usual ones.
	Format string
	Fields Fields

	// Separator stands between a prompt and its completion. It is part of the prompt.
	Separator string

	// ParseSpecial makes special tokens of their text in rows, as transformers'
	// tokenizers do. What a chat template makes is always read so, plain text never.
	ParseSpecial bool

	// Template makes text of chats; nil is none, NoTemplate says why. TemplateVars and
	// Now are for it.
	Template     *chat.Template
	NoTemplate   error
	TemplateVars map[string]any
	Now          time.Time

	// ApplyTemplate makes chats of prompt and completion and of instructions too.
	ApplyTemplate bool

	// ValSplit takes a validation set from the training data, where there is none: a
	// share of the examples if it is below 1, else so many; 0 is none.
	ValSplit float64

	// Packing puts several rows into each training example, up to MaxSeqLength tokens.
	Packing bool

	// Seed decides which examples ValSplit takes.
	Seed uint64

	// ScratchDir is where the tokens are kept, "" for the system's folder.
	ScratchDir string

	// asking has chats rendered up to the last answer.
	asking bool

	// Progress, if not nil, is told how many bytes of a file have been read.
	Progress func(path string, read, size int64)
}

// Source is a data set and how often an epoch goes through it: 1 is once, 0.5 through
// another half each time.
type Source struct {
	Path   string
	Weight float64
}

// File is what was made of one file.
type File struct {
	Path  string
	Part  string // "train", "valid" or "test"
	What  string // which layout its rows have, or "text"
	Stats Stats  // before anything was split off or packed
	Sum   string // SHA-256 of the tokens, of what is trained of them and of where examples end

	store *store
	src   examples
	now   time.Time // that chat templates were told; zero if there was none
}

// textFile is what a file without rows is.
const textFile = "text"

// IsText reports whether the file is plain text, IsChat whether its rows are chats.
func (f *File) IsText() bool { return f.What == textFile }
func (f *File) IsChat() bool { return strings.HasPrefix(f.What, "chat ") }

// Set is the data of one run. Valid and Test are nil if there is none.
type Set struct {
	Train, Valid, Test *Dataset

	// Files are those that it was made of.
	Files []*File
}

// Open opens one data set; OpenAll says what it may be.
func Open(path string, o Options) (*Set, error) { return OpenAll([]Source{{path, 1}}, o) }

// OpenAll opens data sets and mixes them. Each is a folder with training data and, if
// there are any, validation and test data, or one file, which is training data. What
// files are called and may hold the package records says; their rows are of one of
// Formats, by the first row of each file, or the file is plain text.
//
// Every row is read and checked. Errors name the file and the line; they wrap
// tensor.ErrMalformed if a row is not as the first, or has no token that loss would be
// taken on; tensor.ErrUnsupported for formats that are not read; fs.ErrNotExist if
// there is no file.
func OpenAll(sources []Source, o Options) (*Set, error) {
	if o.MaxSeqLength < 2 {
		return nil, fmt.Errorf("maximum sequence length %d; want 2 or more", o.MaxSeqLength)
	}
	if o.ScratchDir == "" {
		o.ScratchDir = os.TempDir()
	}
	s := &Set{}
	if err := s.open(sources, &o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Set) open(sources []Source, o *Options) error {
	var trains, valids, tests []*File
	var weights []float64
	for _, src := range sources {
		if !(src.Weight > 0) || math.IsInf(src.Weight, 0) {
			return fmt.Errorf("%s: a weight of %v; want a positive number", src.Path, src.Weight)
		}
		files, err := find(src.Path)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := f.open(o); err != nil {
				return err
			}
			s.Files = append(s.Files, f)
			switch f.Part {
			case trainPart:
				trains, weights = append(trains, f), append(weights, src.Weight)
			case validPart:
				valids = append(valids, f)
			default:
				tests = append(tests, f)
			}
		}
	}
	var err error
	if len(valids) == 0 && o.ValSplit > 0 {
		if s.Train, s.Valid, err = o.split(trains, weights); err != nil {
			return err
		}
	} else if s.Train, err = o.dataset(trains, weights); err != nil {
		return err
	}
	if o.Packing {
		o.pack(s.Train)
	}
	if s.Train.Len() > math.MaxInt32 {
		return fmt.Errorf("%w: %d examples; at most %d are counted", tensor.ErrUnsupported, s.Train.Len(), math.MaxInt32)
	}
	if s.Valid == nil && len(valids) > 0 {
		if s.Valid, err = o.dataset(valids, nil); err != nil {
			return err
		}
	}
	if len(tests) > 0 {
		s.Test, err = o.dataset(tests, nil)
	}
	return err
}

// Close removes what the tokens are kept in.
func (s *Set) Close() error {
	var errs []error
	for _, f := range s.Files {
		errs = append(errs, f.store.Close())
	}
	return errors.Join(errs...)
}

// Memory returns how many bytes the set holds in memory, with the order of an epoch.
func (s *Set) Memory() int64 {
	n := 4 * int64(s.Train.Len())
	for _, d := range []*Dataset{s.Train, s.Valid, s.Test} {
		if d != nil {
			n += d.src.memory()
		}
	}
	return n
}

// Longest returns the most tokens in an example of the training and validation data.
func (s *Set) Longest() int {
	n := s.Train.stats.Longest
	if s.Valid != nil {
		n = max(n, s.Valid.stats.Longest)
	}
	return n
}

// The parts of a data set.
const (
	trainPart = "train"
	validPart = "valid"
	testPart  = "test"
)

// find returns the files of a data set.
func find(path string) ([]*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, hint.Add(err, "give a folder with train.jsonl, or one file")
	}
	if !info.IsDir() {
		return []*File{{Path: path, Part: trainPart}}, nil
	}
	train, valid, test, err := records.Find(path)
	if err != nil {
		return nil, err
	}
	var files []*File
	for _, part := range []struct {
		name  string
		paths []string
	}{{trainPart, train}, {validPart, valid}, {testPart, test}} {
		for _, p := range part.paths {
			files = append(files, &File{Path: p, Part: part.name})
		}
	}
	return files, nil
}

// open makes examples of the file.
func (f *File) open(o *Options) error {
	r, err := records.Open(f.Path, records.Options{ScratchDir: o.ScratchDir})
	if err != nil {
		return err
	}
	defer r.Close()
	if f.store, err = newStore(o.ScratchDir); err != nil {
		return err
	}
	if err := f.read(r, o); err != nil {
		return errors.Join(err, f.store.Close())
	}
	return nil
}

func (f *File) read(r *records.Reader, o *Options) error {
	if r.Text() {
		w, stats, err := o.readWindows(r, f.store)
		if err != nil {
			return err
		}
		f.What, f.src, f.Stats = textFile, w, stats
	} else {
		stats, x, err := o.readRows(r, f.store)
		if err != nil {
			return err
		}
		f.What, f.src, f.Stats = x.layout.describe(), rows{f.store}, stats
		if x.chats {
			f.now = o.Now
		}
	}
	if n := f.src.len(); n > math.MaxInt32 {
		return fmt.Errorf("%s: %w: %d examples; at most %d are counted", f.Path, tensor.ErrUnsupported, n, math.MaxInt32)
	}
	var err error
	f.Sum, err = f.store.finish()
	return err
}

// Stats counts what a Dataset holds.
type Stats struct {
	Examples  int
	Tokens    int64 // in all examples, after cutting
	Labels    int64 // of them, those that loss is taken on
	Truncated int   // examples whose end was cut off
	Dropped   int   // rows that were left out because they were too long
	Cut       int64 // the tokens that were cut off or left out
	Longest   int   // the most tokens in one example

	// Tight counts prompts that meet their completion without space between them, which
	// may be meant or not.
	Tight int

	// Doubled counts those whose chat template wrote BOS twice, of which one is left out;
	// Systems those that have a system turn.
	Doubled, Systems int
}

func (s *Stats) add(t Stats) {
	s.Examples += t.Examples
	s.Tokens += t.Tokens
	s.Labels += t.Labels
	s.Truncated += t.Truncated
	s.Dropped += t.Dropped
	s.Cut += t.Cut
	s.Tight += t.Tight
	s.Doubled += t.Doubled
	s.Systems += t.Systems
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
