package onig

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/ucd"
)

// setEscape parses an escape that stands for a set or, if that is nil, for one
// character; r is what follows the backslash. Oniguruma's \w has six characters
// more outside of brackets than within.
func (p *parser) setEscape(r rune, word func() []rune) (pairs []rune, char rune, err error) {
	if c, ok := controls[r]; ok {
		return nil, c, nil
	}
	switch r {
	case 'd':
		return ucd.Ranges("Nd"), 0, nil
	case 'D':
		return negate(ucd.Ranges("Nd")), 0, nil
	case 's':
		return ucd.White(), 0, nil
	case 'S':
		return negate(ucd.White()), 0, nil
	case 'w':
		return word(), 0, nil
	case 'W':
		return negate(word()), 0, nil
	case 'h':
		return []rune{'0', '9', 'A', 'F', 'a', 'f'}, 0, nil
	case 'H':
		return negate([]rune{'0', '9', 'A', 'F', 'a', 'f'}), 0, nil
	case 'p', 'P':
		if !strings.HasPrefix(p.src[p.at:], "{") {
			return nil, r, nil
		}
		pairs, err = p.property(r == 'P', word)
		return pairs, 0, err
	case 'x', 'u', '0':
		char, err = p.codePoint(r)
		return nil, char, err
	case 'k', 'g', 'G', 'K', 'X', 'y', 'Y', 'C', 'c', 'M':
		return nil, 0, p.unsupported(`\%c`, r)
	}
	return nil, r, nil
}

// codePoint parses \xHH, \x{H...}, \uHHHH and \0oo.
func (p *parser) codePoint(kind rune) (rune, error) {
	digits, base, least, alphabet := "", 16, 1, "0123456789abcdefABCDEF"
	rest := p.src[p.at:]
	switch {
	case kind == 'x' && strings.HasPrefix(rest, "{"):
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			return 0, p.syntax("missing }")
		}
		digits = rest[1:end]
		p.at += end + 1
	default:
		most := map[rune]int{'x': 2, 'u': 4, '0': 2}[kind]
		if kind == '0' {
			base, digits, alphabet = 8, "0", "01234567"
		}
		if kind == 'u' {
			least = 4
		}
		for range most {
			if !p.more() || strings.IndexByte(alphabet, p.src[p.at]) < 0 {
				break
			}
			digits += p.src[p.at : p.at+1]
			p.at++
		}
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || len(digits) < least {
		return 0, p.syntax("character number %q", digits)
	}
	if n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, p.unsupported("character number %q", digits)
	}
	if kind == 'x' && n >= utf8.RuneSelf && rest[0] != '{' {
		return 0, p.unsupported(`byte \x%s`, digits)
	}
	return rune(n), nil
}

// property parses the name in \p{name}. Case, spaces, "-" and "_" do not count.
func (p *parser) property(not bool, word func() []rune) ([]rune, error) {
	end := strings.IndexByte(p.src[p.at:], '}')
	if end < 0 {
		return nil, p.syntax("missing }")
	}
	name := p.src[p.at+1 : p.at+end]
	p.at += end + 1
	if rest, ok := strings.CutPrefix(name, "^"); ok {
		name, not = rest, !not
	}
	name = strings.ToLower(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(name))
	pairs := propertyRanges(name)
	if name == "word" {
		pairs = word()
	}
	if pairs == nil {
		return nil, p.unsupported("property %q", name)
	}
	if not {
		pairs = negate(pairs)
	}
	return pairs, nil
}

// longNames are the names of categories that are not their short ones.
var longNames = map[string]string{
	"letter": "L", "uppercaseletter": "Lu", "lowercaseletter": "Ll", "titlecaseletter": "Lt", "modifierletter": "Lm", "otherletter": "Lo",
	"mark": "M", "nonspacingmark": "Mn", "spacingmark": "Mc", "enclosingmark": "Me",
	"number": "N", "decimalnumber": "Nd", "letternumber": "Nl", "othernumber": "No",
	"punctuation": "P", "connectorpunctuation": "Pc", "dashpunctuation": "Pd", "openpunctuation": "Ps", "closepunctuation": "Pe",
	"initialpunctuation": "Pi", "finalpunctuation": "Pf", "otherpunctuation": "Po",
	"symbol": "S", "mathsymbol": "Sm", "currencysymbol": "Sc", "modifiersymbol": "Sk", "othersymbol": "So",
	"separator": "Z", "spaceseparator": "Zs", "lineseparator": "Zl", "paragraphseparator": "Zp",
	"other": "C", "control": "Cc", "format": "Cf", "privateuse": "Co", "unassigned": "Cn", "surrogate": "Cs",
	"digit": "Nd",
}

