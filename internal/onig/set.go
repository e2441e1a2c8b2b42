package onig

import (
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/ucd"
)

// set is a set of characters.
type set struct {
	pairs []rune // first and last of each range, in order, not touching
	low   [lowRunes / 64]uint64
}

// lowRunes are the characters that are looked up in a bitmap: those of up to two
// bytes in UTF-8.
const lowRunes = 0x800

func newSet(pairs []rune) *set {
	s := &set{pairs: pairs}
	for i := 0; i < len(pairs) && pairs[i] < lowRunes; i += 2 {
		for r := pairs[i]; r <= min(pairs[i+1], lowRunes-1); r++ {
			s.low[r/64] |= 1 << (r % 64)
		}
	}
	return s
}

func (s *set) has(r rune) bool {
	if r < lowRunes {
		return s.low[r/64]>>(r%64)&1 != 0
	}
	lo, hi := 0, len(s.pairs)/2
	for lo < hi {
		mid := (lo + hi) / 2
		switch {
		case r < s.pairs[2*mid]:
			hi = mid
		case r > s.pairs[2*mid+1]:
			lo = mid + 1
		default:
			return true
		}
	}
	return false
}

// decode returns the character at a place in valid UTF-8 and its size.
func decode(text string, at int) (rune, int) {
	if b := text[at]; b < utf8.RuneSelf {
		return rune(b), 1
	}
	return utf8.DecodeRuneInString(text[at:])
}

// words is \w.
var words = sync.OnceValue(func() *set { return newSet(ucd.Word()) })

// setWord is \w within brackets: without the numbers of Latin-1 that are no
// decimal ones.
func setWord() []rune {
	return intersect(ucd.Word(), negate([]rune{0xb2, 0xb3, 0xb9, 0xb9, 0xbc, 0xbe}))
}

func negate(pairs []rune) []rune {
	var out []rune
	next := rune(0)
	for i := 0; i < len(pairs); i += 2 {
		if next < pairs[i] {
			out = append(out, next, pairs[i]-1)
		}
		next = pairs[i+1] + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, next, unicode.MaxRune)
	}
	return out
}

func intersect(a, b []rune) []rune {
	var out []rune
	for i, j := 0, 0; i < len(a) && j < len(b); {
		lo, hi := max(a[i], b[j]), min(a[i+1], b[j+1])
		if lo <= hi {
			out = append(out, lo, hi)
		}
		if a[i+1] < b[j+1] {
			i += 2
		} else {
			j += 2
		}
	}
	return out
}

// folding are the characters that another one is equal to but for its case.
var folding = sync.OnceValue(func() []rune {
	var out []rune
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if unicode.SimpleFold(r) != r {
			out = append(out, r)
		}
	}
	return out
})

// anyCase adds the characters that are equal to those of the set but for their case.
func anyCase(pairs []rune) []rune {
	s := newSet(pairs)
	all := pairs[:len(pairs):len(pairs)]
	for _, r := range folding() {
		if s.has(r) {
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				all = append(all, f, f)
			}
		}
	}
	return ucd.Union(all)
}
