package bpe

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// trie finds the longest of a set of texts at a place in another.
type trie struct {
	next  map[uint64]int32 // the node after a node and a byte
	value []int32          // what ends at a node: an index, or -1
	first [256]bool
}

func (t *trie) add(text string, value int32) {
	if t.next == nil {
		t.next = map[uint64]int32{}
		t.value = []int32{-1}
	}
	t.first[text[0]] = true
	at := int32(0)
	for i := range len(text) {
		key := uint64(at)<<8 | uint64(text[i])
		to, ok := t.next[key]
		if !ok {
			to = int32(len(t.value))
			t.next[key] = to
			t.value = append(t.value, -1)
		}
		at = to
	}
	t.value[at] = value
}

// match returns the value and the length of the longest text that s starts with,
// 0 if there is none.
func (t *trie) match(s string) (value int32, n int) {
	at := int32(0)
	for i := range len(s) {
		to, ok := t.next[uint64(at)<<8|uint64(s[i])]
		if !ok {
			break
		}
		if at = to; t.value[at] >= 0 {
			value, n = t.value[at], i+1
		}
	}
	return value, n
}

// matcher takes added tokens out of text.
type matcher struct {
	trie  trie
	added []Added
}

// add adds a token that is found by a text, its own or a normalized one.
func (m *matcher) add(text string, a Added) {
	if text == "" {
		return
	}
	m.trie.add(text, int32(len(m.added)))
	m.added = append(m.added, a)
}

// split passes on the parts of a piece and the tokens between them, with the
// text that belongs to them.
func (m *matcher) split(p piece, text sink, token func(a *Added, p piece)) {
	if len(m.added) == 0 {
		if p.s != "" {
			text(p)
		}
		return
	}
	start := 0
	for at := 0; at < len(p.s); {
		if !m.trie.first[p.s[at]] {
			at++
			continue
		}
		i, n := m.trie.match(p.s[at:])
		if n == 0 {
			at++
			continue
		}
		from, to := at, at+n
		at = to
		a := &m.added[i]
		if a.SingleWord && (wordBefore(p.s[:from]) || wordAfter(p.s[to:])) {
			continue
		}
		if a.LStrip {
			from = max(start, len(strings.TrimRightFunc(p.s[:from], unicode.IsSpace)))
		}
		if a.RStrip {
			to = len(p.s) - len(strings.TrimLeftFunc(p.s[to:], unicode.IsSpace))
		}
		if start < from {
			text(p.slice(start, from))
		}
		token(a, p.slice(from, to))
		start = to
	}
	if start < len(p.s) {
		text(p.slice(start, len(p.s)))
	}
}

func wordBefore(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isRegexWord(r)
}

func wordAfter(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isRegexWord(r)
}
