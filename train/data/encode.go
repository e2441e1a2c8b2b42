package data

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/chat"
)

// made is the example of a row.
type made struct {
	Example
	cut   int  // tokens that were cut off
	drop  bool // it is too long and is left out
	tight bool // as in document
	chat  bool // a chat template made it
	twice bool // it wrote BOS twice

	system bool // as in document
}

// encode makes the tokens of a document.
func (o *Options) encode(d document) (made, error) {
	v := o.Tokenizer.Vocab()
	tokens, ends, twice := o.tokens(d)
	bos, eos := len(tokens) > len(ends), v.EOS != vocab.None && !d.rendered
	if eos {
		tokens = append(tokens, v.EOS)
	}
	m := made{Example: Example{Tokens: tokens}, tight: d.tight, chat: d.rendered, twice: twice, system: d.system}
	if d.masked {
		m.Loss = make([]bool, len(tokens))
		own := m.Loss
		if bos {
			own = own[1:]
		}
		overlap(own, ends, d.trained)
		if eos {
			// What is to be completed ends there.
			m.Loss[len(tokens)-1] = true
		}
	}
	return o.fitted(m)
}

// tokens returns the tokens of a document's text behind BOS, if it needs that, and where
// those of the text end in it. A text begins once, whoever says it again: twice.
func (o *Options) tokens(d document) (tokens []int32, ends []int, twice bool) {
	v := o.Tokenizer.Vocab()
	ids, ends := o.Tokenizer.EncodeOffsetsWith(d.text, d.rendered || o.ParseSpecial)
	for len(ids) > 1 && v.BOS != vocab.None && ids[0] == v.BOS && ids[1] == v.BOS {
		ids, ends, twice = ids[1:], ends[1:], true
	}
	tokens = make([]int32, 0, len(ids)+2)
	if v.AddBOS && !(d.rendered && strings.HasPrefix(d.text, o.Tokenizer.Piece(v.BOS))) {
		tokens = append(tokens, v.BOS)
	}
	return append(tokens, ids...), ends, twice
}

// overlap marks the tokens that have a part of a span in them, by where they end in the
// text. Where the tokenizer joins the end of what is not trained with the beginning of
// what is, the model writes both.
func overlap(loss []bool, ends []int, spans []chat.Span) {
	start, end := 0, 0 // of the token; of several that are one character, of that
	s := 0
	for i, e := range ends {
		if e != end {
			start, end = end, e
		}
		for s < len(spans) && spans[s].To <= start {
			s++
		}
		if s == len(spans) {
			return
		}
		loss[i] = end > spans[s].From && end > start
	}
}

// fitted does what is to be done of an example that is too long, and refuses one without a
// token to train on.
func (o *Options) fitted(m made) (made, error) {
	whole, n := m.Example, len(m.Tokens)
	if n > o.MaxSeqLength {
		m.cut = n - o.MaxSeqLength
		switch o.Overlong {
		case Drop:
			m.drop = true
		case Refuse:
			return made{}, hint.Add(fmt.Errorf("%w: the example has %d tokens, over the limit of %d", tensor.ErrMalformed, n, o.MaxSeqLength),
				"raise --max-seq-length to %d, or let --overlong be truncate or drop", n)
		default:
			m.Tokens = m.Tokens[:o.MaxSeqLength]
			if m.Loss != nil {
				m.Loss = m.Loss[:o.MaxSeqLength]
			}
		}
	}
	if m.Labels() > 0 {
		return m, nil
	}
	if whole.Labels() > 0 {
		first := max(1, slices.Index(whole.Loss, true))
		return made{}, hint.Add(fmt.Errorf("%w: no token to train on: the prompt has %d tokens and examples are cut at %d", tensor.ErrMalformed, first, o.MaxSeqLength),
			"raise --max-seq-length above %d, give --overlong drop, or remove the row", first)
	}
	return made{}, hint.Add(fmt.Errorf("%w: no token to train on: the row has nothing to predict", tensor.ErrMalformed), "remove the row")
}
