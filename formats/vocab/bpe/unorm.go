package bpe

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Normalization is done here and not by x/text alone for two reasons. The library
// has the tables of Unicode 9: characters whose decomposition or class came later
// are to it letters without either. And x/text bounds the marks on a letter to 30,
// by a character put between them.

const (
	hangulBase = 0xAC00
	hangulEnd  = hangulBase + 11172
	leadBase   = 0x1100
	leads      = 19
	vowelBase  = 0x1161
	vowels     = 21
	tailBase   = 0x11A7 // one before the first
	tails      = 28
)

// form is one of the four normalization forms.
type form struct {
	norm    norm.Form
	compose bool
}

var forms = map[string]form{"NFC": {norm.NFC, true}, "NFD": {norm.NFD, false}, "NFKC": {norm.NFKC, true}, "NFKD": {norm.NFKD, false}}

// normalize returns the piece in a normalization form.
func (f form) normalize(p piece) piece {
	if f.norm.QuickSpanString(p.s) == len(p.s) {
		return p
	}
	out := rewrite(p)
	for at := 0; at < len(p.s); {
		n := f.norm.QuickSpanString(p.s[at:])
		// What follows may still join the last characters of what is normal.
		n = lastBoundary(f, p.s[at:at+n])
		out.keep(at, at+n)
		at += n
		end := at + segment(f, p.s[at:])
		if s := f.one(p.s[at:end]); s == p.s[at:end] {
			out.keep(at, end)
		} else {
			out.put(s, end)
		}
		at = end
	}
	return out.piece()
}

// boundary reports whether nothing before the character can change with it.
func boundary(f form, s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return inRanges(late, r) || f.norm.PropertiesString(s).BoundaryBefore()
}

// lastBoundary returns where the last character of s that is a boundary starts.
func lastBoundary(f form, s string) int {
	at := len(s)
	for at > 0 {
		_, n := utf8.DecodeLastRuneInString(s[:at])
		at -= n
		if boundary(f, s[at:]) {
			return at
		}
	}
	return 0
}

// segment returns the length of the first character of s and of all that follow
// up to the next boundary.
func segment(f form, s string) int {
	if s == "" {
		return 0
	}
	_, at := utf8.DecodeRuneInString(s)
	for at < len(s) && !boundary(f, s[at:]) {
		_, n := utf8.DecodeRuneInString(s[at:])
		at += n
	}
	return at
}

// char is a character with its canonical combining class.
type char struct {
	r   rune
	ccc uint8
}

// one normalizes a segment: decomposes, orders, composes.
func (f form) one(s string) string {
	var chars []char
	for _, r := range s {
		chars = f.decompose(chars, r)
	}
	for i := 0; i < len(chars); {
		j := i
		for j < len(chars) && chars[j].ccc != 0 {
			j++
		}
		slices.SortStableFunc(chars[i:j], func(a, b char) int { return int(a.ccc) - int(b.ccc) })
		i = j + 1
	}
	if f.compose {
		chars = compose(chars)
	}
	b := make([]byte, 0, len(s)+utf8.UTFMax)
	for _, c := range chars {
		b = utf8.AppendRune(b, c.r)
	}
	return string(b)
}

func (f form) decompose(to []char, r rune) []char {
	switch {
	case inRanges(late, r):
		return append(to, char{r, 0})
	case r >= hangulBase && r < hangulEnd:
		i := r - hangulBase
		to = append(to, char{leadBase + i/(vowels*tails), 0}, char{vowelBase + i%(vowels*tails)/tails, 0})
		if t := i % tails; t != 0 {
			to = append(to, char{tailBase + t, 0})
		}
		return to
	}
	s := string(r)
	if d := f.norm.PropertiesString(s).Decomposition(); d != nil {
		s = string(d)
	}
	for _, r := range s {
		ccc := uint8(0)
		if !inRanges(late, r) {
			ccc = f.norm.PropertiesString(string(r)).CCC()
		}
		to = append(to, char{r, ccc})
	}
	return to
}

// compose joins characters with the last one of class 0 before them, as long as
// none between them has the same class or a higher one.
func compose(chars []char) []char {
	out := chars[:0]
	base := -1
	for _, c := range chars {
		if base >= 0 {
			last := out[len(out)-1]
			adjacent := len(out)-1 == base
			if adjacent || last.ccc < c.ccc {
				if r, ok := pair(out[base].r, c.r); ok {
					out[base].r = r
					continue
				}
			}
		}
		if c.ccc == 0 {
			base = len(out)
		}
		out = append(out, c)
	}
	return out
}

// pair returns the character that two are composed to.
func pair(a, b rune) (rune, bool) {
	switch {
	case inRanges(late, a) || inRanges(late, b):
		return 0, false
	case a >= leadBase && a < leadBase+leads && b >= vowelBase && b < vowelBase+vowels:
		return hangulBase + ((a-leadBase)*vowels+b-vowelBase)*tails, true
	case a >= hangulBase && a < hangulEnd && (a-hangulBase)%tails == 0 && b > tailBase && b < tailBase+tails:
		return a + b - tailBase, true
	}
	both := string(a) + string(b)
	s := norm.NFC.String(both)
	r, n := utf8.DecodeRuneInString(s)
	if n != len(s) || inRanges(late, r) {
		return 0, false
	}
	// x/text looks only at 16 bits of each: to it U+10041 is an A.
	return r, norm.NFD.String(s) == norm.NFD.String(both)
}
