package data

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// windows are the examples of plain text: one sequence of tokens, cut so that
// every token is predicted once. Each window has a token to begin with and
// MaxSeqLength-1 to predict (the last one may have fewer). It begins with BOS if
// the vocabulary wants one, so that it looks like the beginning of a sequence, as
// llama.cpp's perplexity does; else with the last token of the window before it.
type windows struct {
	tokens []int32
	bos    []int32 // BOS or nothing
	size   int     // tokens to predict in a window
}

// Close implements examples.
func (w *windows) Close() error { return nil }

// labels returns the number of tokens that are predicted.
func (w *windows) labels() int { return len(w.tokens) - 1 + len(w.bos) }

// len returns the number of windows.
func (w *windows) len() int { return (w.labels() + w.size - 1) / w.size }

// example implements examples.
func (w *windows) example(i int) (Example, error) {
	at := i * w.size
	own := w.tokens[at:min(len(w.tokens), at+w.size+1-len(w.bos))]
	tokens := make([]int32, 0, len(w.bos)+len(own))
	return Example{Tokens: append(append(tokens, w.bos...), own...)}, nil
}

// openText reads a file of plain text and closes it.
func openText(f *os.File, start int64, path string, o Options) (*windows, Stats, error) {
	if o.Mask == MaskPrompt {
		return nil, Stats{}, hint.Add(fmt.Errorf("%s: %w: the prompt is to be masked and plain text has none", path, tensor.ErrMalformed),
			`leave --mask-prompt out, or use rows with "prompt" and "completion"`)
	}
	w := &windows{size: o.MaxSeqLength - 1}
	if v := o.Tokenizer.Vocab(); v.AddBOS {
		w.bos = []int32{v.BOS}
	}
	var err error
	if w.tokens, err = readText(io.NewSectionReader(f, start, math.MaxInt64-start), path, o.Tokenizer); err != nil {
		return nil, Stats{}, err
	}
	if w.labels() < 1 {
		return nil, Stats{}, hint.Add(fmt.Errorf("%s: %w: %d tokens are not enough to predict one", path, tensor.ErrMalformed, len(w.tokens)), "give more text")
	}
	n := w.len()
	labels := int64(w.labels())
	return w, Stats{Examples: n, Tokens: labels + int64(n), Labels: labels, Longest: min(w.labels(), w.size) + 1}, f.Close()
}

// ReadText returns the tokens of a text file, without BOS and EOS. A byte order
// mark at its beginning is not part of the text; line ends are kept as they are.
// Errors are as those of Open; rows are no text, and tensor.ErrUnsupported.
func ReadText(path string, t *tokenizer.Tokenizer) ([]int32, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	kind, bom, err := sniff(f, path)
	if err != nil {
		return nil, err
	}
	if kind == rowFile {
		return nil, hint.Add(fmt.Errorf("%s: %w: rows of JSON where plain text is needed", path, tensor.ErrUnsupported),
			"jq -r .text FILE.jsonl makes text of rows that have one")
	}
	return readText(io.NewSectionReader(f, bom, math.MaxInt64-bom), path, t)
}

func readText(r io.Reader, path string, t *tokenizer.Tokenizer) ([]int32, error) {
	var tokens []int32
	err := t.EncodeReader(&utf8Reader{r: r, path: path, line: 1}, func(ids []int32) error {
		tokens = append(tokens, ids...)
		return nil
	})
	if errors.Is(err, tensor.ErrUnsupported) {
		err = hint.Add(fmt.Errorf("%s: %w", path, err), "text has spaces or line ends now and then; is this file text?")
	}
	return tokens, err
}

// utf8Reader passes text on and fails where it is not UTF-8 or has a NUL.
type utf8Reader struct {
	r    io.Reader
	path string
	line int
	rest []byte // the beginning of a character
}

func (u *utf8Reader) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if bad := u.check(p[:n], err == io.EOF); bad != nil {
		return 0, bad
	}
	return n, err
}

// check looks at the next part of the text, with what the part before left.
func (u *utf8Reader) check(p []byte, last bool) error {
	data := append(u.rest, p...)
	n := len(data)
	if !last {
		n -= incomplete(data)
	}
	if i := unsound(data[:n]); i < n {
		what := "text that is not UTF-8"
		if data[i] == 0 {
			what = "a NUL byte in text"
		}
		line := u.line + bytes.Count(data[:i], []byte("\n"))
		return hint.Add(fmt.Errorf("%s:%d: %w: %s", u.path, line, tensor.ErrMalformed, what), "save the file as UTF-8 text")
	}
	u.line += bytes.Count(data[:n], []byte("\n"))
	u.rest = append(u.rest[:0], data[n:]...)
	return nil
}

// unsound returns where the first byte of text is that is NUL or not part of
// UTF-8, len(text) if there is none.
func unsound(text []byte) int {
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

// incomplete returns how many bytes at the end of p begin a character that is
// not complete.
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
