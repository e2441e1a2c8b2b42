package tokenizer

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// matcher finds the longest of a set of texts at the start of another.
type matcher struct {
	ids     map[string]int32
	first   [256]bool // the first bytes of the texts
	lengths []int     // the lengths of the texts, longest first after sort
}

func (m *matcher) add(text string, id int32) {
	if m.ids == nil {
		m.ids = map[string]int32{}
	}
	m.ids[text] = id
	m.first[text[0]] = true
	if !slices.Contains(m.lengths, len(text)) {
		m.lengths = append(m.lengths, len(text))
	}
}

func (m *matcher) sort() {
	slices.SortFunc(m.lengths, func(a, b int) int { return cmp.Compare(b, a) })
}

// longest returns the length of the longest text, 0 if there is none.
func (m *matcher) longest() int {
	if len(m.lengths) == 0 {
		return 0
	}
	return m.lengths[0]
}

// match returns the longest of the texts that s starts with and its length, 0 if
// there is none.
func (m *matcher) match(s string) (id int32, n int) {
	if s == "" || !m.first[s[0]] {
		return 0, 0
	}
	for _, n := range m.lengths {
		if n <= len(s) {
			if id, ok := m.ids[s[:n]]; ok {
				return id, n
			}
		}
	}
	return 0, 0
}

// pairs is a set of pairs of characters.
type pairs struct {
	ascii [utf8.RuneSelf][2]uint64
	rest  map[uint64]struct{}
}

// addText adds every two adjacent characters of text.
func (p *pairs) addText(text string) {
	last := rune(-1)
	for _, r := range text {
		if last >= 0 {
			p.add(last, r)
		}
		last = r
	}
}

func (p *pairs) add(a, b rune) {
	if a < utf8.RuneSelf && b < utf8.RuneSelf {
		p.ascii[a][b>>6] |= 1 << (b & 63)
		return
	}
	if p.rest == nil {
		p.rest = map[uint64]struct{}{}
	}
	p.rest[uint64(a)<<32|uint64(b)] = struct{}{}
}

func (p *pairs) has(a, b rune) bool {
	if a < utf8.RuneSelf && b < utf8.RuneSelf {
		return p.ascii[a][b>>6]>>(b&63)&1 != 0
	}
	_, ok := p.rest[uint64(a)<<32|uint64(b)]
	return ok
}
