package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind int

const (
	tokenEOF tokenKind = iota
	tokenData
	tokenBlockBegin
	tokenBlockEnd
	tokenVariableBegin
	tokenVariableEnd
	tokenName
	tokenString
	tokenInteger
	tokenFloat
	tokenOperator
)

type token struct {
	kind  tokenKind
	text  string // of a string, what it means
	value Value  // of a number
	position
}

func (t token) String() string {
	switch t.kind {
	case tokenEOF:
		return "end of template"
	case tokenData:
		return "template data / text"
	case tokenBlockBegin:
		return "begin of statement block"
	case tokenBlockEnd:
		return "end of statement block"
	case tokenVariableBegin:
		return "begin of print statement"
	case tokenVariableEnd:
		return "end of print statement"
	case tokenString:
		return "string"
	case tokenInteger:
		return "integer"
	case tokenFloat:
		return "float"
	}
	return t.text
}

// maxSource and maxTokens bound a template; the longest published ones have some tens of KB.
const (
	maxSource = 1 << 20
	maxTokens = 100_000
)

// lexer cuts a source into tokens. Whitespace goes as trim_blocks and lstrip_blocks have it, and the signs within the tags.
type lexer struct {
	source string
	at     int
	tokens []token
	// The line and column of what was last asked for, so that they are not counted from the start each time.
	seen int
	pos  position
	// fresh: what was read last ended a line, so that blanks before a tag begin one.
	fresh bool
}

func lex(source string) []token {
	if len(source) > maxSource {
		position{1, 1}.fail(Limit, "a template of %d bytes; at most %d are read", len(source), maxSource)
	}
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n")
	l := &lexer{source: strings.TrimSuffix(source, "\n"), pos: position{1, 1}, fresh: true}
	for l.at < len(l.source) {
		l.root()
	}
	l.add(tokenEOF, len(l.source), "")
	return l.tokens
}

func (l *lexer) position(at int) position {
	for _, r := range l.source[l.seen:at] {
		if r == '\n' {
			l.pos = position{l.pos.line + 1, 1}
		} else {
			l.pos.column++
		}
	}
	l.seen = at
	return l.pos
}

func (l *lexer) add(kind tokenKind, at int, text string) {
	l.append(token{kind: kind, text: text, position: l.position(at)})
}

func (l *lexer) append(t token) {
	if len(l.tokens) == maxTokens {
		t.fail(Limit, "a template of more than %d tokens", maxTokens)
	}
	l.tokens = append(l.tokens, t)
}

func (l *lexer) rest() string { return l.source[l.at:] }

// skip goes on behind n bytes.
func (l *lexer) skip(n int) {
	if n > 0 {
		l.fresh = l.source[l.at+n-1] == '\n'
	}
	l.at += n
}

// root reads text up to the next tag, and the tag.
func (l *lexer) root() {
	start := l.at
	n := nextTag(l.rest())
	if n < 0 {
		l.add(tokenData, start, l.rest())
		l.at = len(l.source)
		return
	}
	text, tag := l.rest()[:n], l.rest()[n:]
	sign := signOf(tag[2:])
	l.at += n
	if text = l.before(text, sign, tag[1] != '{'); text != "" {
		l.add(tokenData, start, text)
	}
	switch tag[1] {
	case '#':
		l.comment()
	case '{':
		l.add(tokenVariableBegin, l.at, "{{")
		l.skip(2 + len(sign))
		l.code(tokenVariableEnd)
	default:
		if n := rawTag(tag, "raw", false); n > 0 {
			l.skip(n)
			l.raw()
			return
		}
		l.add(tokenBlockBegin, l.at, "{%")
		l.skip(2 + len(sign))
		l.code(tokenBlockEnd)
	}
}

func nextTag(s string) int {
	for i := 0; ; i++ {
		n := strings.IndexByte(s[i:], '{')
		if n < 0 || i+n+1 >= len(s) {
			return -1
		}
		if i += n; s[i+1] == '{' || s[i+1] == '%' || s[i+1] == '#' {
			return i
		}
	}
}

func signOf(s string) string {
	if s != "" && (s[0] == '-' || s[0] == '+') {
		return s[:1]
	}
	return ""
}

// before is what stays of a text in front of a tag: "-" takes all whitespace, and a block or a comment the blanks of its line.
func (l *lexer) before(text, sign string, block bool) string {
	if sign == "-" {
		return strings.TrimRightFunc(text, isSpace)
	}
	if sign == "+" || !block {
		return text
	}
	line := strings.LastIndexByte(text, '\n') + 1
	if (line > 0 || l.fresh) && strings.TrimLeftFunc(text[line:], isSpace) == "" {
		return text[:line]
	}
	return text
}

