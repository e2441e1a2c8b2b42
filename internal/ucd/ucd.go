package ucd

import (
	_ "embed"
	"encoding/binary"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"
)

//go:embed categories.bin
var packed []byte

// names are the general categories by their numbers in categories.bin.
var names = [...]string{
	"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
	"Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs",
}

// Class is what the patterns of tokenizers mostly ask about a character.
type Class uint8

// The classes. A character has one of the first four at most; Space is
// Unicode's White_Space.
const (
	Letter Class = 1 << iota
	Mark
	Number
	Space
	Newline // CR and LF, which are Space too
)

const (
	pageBits = 8
	pageSize = 1 << pageBits
)

type page [pageSize]uint8

type tables struct {
	categories [(unicode.MaxRune + 1) / pageSize]*page
	ranges     map[string][]rune // pairs: first, last
	class      [len(names)]Class
	ascii      [utf8.RuneSelf]Class
}

var load = sync.OnceValue(func() *tables {
	t := &tables{ranges: map[string][]rune{}}
	for i, name := range names {
		switch name[0] {
		case 'L':
			t.class[i] = Letter
		case 'M':
			t.class[i] = Mark
		case 'N':
			t.class[i] = Number
		case 'Z':
			t.class[i] = Space
		}
	}
	shared := map[page]*page{}
	var current page
	at, data := 0, packed
	for len(data) > 0 {
		n, size := binary.Uvarint(data)
		cat := data[size]
		data = data[size+1:]
		t.ranges[names[cat]] = append(t.ranges[names[cat]], rune(at), rune(at+int(n)-1))
		for range n {
			current[at%pageSize] = cat
			if at++; at%pageSize == 0 {
				p, ok := shared[current]
				if !ok {
					p = new(page)
					*p = current
					shared[current] = p
				}
				t.categories[at/pageSize-1] = p
			}
		}
	}
	for r := range t.ascii {
		t.ascii[r] = t.classOf(rune(r))
	}
	return t
})

func (t *tables) classOf(r rune) Class {
	switch {
	case r == '\n' || r == '\r':
		return Space | Newline
	case r >= '\t' && r <= '\r' || r == 0x85:
		return Space
	}
	return t.class[t.categories[r>>pageBits][r&(pageSize-1)]]
}

// Classes answers questions about characters.
type Classes struct{ t *tables }

// Load returns the table of classes.
func Load() Classes { return Classes{load()} }

// Of returns the classes of a character.
func (c Classes) Of(r rune) Class {
	if r < utf8.RuneSelf {
		return c.t.ascii[r]
	}
	return c.t.classOf(r)
}

// Category returns the name of the general category of a character: "Lu".
func Category(r rune) string {
	t := load()
	return names[t.categories[r>>pageBits][r&(pageSize-1)]]
}

// Ranges returns the characters of a general category ("Lu") or of a group of
// them ("L"), in order, as pairs of the first and the last of each range; nil if
// there is none of that name. The result is the caller's.
func Ranges(name string) []rune {
	t := load()
	if r, ok := t.ranges[name]; ok {
		return slices.Clone(r)
	}
	if len(name) != 1 {
		return nil
	}
	var all []rune
	for _, sub := range names {
		if sub[0] == name[0] {
			all = append(all, t.ranges[sub]...)
		}
	}
	return Union(all)
}

// Union orders pairs of first and last characters, and joins those that touch.
func Union(pairs []rune) []rune {
	type span struct{ lo, hi rune }
	spans := make([]span, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		spans = append(spans, span{pairs[i], pairs[i+1]})
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.lo - b.lo) })
	out := pairs[:0:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.lo <= out[n-1]+1 {
			out[n-1] = max(out[n-1], s.hi)
			continue
		}
		out = append(out, s.lo, s.hi)
	}
	return out
}

// han is the script of Chinese characters, as Unicode 16 has it.
var han = []rune{
	0x2e80, 0x2e99, 0x2e9b, 0x2ef3, 0x2f00, 0x2fd5, 0x3005, 0x3005, 0x3007, 0x3007, 0x3021, 0x3029, 0x3038, 0x303b,
	0x3400, 0x4dbf, 0x4e00, 0x9fff, 0xf900, 0xfa6d, 0xfa70, 0xfad9, 0x16fe2, 0x16fe3, 0x16ff0, 0x16ff1,
	0x20000, 0x2a6df, 0x2a700, 0x2b739, 0x2b740, 0x2b81d, 0x2b820, 0x2cea1, 0x2ceb0, 0x2ebe0, 0x2ebf0, 0x2ee5d,
	0x2f800, 0x2fa1d, 0x30000, 0x3134a, 0x31350, 0x323af,
}

// Script returns the characters of a script ("Han", "Cyrillic") as Ranges does.
// Scripts but Han are those of Go's version of Unicode.
func Script(name string) []rune {
	if name == "Han" {
		return slices.Clone(han)
	}
	table, ok := unicode.Scripts[name]
	if !ok {
		return nil
	}
	var pairs []rune
	add := func(lo, hi, stride rune) {
		if stride == 1 {
			pairs = append(pairs, lo, hi)
			return
		}
		for r := lo; r <= hi; r += stride {
			pairs = append(pairs, r, r)
		}
	}
	for _, r := range table.R16 {
		add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	for _, r := range table.R32 {
		add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	return Union(pairs)
}

// Word returns the characters that Oniguruma's \w matches: letters, marks,
// decimal and letter numbers, connectors, and some more that count as
// alphabetic.
func Word() []rune {
	all := []rune{0xb2, 0xb3, 0xb9, 0xb9, 0xbc, 0xbe, 0x24b6, 0x24e9, 0x1f130, 0x1f149, 0x1f150, 0x1f169, 0x1f170, 0x1f189}
	for _, name := range []string{"L", "M", "Nd", "Nl", "Pc"} {
		all = append(all, Ranges(name)...)
	}
	return Union(all)
}

// White returns the characters of Unicode's White_Space.
func White() []rune {
	return Union(append(Ranges("Z"), '\t', '\r', 0x85, 0x85))
}
