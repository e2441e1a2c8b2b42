package unigram

import (
	"math"
	"math/rand/v2"
	"unicode/utf8"
)

// Piece is a piece of text and how probable it is.
type Piece struct {
	Text  string
	Score float64
	ID    int32
}

// Model finds the most probable pieces of a text. It is safe for concurrent use.
type Model struct {
	pieces  []Piece
	trie    trie
	unknown float64 // the score of a character without a piece of its own
	single  bool    // sums are kept in 32 bits, as SentencePiece does
}

// Unknown is the ID of a character that is part of no piece.
const Unknown int32 = -1

// penalty is how much less probable an unknown character is than any piece.
const penalty = 10

// New returns a Model of pieces, of which those of the same text are the last of
// them. A character without a piece has 10 less than worst, the score of the least
// probable piece; with single it counts in 32 bits, as the sums of scores do then.
// Pieces without a text are left out.
func New(pieces []Piece, worst float64, single bool) *Model {
	m := &Model{pieces: pieces, unknown: worst - penalty, single: single}
	if single {
		m.unknown = float64(float32(worst) - penalty)
	}
	m.trie.grow(1 << 10)
	for i, p := range pieces {
		if p.Text != "" {
			m.trie.add(p.Text, int32(i))
		}
	}
	return m
}

// node is the best way to the end of a part of the text.
type node struct {
	score float64
	from  int32 // where its last piece begins, -1 if there is no way yet
	piece int32 // its index, or Unknown
}

// Lattice is the memory of finding pieces. It is not safe for concurrent use.
type Lattice struct {
	m    *Model
	best []node
	path []Part
}

// NewLattice returns the memory for a Model.
func (m *Model) NewLattice() *Lattice { return &Lattice{m: m} }

// Part is a piece of a text, up to End.
type Part struct {
	ID  int32 // Unknown for a character without a piece
	End int32
}

// Shrink lets go of what a long text needed.
func (l *Lattice) Shrink(most int) {
	if cap(l.best) > most {
		l.best, l.path = nil, nil
	}
}

// Split returns the most probable parts of a text of less than 2 GiB, which must be
// UTF-8. They are valid until the next call.
func Split[T string | []byte](l *Lattice, text T) []Part {
	m := l.m
	if need := len(text) + 1; cap(l.best) < need {
		l.best = make([]node, need)
	}
	best := l.best[:len(text)+1]
	for i := range best {
		best[i].from = -1
	}
	best[0] = node{}
	for start := 0; start < len(text); {
		n := size(text[start])
		n = min(n, len(text)-start)
		till := best[start].score
		alone := false
		at := m.trie.first[text[start]]
		for end := start + 1; at != 0; end++ {
			if i := m.trie.value[at]; i >= 0 {
				m.offer(&best[end], node{m.pieces[i].Score + till, int32(start), i})
				alone = alone || end-start == n
			}
			if end == len(text) {
				break
			}
			at = m.trie.next(at, text[end])
		}
		if !alone {
			score := m.unknown + till
			if m.single {
				score = float64(float32(score))
			}
			m.offer(&best[start+n], node{score, int32(start), Unknown})
		}
		start += n
	}
	l.path = l.path[:0]
	for end := len(text); end > 0; end = int(best[end].from) {
		id := Unknown
		if i := best[end].piece; i >= 0 {
			id = m.pieces[i].ID
		}
		l.path = append(l.path, Part{id, int32(end)})
	}
	for i, j := 0, len(l.path)-1; i < j; i, j = i+1, j-1 {
		l.path[i], l.path[j] = l.path[j], l.path[i]
	}
	return l.path
}

// offer takes a way that is better than the best so far. SentencePiece compares a
// sum of 64 bits with one that has been stored in 32.
func (m *Model) offer(to *node, n node) {
	if to.from >= 0 && !(n.score > to.score) {
		return
	}
	if m.single {
		n.score = float64(float32(n.score))
	}
	*to = n
}

// size is the length of a character by its first byte.
func size(b byte) int {
	switch {
	case b < 0xc0:
		return 1
	case b < 0xe0:
		return 2
	case b < 0xf0:
		return 3
	}
	return utf8.UTFMax
}

// trie is a tree of texts: an open hash table of the node after a node and a byte.
// Node 0 is none.
type trie struct {
	first [256]int32
	value []int32 // of each node: what ends there, or -1
	slots []slot
	shift uint
	odd   uint64
	used  int
}

// slot holds one node: the one before it and its byte, in one number that is never 0.
type slot struct {
	key uint64
	to  int32
}

func (t *trie) grow(n int) {
	old := t.slots
	t.slots = make([]slot, n)
	t.shift = 64
	for ; n > 1; n >>= 1 {
		t.shift--
	}
	if t.odd == 0 {
		t.odd = rand.Uint64() | 1 // so that no file is made to collide
		t.value = []int32{-1}
	}
	for _, s := range old {
		if s.key != 0 {
			*t.slot(s.key) = s
		}
	}
}

// slot returns where a key is or would be.
func (t *trie) slot(key uint64) *slot {
	mask := uint64(len(t.slots) - 1)
	h := key * t.odd
	for i := (h ^ h>>29) * 0x9e3779b97f4a7c15 >> t.shift; ; i++ {
		s := &t.slots[i&mask]
		if s.key == key || s.key == 0 {
			return s
		}
	}
}

func (t *trie) next(at int32, b byte) int32 { return t.slot(uint64(at)<<8 | uint64(b)).to }

func (t *trie) add(text string, value int32) {
	at := t.first[text[0]]
	if at == 0 {
		at = t.node()
		t.first[text[0]] = at
	}
	for i := 1; i < len(text); i++ {
		if 4*t.used >= 3*len(t.slots) {
			t.grow(2 * len(t.slots))
		}
		key := uint64(at)<<8 | uint64(text[i])
		s := t.slot(key)
		if s.key == 0 {
			*s = slot{key, t.node()}
			t.used++
		}
		at = s.to
	}
	t.value[at] = value
}

func (t *trie) node() int32 {
	if len(t.value) >= math.MaxInt32 {
		panic("unigram: texts of more than 2 GiB") // a file has at most 64 MiB
	}
	t.value = append(t.value, -1)
	return int32(len(t.value) - 1)
}