// tagEnd is how many bytes end a tag here: a sign, the end itself, and the whitespace that goes with it. 0: none is here.
func tagEnd(s, end string, trim bool) int {
	sign := signOf(s)
	if sign == "+" && !trim || !strings.HasPrefix(s[len(sign):], end) {
		return 0
	}
	n := len(sign) + len(end)
	switch {
	case sign == "-":
		n += len(s[n:]) - len(strings.TrimLeftFunc(s[n:], isSpace))
	case sign == "" && trim && strings.HasPrefix(s[n:], "\n"):
		n++
	}
	return n
}

func (l *lexer) comment() {
	for i := l.at + 2; i < len(l.source); i++ {
		if c := l.source[i]; c != '#' && c != '-' && c != '+' {
			continue
		}
		if n := tagEnd(l.source[i:], "#}", true); n > 0 {
			l.skip(i + n - l.at)
			return
		}
	}
	l.position(l.at).fail(Syntax, "Missing end of comment tag")
}

// rawTag is the length of {% name %} at the front of s, or 0.
func rawTag(s, name string, trim bool) int {
	if !strings.HasPrefix(s, "{%") {
		return 0
	}
	t := strings.TrimLeftFunc(s[2+len(signOf(s[2:])):], isSpace)
	t, ok := strings.CutPrefix(t, name)
	if !ok {
		return 0
	}
	t = strings.TrimLeftFunc(t, isSpace)
	if n := tagEnd(t, "%}", trim); n > 0 {
		if !trim && signOf(t) == "" {
			n = len("%}")
		}
		return len(s) - len(t) + n
	}
	return 0
}

func (l *lexer) raw() {
	start := l.at
	for i := l.at; ; i++ {
		n := strings.Index(l.source[i:], "{%")
		if n < 0 {
			l.position(start).fail(Syntax, "Missing end of raw directive")
		}
		i += n
		if n := rawTag(l.source[i:], "endraw", true); n > 0 {
			if text := l.before(l.source[start:i], signOf(l.source[i+2:]), true); text != "" {
				l.add(tokenData, start, text)
			}
			l.at = i
			l.skip(n)
			return
		}
	}
}

var closing = map[string]string{"(": ")", "[": "]", "{": "}"}

// code reads the tokens of a tag up to its end, which is none within brackets.
func (l *lexer) code(end tokenKind) {
	var open []string
	mark := "%}"
	if end == tokenVariableEnd {
		mark = "}}"
	}
	for l.at < len(l.source) {
		s := l.rest()
		if len(open) == 0 {
			if n := tagEnd(s, mark, end == tokenBlockEnd); n > 0 {
				l.add(end, l.at, mark)
				l.skip(n)
				return
			}
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case isSpace(r):
			l.skip(size)
		case r >= '0' && r <= '9':
			l.number()
		case isWord(r):
			n := strings.IndexFunc(s, func(r rune) bool { return !isWord(r) })
			if n < 0 {
				n = len(s)
			}
			l.add(tokenName, l.at, s[:n])
			if unicode.IsDigit(r) {
				l.position(l.at).fail(Syntax, "Invalid character in identifier")
			}
			l.skip(n)
		case r == '\'' || r == '"':
			l.str()
		default:
			op := operatorAt(s)
			if op == "" {
				l.unexpected(string(r))
			}
			if closing[op] != "" {
				open = append(open, closing[op])
			} else if op == ")" || op == "]" || op == "}" {
				if len(open) == 0 {
					l.position(l.at).fail(Syntax, "unexpected '%s'", op)
				}
				if want := open[len(open)-1]; want != op {
					l.position(l.at).fail(Syntax, "unexpected '%s', expected '%s'", op, want)
				}
				open = open[:len(open)-1]
			}
			l.add(tokenOperator, l.at, op)
			l.skip(len(op))
		}
	}
}

func operatorAt(s string) string {
	if len(s) > 1 {
		switch s[:2] {
		case "//", "**", "==", "!=", ">=", "<=":
			return s[:2]
		}
	}
	if strings.IndexByte("+-/*%~[](){}><=.:|,;", s[0]) >= 0 {
		return s[:1]
	}
	return ""
}

