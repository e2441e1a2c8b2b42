package tokenizer

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
)

// Tokenizer splits text by one vocabulary. It is safe for concurrent use.
type Tokenizer struct {
	v      *vocab.Vocab
	scores []float32        // by id
	ids    map[string]int32 // the pieces that text is made of, by their text
	halves map[int32]int    // of an Unused piece that joins make: the length of its left part
	joins  pairs            // the characters that are adjacent in a piece
	fixed  matcher          // pieces that are never joined with others
	added  matcher          // tokens that are taken out of any text
	parsed matcher          // these and the special tokens
	bytes  [256]int32       // the Byte pieces, if there is byte fallback
	unk    int32            // the Unknown piece, or vocab.None
	space  rune             // what a space becomes

	encoders sync.Pool // *encoder
}

// New returns the tokenizer of a vocabulary, which must not change afterwards.
// It returns an error that wraps tensor.ErrMalformed if the vocabulary is not
// valid, and one that wraps tensor.ErrUnsupported if SentencePiece's own result
// would depend on more of the text than its words (an Unused piece that can be
// made in two ways; a user-defined piece with a space where extra spaces are
// removed).
func New(v *vocab.Vocab) (*Tokenizer, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	t := &Tokenizer{
		v: v, scores: make([]float32, len(v.Pieces)), ids: make(map[string]int32, len(v.Pieces)),
		halves: map[int32]int{}, unk: vocab.None, space: ' ',
	}
	if v.EscapeWhitespaces {
		t.space, _ = utf8.DecodeRuneInString(vocab.Space)
	}
	t.encoders.New = func() any { return &encoder{t: t, cache: map[string][]int32{}} }
	for i, p := range v.Pieces {
		id := int32(i)
		t.scores[id] = p.Score
		switch p.Type {
		case vocab.Unknown:
			t.unk = id
			t.parsed.add(p.Text, id)
		case vocab.Control:
			t.parsed.add(p.Text, id)
		case vocab.Byte:
			b, _ := p.Byte()
			t.bytes[b] = id
		case vocab.UserDefined:
			if p.Added {
				t.added.add(p.Text, id)
				t.parsed.add(p.Text, id)
				continue
			}
			if v.RemoveExtraWhitespaces && strings.Contains(p.Text, " ") {
				return nil, fmt.Errorf("piece %d: %w: user-defined piece %q has a space and extra spaces are removed", id, tensor.ErrUnsupported, p.Text)
			}
			t.fixed.add(p.Text, id)
			t.ids[p.Text] = id
		default:
			t.ids[p.Text] = id
		}
	}
	for _, m := range []*matcher{&t.fixed, &t.added, &t.parsed} {
		m.sort()
	}
	if err := t.resolveUnused(); err != nil {
		return nil, err
	}
	for text := range t.ids {
		t.joins.addText(text)
	}
	return t, nil
}

// resolveUnused finds what becomes of the pieces that are made on the way but
// are never a result: SentencePiece (0.2.3) takes them apart again into what they
// were joined of, and a single character is as if it had no piece. Those that
// nothing can be joined to are of no consequence.
func (t *Tokenizer) resolveUnused() error {
	for i, p := range t.v.Pieces {
		if p.Type != vocab.Unused {
			continue
		}
		id, ways := int32(i), 0
		for k := range p.Text {
			if k > 0 && t.joinable(p.Text[:k]) && t.joinable(p.Text[k:]) {
				t.halves[id] = k
				ways++
			}
		}
		switch {
		case ways > 1:
			return fmt.Errorf("piece %d: %w: unused piece %q can be made of others in %d ways", id, tensor.ErrUnsupported, p.Text, ways)
		case ways == 0:
			delete(t.ids, p.Text)
		}
	}
	return nil
}

// joinable reports whether text can be a part of what is joined: a character, or
// a piece that is not fixed.
func (t *Tokenizer) joinable(text string) bool {
	id, ok := t.ids[text]
	if ok {
		return t.v.Pieces[id].Type != vocab.UserDefined
	}
	return utf8.RuneCountInString(text) == 1
}

// Vocab returns the vocabulary.
func (t *Tokenizer) Vocab() *vocab.Vocab { return t.v }

// Piece returns the text of a token as the vocabulary has it, "" if there is no
// such token.
func (t *Tokenizer) Piece(id int32) string {
	if id < 0 || int(id) >= len(t.v.Pieces) {
		return ""
	}
	return t.v.Pieces[id].Text
}

// Options say what Encode does beside splitting the text.
type Options struct {
	// BOS and EOS put the vocabulary's token in front and at the end, if it has
	// one. Whether a model wants them is in vocab.Vocab.AddBOS and AddEOS.
	BOS, EOS bool

	// ParseSpecial makes special tokens of their text: "<s>" becomes one token.
	// It is for prompts that are made by a template, never for the text of
	// others in them.
	ParseSpecial bool
}

// Encode returns the tokens of a text, without special ones.
func (t *Tokenizer) Encode(text string) []int32 { return t.EncodeWith(text, Options{}) }

// EncodeWith returns the tokens of a text.
func (t *Tokenizer) EncodeWith(text string, o Options) []int32 {
	e := t.encoder()
	defer t.release(e)
	e.find = &t.added
	if o.ParseSpecial {
		e.find = &t.parsed
	}
	if o.BOS && t.v.BOS != vocab.None {
		e.ids = append(e.ids, t.v.BOS)
	}
	e.write(text, true)
	if o.EOS && t.v.EOS != vocab.None {
		e.ids = append(e.ids, t.v.EOS)
	}
	return append(make([]int32, 0, len(e.ids)), e.ids...)
}

// EncodeOffsets returns the tokens of a text, as Encode does, and for each the
// length of the text up to and including the last character that it is part of.
// (Of several tokens that are the bytes of one character, each has the end of
// the character. A token that is only the space put in front has 0.)
func (t *Tokenizer) EncodeOffsets(text string) (ids []int32, ends []int) {
	e := t.encoder()
	defer t.release(e)
	e.find = &t.added
	e.track = true
	e.write(text, true)
	ids = append(make([]int32, 0, len(e.ids)), e.ids...)
	ends = append(make([]int, 0, len(e.ends)), e.ends...)
	return ids, ends
}

func (t *Tokenizer) encoder() *encoder {
	e := t.encoders.Get().(*encoder)
	e.reset()
	return e
}

func (t *Tokenizer) release(e *encoder) {
	e.shrink()
	t.encoders.Put(e)
}
