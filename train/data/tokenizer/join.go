package tokenizer

import (
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab/unigram"
)

// symbol is a part of a word: a character, a fixed piece, or what was joined of
// them. One that was joined to the symbol before it has no length.
type symbol struct {
	start, end int32
	prev, next int32 // -1 for none
	fixed      bool
}

// split joins the characters of the word as long as there is a piece for two
// symbols, and emits what remains. This is SentencePiece's bpe::Model::Encode.
func (e *encoder) split() {
	if e.lattice != nil {
		e.choose()
		return
	}
	e.symbols = e.symbols[:0]
	for at := 0; at < len(e.word); {
		n, fixed := e.symbolAt(at)
		i := int32(len(e.symbols))
		e.symbols = append(e.symbols, symbol{start: int32(at), end: int32(at + n), prev: i - 1, next: i + 1, fixed: fixed})
		at += n
	}
	e.symbols[len(e.symbols)-1].next = -1

	e.queue = e.queue[:0]
	for i := range len(e.symbols) - 1 {
		e.consider(int32(i))
	}
	for len(e.queue) > 0 {
		p := e.queue.Pop()
		l := &e.symbols[p.left]
		if l.start == l.end || l.next < 0 {
			continue
		}
		r := &e.symbols[l.next]
		if r.end-l.start != p.size {
			continue // one of the two has changed since
		}
		l.end, r.start, l.next = r.end, r.end, r.next
		if l.next >= 0 {
			e.symbols[l.next].prev = p.left
		}
		if l.prev >= 0 {
			e.consider(l.prev)
		}
		e.consider(p.left)
	}
	for i := int32(0); i >= 0; i = e.symbols[i].next {
		e.emit(int(e.symbols[i].start), int(e.symbols[i].end))
	}
}

// choose emits the most probable pieces of the word: unigram::Model::EncodeOptimized.
// SentencePiece has one sum for all of the text, in 32 bits; here it begins anew with
// each word, so that it does not lose digits in a long text.
func (e *encoder) choose() {
	start := 0
	for _, p := range unigram.Split(e.lattice, e.word) {
		end := int(p.End)
		if p.ID == unigram.Unknown {
			e.emit(start, end)
		} else {
			e.add(p.ID, e.endOf(end))
		}
		start = end
	}
}

// symbolAt returns the length of the first symbol at a place in the word.
func (e *encoder) symbolAt(at int) (n int, fixed bool) {
	if e.t.fixed.first[e.word[at]] {
		// Only as much of the word as a match can have is made a string of.
		end := min(len(e.word), at+e.t.fixed.longest())
		if _, n := e.t.fixed.match(string(e.word[at:end])); n > 0 {
			return n, true
		}
	}
	_, n = utf8.DecodeRune(e.word[at:])
	return n, false
}

// consider queues the symbol and the next one if there is a piece for both.
func (e *encoder) consider(left int32) {
	l := &e.symbols[left]
	if l.next < 0 {
		return
	}
	r := &e.symbols[l.next]
	if l.fixed || r.fixed {
		return
	}
	if id, ok := e.t.ids[string(e.word[l.start:r.end])]; ok {
		e.queue.Push(pair{score: e.t.scores[id], left: left, size: r.end - l.start})
	}
}

// pair is a symbol that may be joined with the next: both have size bytes.
type pair struct {
	score float32
	left  int32
	size  int32
}

// Before says which pair is joined first: the one of the higher score, the left
// one of equals.
func (p pair) Before(q pair) bool {
	if p.score != q.score {
		return p.score > q.score
	}
	return p.left < q.left
}