func isWord(r rune) bool {
	return r == '_' || unicode.In(r, unicode.L, unicode.Nd, unicode.Nl, unicode.Mn, unicode.Mc, unicode.Pc)
}

// isSpace is str.isspace, which is also what \s means in Python.
func isSpace(r rune) bool { return r >= 0x1c && r <= 0x1f || unicode.IsSpace(r) }

func digits(s string) int {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '_' && n > 0 && s[n-1] != '_' && n+1 < len(s) && s[n+1] >= '0' && s[n+1] <= '9') {
		n++
	}
	return n
}

// number reads an integer or a float. Behind a point there are integers only: x.0.1 is an element of an element.
func (l *lexer) number() {
	s := l.rest()
	at := l.position(l.at)
	n := digits(s)
	if l.at == 0 || l.source[l.at-1] != '.' {
		f := n
		if f+1 < len(s) && s[f] == '.' && digits(s[f+1:]) > 0 {
			f += 1 + digits(s[f+1:])
		}
		if f < len(s) && (s[f] == 'e' || s[f] == 'E') {
			e := f + 1 + len(signOf(s[f+1:]))
			if d := digits(s[min(e, len(s)):]); d > 0 {
				f = e + d
			}
		}
		if f > n {
			v, err := strconv.ParseFloat(strings.ReplaceAll(s[:f], "_", ""), 64)
			if err != nil && !math.IsInf(v, 0) {
				at.fail(Syntax, "%s is no number", s[:f])
			}
			l.append(token{kind: tokenFloat, text: s[:f], value: v, position: at})
			l.skip(f)
			return
		}
	}
	base := 10
	switch {
	case len(s) > 2 && s[0] == '0' && strings.IndexByte("xXoObB", s[1]) >= 0:
		m := 2
		for m < len(s) && (s[m] == '_' || isHex(s[m])) {
			m++
		}
		if _, err := strconv.ParseUint(s[:m], 0, 64); err == nil || m > 2 {
			n, base = m, 0
		} else {
			n = 1
		}
	case s[0] == '0':
		for n = 1; n < len(s) && s[n] == '0'; n++ {
		}
	}
	text := s[:n]
	if base == 10 {
		text = strings.ReplaceAll(text, "_", "")
	}
	v, err := strconv.ParseInt(text, base, 64)
	if err != nil {
		at.fail(Syntax, "%s is no integer of 64 bits", s[:n])
	}
	l.append(token{kind: tokenInteger, text: s[:n], value: v, position: at})
	l.skip(n)
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (l *lexer) str() {
	s := l.rest()
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			l.add(tokenString, l.at, l.unescape(s[1:i]))
			l.skip(i + 1)
			return
		}
	}
	l.unexpected(s[:1])
}

func (l *lexer) unexpected(char string) {
	l.position(l.at).fail(Syntax, "unexpected char %s at %d", repr(char), utf8.RuneCountInString(l.source[:l.at]))
}

var escapes = map[byte]string{'\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", '\n': ""}

// unescape is Python's unicode-escape: what is no escape stays, with its backslash.
func (l *lexer) unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	at := l.position(l.at)
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			i++
			continue
		}
		c := s[i+1]
		if e, ok := escapes[c]; ok {
			b.WriteString(e)
			i += 2
			continue
		}
		n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
		switch {
		case n > 0:
			if i+2+n > len(s) {
				at.fail(Syntax, "truncated \\%c escape", c)
			}
			v, err := strconv.ParseUint(s[i+2:i+2+n], 16, 32)
			if err != nil || v > unicode.MaxRune {
				at.fail(Syntax, "\\%s is no character", s[i+1:i+2+n])
			}
			b.WriteRune(rune(v))
			i += 2 + n
		case c >= '0' && c <= '7':
			n, v := 1, rune(c-'0')
			for ; n < 3 && i+1+n < len(s) && s[i+1+n] >= '0' && s[i+1+n] <= '7'; n++ {
				v = v*8 + rune(s[i+1+n]-'0')
			}
			b.WriteRune(v)
			i += 1 + n
		case c == 'N':
			at.fail(Syntax, "characters by name (\\N{...}) are not supported")
		case c >= utf8.RuneSelf:
			// Jinja spells such a character as an escape first, and the backslash before it then escapes that one's.
			r, size := utf8.DecodeRuneInString(s[i+1:])
			b.WriteByte('\\')
			b.WriteString(escaped(r)[1:])
			i += 1 + size
		default:
			b.WriteByte('\\')
			i++
		}
	}
	return b.String()
}
