package data

import (
	"errors"
	"fmt"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// windows are the examples of plain text: one sequence of tokens, cut so that
// every token is predicted once. Each window has a token to begin with and
// MaxSeqLength-1 to predict (the last one may have fewer). It begins with BOS if
// the vocabulary wants one, so that it looks like the beginning of a sequence, as
// llama.cpp's perplexity does; else with the last token of the window before it.
type windows struct {
	*store
	bos  []int32 // BOS or nothing
	size int     // tokens to predict in a window
}

// labels returns the number of tokens that are predicted.
func (w *windows) labels() int64 { return w.tokens - 1 + int64(len(w.bos)) }

func (w *windows) len() int { return int((w.labels() + int64(w.size) - 1) / int64(w.size)) }

func (w *windows) length(i int) int {
	return int(min(int64(w.size), w.labels()-int64(i)*int64(w.size))) + 1
}

func (w *windows) example(i int) (Example, error) {
	from := int64(i) * int64(w.size)
	own, _, err := w.read(from, from+int64(w.length(i)-len(w.bos)))
	if err != nil {
		return Example{}, err
	}
	tokens := make([]int32, 0, len(w.bos)+len(own))
	return Example{Tokens: append(append(tokens, w.bos...), own...)}, nil
}

func (w *windows) memory() int64 { return 0 }

// readWindows puts the tokens of plain text into a store.
func (o *Options) readWindows(r *records.Reader, s *store) (*windows, Stats, error) {
	if o.Mask == MaskPrompt {
		return nil, Stats{}, hint.Add(fmt.Errorf("%s: %w: the prompt is to be masked and plain text has none", r.Path(), tensor.ErrMalformed), noPrompt)
	}
	w := &windows{store: s, size: o.MaxSeqLength - 1}
	if v := o.Tokenizer.Vocab(); v.AddBOS {
		w.bos = []int32{v.BOS}
	}
	if err := readText(r, o.Tokenizer, func(ids []int32) error {
		if o.Progress != nil {
			o.Progress(r.Path(), r.Position(), r.Size())
		}
		return s.append(ids, nil)
	}); err != nil {
		return nil, Stats{}, err
	}
	if w.labels() < 1 {
		return nil, Stats{}, hint.Add(fmt.Errorf("%s: %w: %d tokens are not enough to predict one", r.Path(), tensor.ErrMalformed, s.tokens), "give more text")
	}
	n, labels := w.len(), w.labels()
	return w, Stats{Examples: n, Tokens: labels + int64(n), Labels: labels, Longest: int(min(labels, int64(w.size))) + 1}, nil
}

// ReadText returns the tokens of a text file, without BOS and EOS. A byte order
// mark at its beginning is not part of the text; line ends are kept as they are.
// Errors are as those of Open; rows are no text, and tensor.ErrUnsupported.
func ReadText(path string, t *tokenizer.Tokenizer) ([]int32, error) {
	r, err := records.Open(path, records.Options{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var tokens []int32
	err = readText(r, t, func(ids []int32) error {
		tokens = append(tokens, ids...)
		return nil
	})
	return tokens, err
}

func readText(r *records.Reader, t *tokenizer.Tokenizer, yield func([]int32) error) error {
	err := t.EncodeReader(r, yield)
	if errors.Is(err, tensor.ErrUnsupported) && r.Text() {
		err = hint.Add(fmt.Errorf("%s: %w", r.Path(), err), "text has spaces or line ends now and then; is this file text?")
	}
	return err
}
