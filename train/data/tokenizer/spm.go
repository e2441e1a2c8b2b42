package tokenizer

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/formats/vocab/unigram"
	"github.com/seed18967229/nibble/tensor"
)

// spm is the engine of SentencePiece models, of pieces that are joined in the order
// of their scores or, with probable, of those that are together the most probable.
type spm struct {
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

	probable *unigram.Model
	charsmap *unigram.Charsmap // what characters are normalized by, or nil

	encoders sync.Pool // *encoder
}

func newSPM(v *vocab.Vocab) (*spm, error) {
	t := &spm{
		v: v, scores: make([]float32, len(v.Pieces)), ids: make(map[string]int32, len(v.Pieces)),
		halves: map[int32]int{}, unk: vocab.None, space: ' ',
	}
	if v.EscapeWhitespaces {
		t.space, _ = utf8.DecodeRuneInString(vocab.Space)
	}
	if len(v.Charsmap) > 0 {
		var err error
		if t.charsmap, err = unigram.ParseCharsmap(v.Charsmap); err != nil {
			return nil, err
		}
	}
	t.encoders.New = func() any { return t.newEncoder() }
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
	if v.Kind == vocab.Unigram {
		t.addProbabilities()
	} else if err := t.resolveUnused(); err != nil {
		return nil, err
	}
	for text := range t.ids {
		t.joins.addText(text)
	}
	return t, nil
}

func (t *spm) newEncoder() *encoder {
	e := &encoder{t: t, cache: map[string]cachedWord{}}
	if t.probable != nil {
		e.lattice = t.probable.NewLattice()
	}
	return e
}

// addProbabilities makes the model of the scores. That of a user-defined piece is
// high enough that it is hardly ever split, by SentencePiece's formula.
func (t *spm) addProbabilities() {
	worst, best := float32(math.MaxFloat32), float32(smallest)
	for _, p := range t.v.Pieces {
		if p.Type == vocab.Normal {
			worst, best = min(worst, p.Score), max(best, p.Score)
		}
	}
	var pieces []unigram.Piece
	for i, p := range t.v.Pieces {
		score := float64(p.Score)
		switch p.Type {
		case vocab.Normal:
		case vocab.UserDefined:
			if p.Added {
				continue
			}
			score = float64(float32(len(p.Text))*best) - 0.1
		case vocab.Unused:
			delete(t.ids, p.Text)
			continue
		default:
			continue
		}
		pieces = append(pieces, unigram.Piece{Text: p.Text, Score: score, ID: int32(i)})
	}
	t.probable = unigram.New(pieces, float64(worst), true)
}

// smallest is the least positive number of 32 bits that is not subnormal, which
// SentencePiece's search for the best score starts with.
const smallest = 0x1p-126

// resolveUnused finds what becomes of the pieces that are made on the way but
// are never a result: SentencePiece (0.2.3) takes them apart again into what they
// were joined of, and a single character is as if it had no piece. Those that
// nothing can be joined to are of no consequence.
func (t *spm) resolveUnused() error {
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
func (t *spm) joinable(text string) bool {
	id, ok := t.ids[text]
	if ok {
		return t.v.Pieces[id].Type != vocab.UserDefined
	}
	return utf8.RuneCountInString(text) == 1
}

func (t *spm) encode(text string, special bool) []int32 {
	e := t.encoder(special)
	defer t.release(e)
	e.write(text, true)
	return append(make([]int32, 0, len(e.ids)), e.ids...)
}

func (t *spm) offsets(text string, special bool) (ids []int32, ends []int) {
	e := t.encoder(special)
	defer t.release(e)
	e.track = true
	e.write(text, true)
	ids = append(make([]int32, 0, len(e.ids)), e.ids...)
	ends = append(make([]int, 0, len(e.ends)), e.ends...)
	return ids, ends
}

func (t *spm) encoder(special bool) *encoder {
	e := t.encoders.Get().(*encoder)
	e.reset()
	e.find = &t.added
	if special {
		e.find = &t.parsed
	}
	return e
}

func (t *spm) release(e *encoder) {
	e.shrink()
	t.encoders.Put(e)
}
