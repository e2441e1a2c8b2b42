package bpe

import (
	"fmt"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab/unigram"
	"github.com/seed18967229/nibble/internal/heap"
)

// merge is what two tokens are joined to, and when: the lowest rank first.
type merge struct{ rank, id int32 }

// model is the vocabulary made ready to join the symbols of a word.
type model struct {
	spec   *Model
	vocab  map[string]int32 // by bytes if raw
	merges map[uint64]merge
	raw    bool // words are bytes, each a symbol; else their characters are

	bytes    [256]int32 // the symbol of each byte of a raw word, -1 for none
	fallback [256]int32 // the tokens <0x00> to <0xFF>, -1 for none
	unk      int32      // -1 for none
	regular  bool       // every symbol is the text that it has in the word

	unigram *unigram.Model // of that type
	longest int            // of WordPiece: the length of the longest token
}

func key(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

func newModel(spec *Model, raw bool) (*model, error) {
	m := &model{
		spec: spec, raw: raw, unk: -1,
		vocab:  make(map[string]int32, len(spec.Vocab)),
		merges: make(map[uint64]merge, len(spec.Merges)),
	}
	for token, id := range spec.Vocab {
		if id < 0 || id >= maxTokens {
			return nil, malformed("token %s has the id %d", quote(token), id)
		}
		if raw {
			bytes, ok := Bytes(token)
			if !ok {
				continue // no word can be this token
			}
			token = bytes
		}
		m.vocab[token] = id
	}
	if spec.Unk != "" {
		id, ok := spec.Vocab[spec.Unk]
		if !ok {
			return nil, malformed("unk_token %s is not in the vocabulary", quote(spec.Unk))
		}
		m.unk = id
	}
	for b := range 256 {
		m.bytes[b], m.fallback[b] = -1, -1
		if id, ok := spec.Vocab[string(byteRune[b])]; ok {
			m.bytes[b] = id
		}
		if id, ok := spec.Vocab[fmt.Sprintf("<0x%02X>", b)]; ok && spec.ByteFallback {
			m.fallback[b] = id
		}
	}
	switch spec.Type {
	case Unigram:
		return m, m.addScores()
	case WordPiece:
		return m, m.checkWordPiece()
	}
	m.regular = !spec.ByteFallback && spec.Unk == "" && spec.Prefix == ""
	return m, m.addMerges()
}

func (m *model) addMerges() error {
	vocab := m.spec.Vocab
	for i, pair := range m.spec.Merges {
		left, ok := vocab[pair[0]]
		if !ok {
			return malformed("merge %d of %s and %s: the first is not in the vocabulary", i, quote(pair[0]), quote(pair[1]))
		}
		right, ok := vocab[pair[1]]
		if !ok {
			return malformed("merge %d of %s and %s: the second is not in the vocabulary", i, quote(pair[0]), quote(pair[1]))
		}
		n := len(m.spec.Prefix)
		if n > len(pair[1]) {
			return malformed("merge %d of %s and %s: the second is shorter than the prefix %s", i, quote(pair[0]), quote(pair[1]), quote(m.spec.Prefix))
		}
		id, ok := vocab[pair[0]+pair[1][n:]]
		if !ok {
			return malformed("merge %d of %s and %s: what they make is not in the vocabulary", i, quote(pair[0]), quote(pair[1]))
		}
		m.merges[key(left, right)] = merge{rank: int32(i), id: id}
	}
	return nil
}

// symbol is a token of a word, and where it ends there. One that was joined to
// the one before it is gone.
type symbol struct {
	id, end    int32
	prev, next int32 // -1 for none
	gone       bool

	rank, joined int32 // of the pair with the next one, in short words
}

// word splits one word after another. It is the memory of one encoder.
type word struct {
	m       *model
	symbols []symbol
	queue   heap.Queue[candidate]
	lattice *unigram.Lattice // of Unigram
}

func (m *model) newWord() word {
	w := word{m: m}
	if m.unigram != nil {
		w.lattice = m.unigram.NewLattice()
	}
	return w
}

// shortWord is the number of symbols up to which looking at all pairs for each
// merge is faster than keeping them in order.
const shortWord = 24

// split splits a word into symbols. They are valid until the next call; those that
// are gone are not part of the result.
func (w *word) split(s string) []symbol {
	w.symbols = w.symbols[:0]
	switch w.m.spec.Type {
	case Unigram:
		w.probable(s)
		return w.symbols
	case WordPiece:
		w.pieces(s)
		return w.symbols
	}
	if id, ok := w.m.vocab[s]; ok && w.m.spec.IgnoreMerges {
		w.add(id, len(s))
		return w.symbols
	}
	w.start(s)
	if n := len(w.symbols); n > 0 {
		w.symbols[n-1].next = -1
		if n <= shortWord && w.m.regular {
			w.joinShort()
		} else {
			w.join()
		}
	}
	return w.symbols
}

func (w *word) add(id int32, end int) {
	n := int32(len(w.symbols))
	w.symbols = append(w.symbols, symbol{id: id, end: int32(end), prev: n - 1, next: n + 1})
}

// start makes a symbol of every character of the word, or of every byte.
func (w *word) start(s string) {
	if w.m.raw {
		w.startBytes(s)
		return
	}
	m := w.m
	unknown := 0 // where unknown characters end that have no symbol yet
	flush := func() {
		if unknown > 0 {
			w.add(m.unk, unknown)
			unknown = 0
		}
	}
	for i := 0; i < len(s); {
		_, n := utf8.DecodeRuneInString(s[i:])
		text := s[i : i+n]
		if i > 0 && m.spec.Prefix != "" {
			text = m.spec.Prefix + text
		}
		if i += n; i == len(s) && m.spec.Suffix != "" {
			text += m.spec.Suffix
		}
		id, ok := m.vocab[text]
		switch {
		case ok:
			flush()
			w.add(id, i)
		case m.falls(text): // unknown characters before it come after it then, as in the library
			for k := range len(text) {
				w.add(m.fallback[text[k]], i)
			}
		case m.unk >= 0:
			if !m.spec.FuseUnk {
				flush()
			}
			unknown = i
		}
	}
	flush()
}

func (w *word) startBytes(s string) {
	m := w.m
	unknown := false
	for i := range len(s) {
		id := m.bytes[s[i]]
		switch fuse := unknown && m.spec.FuseUnk; {
		case id >= 0:
			w.add(id, i+1)
		case m.unk >= 0 && fuse:
			w.symbols[len(w.symbols)-1].end = int32(i + 1)
		case m.unk >= 0:
			w.add(m.unk, i+1)
		}
		unknown = id < 0
	}
}

// falls reports whether all bytes of a text have a token.
func (m *model) falls(text string) bool {
	if !m.spec.ByteFallback {
		return false
	}
	for i := range len(text) {
		if m.fallback[text[i]] < 0 {
			return false
		}
	}
	return true
}

// joinShort joins the pair of the lowest rank, the leftmost of equals, until
// there is none.
func (w *word) joinShort() {
	s := w.symbols
	for i := range int32(len(s) - 1) {
		w.rank(i)
	}
	s[len(s)-1].rank = maxMerges
	for {
		best, at := int32(maxMerges), int32(-1)
		for i := int32(0); i >= 0; i = s[i].next {
			if s[i].rank < best {
				best, at = s[i].rank, i
			}
		}
		if at < 0 {
			return
		}
		w.merge(at, s[at].joined)
		w.rank(at)
		if s[at].prev >= 0 {
			w.rank(s[at].prev)
		}
	}
}

// rank notes when the symbol at a place is joined with the next one, and to what.
func (w *word) rank(at int32) {
	s := &w.symbols[at]
	s.rank = maxMerges
	if s.next >= 0 {
		if m, ok := w.m.merges[key(s.id, w.symbols[s.next].id)]; ok {
			s.rank, s.joined = m.rank, m.id
		}
	}
}

// merge joins the symbol at a place with the next one.
func (w *word) merge(at, id int32) {
	left := &w.symbols[at]
	right := &w.symbols[left.next]
	left.id, left.end = id, right.end
	right.gone = true
	left.next = right.next
	if left.next >= 0 {
		w.symbols[left.next].prev = at
	}
}

// join does the same as joinShort in time that grows little faster than the word.
// What it does with pairs that have changed since they were queued is the
// library's way too.
func (w *word) join() {
	w.queue = w.queue[:0]
	for i := range int32(len(w.symbols) - 1) {
		w.consider(i)
	}
	for len(w.queue) > 0 {
		p := w.queue.Pop()
		left := &w.symbols[p.at]
		if left.gone || left.next < 0 {
			continue
		}
		m, ok := w.m.merges[key(left.id, w.symbols[left.next].id)]
		if !ok || m.id != p.id {
			continue
		}
		w.merge(p.at, p.id)
		if left.prev >= 0 {
			w.consider(left.prev)
		}
		w.consider(p.at)
	}
}

// consider queues the symbol at a place and the next one, if they can be joined.
func (w *word) consider(at int32) {
	left := &w.symbols[at]
	if left.next < 0 {
		return
	}
	if m, ok := w.m.merges[key(left.id, w.symbols[left.next].id)]; ok {
		w.queue.Push(candidate{rank: m.rank, at: at, id: m.id})
	}
}

// candidate is a symbol that may be joined with the next one to id.
type candidate struct{ rank, at, id int32 }

func (c candidate) Before(d candidate) bool {
	if c.rank != d.rank {
		return c.rank < d.rank
	}
	return c.at < d.at
}