func propertyRanges(name string) []rune {
	if name == "" {
		return nil
	}
	switch name {
	case "any":
		return negate(nil)
	case "ascii":
		return []rune{0, 0x7f}
	case "space", "whitespace":
		return ucd.White()
	case "punct":
		return ucd.Ranges("P")
	}
	if long, ok := longNames[name]; ok {
		return ucd.Ranges(long)
	}
	capital := strings.ToUpper(name[:1]) + name[1:]
	if pairs := ucd.Ranges(capital); pairs != nil {
		return pairs
	}
	return ucd.Script(capital)
}

// posix are the sets that are written [:name:] within a set.
func posix(name string) []rune {
	switch name {
	case "digit":
		return ucd.Ranges("Nd")
	case "space":
		return ucd.White()
	case "word":
		return setWord()
	case "punct":
		return ucd.Union(append(ucd.Ranges("P"), ucd.Ranges("S")...))
	case "xdigit":
		return []rune{'0', '9', 'A', 'F', 'a', 'f'}
	case "cntrl":
		return ucd.Ranges("Cc")
	case "ascii":
		return []rune{0, 0x7f}
	}
	return nil
}

// class parses a set after its opening bracket.
func (p *parser) class() ([]rune, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.unsupported("nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	not := p.take("^")
	var all, part []rune
	joined := false
	meet := func() {
		part = ucd.Union(part)
		if p.opt.ignoreCase {
			part = anyCase(part)
		}
		if joined {
			part = intersect(all, part)
		}
		all, part, joined = part, nil, true
	}
	for first := true; ; first = false {
		if !p.more() {
			return nil, p.syntax("missing ]")
		}
		if p.ranges += 1; p.ranges > maxRanges {
			return nil, p.unsupported("sets of more than %d ranges", maxRanges)
		}
		switch {
		case p.src[p.at] == ']' && !(first && strings.IndexByte(p.src[p.at+1:], ']') >= 0):
			if first {
				return nil, p.syntax("empty set")
			}
			p.at++
			meet()
			if not {
				all = negate(all)
			}
			return all, nil
		case p.take("&&"):
			meet()
		default:
			pairs, err := p.classItem()
			if err != nil {
				return nil, err
			}
			if part = append(part, pairs...); len(part) > 2*maxRanges {
				return nil, p.unsupported("sets of more than %d ranges", maxRanges)
			}
		}
	}
}

// classItem parses one member of a set: a set, a character or a range.
func (p *parser) classItem() ([]rune, error) {
	if p.take("[:") {
		if end := strings.Index(p.src[p.at:], ":]"); end >= 0 {
			name, not := strings.CutPrefix(p.src[p.at:p.at+end], "^")
			pairs := posix(name)
			if pairs == nil {
				return nil, p.unsupported("set [:%s:]", name)
			}
			p.at += end + 2
			if not {
				pairs = negate(pairs)
			}
			return pairs, nil
		}
		p.at--
		return p.class()
	}
	if p.take("[") {
		return p.class()
	}
	pairs, lo, err := p.classChar()
	if err != nil {
		return nil, err
	}
	rest := p.src[p.at:]
	ranged := len(rest) > 1 && rest[0] == '-' && rest[1] != ']' && rest[1] != '[' && !strings.HasPrefix(rest, "-&&")
	switch {
	case pairs != nil && ranged:
		return nil, p.syntax("range of a set")
	case pairs != nil:
		return pairs, nil
	case !ranged:
		return []rune{lo, lo}, nil
	}
	p.at++
	pairs, hi, err := p.classChar()
	switch {
	case err != nil:
		return nil, err
	case pairs != nil:
		return nil, p.syntax("set at the end of a range")
	case lo > hi:
		return nil, p.syntax("empty range %q-%q", lo, hi)
	}
	return []rune{lo, hi}, nil
}

// classChar parses one character of a set, or an escape that is a set itself.
func (p *parser) classChar() (pairs []rune, char rune, err error) {
	r := p.next()
	if r != '\\' {
		return nil, r, nil
	}
	if !p.more() {
		return nil, 0, p.syntax("pattern ends with a backslash")
	}
	switch r = p.next(); {
	case r == 'b':
		return nil, '\b', nil
	case r == 'R' || r == 'N' || r == 'O' || r == 'X':
		return nil, 0, p.unsupported(`\%c in a set`, r)
	case r >= '1' && r <= '7':
		return nil, 0, p.unsupported(`\%c in a set`, r)
	}
	return p.setEscape(r, setWord)
}
