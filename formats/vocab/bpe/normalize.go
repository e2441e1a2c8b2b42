package bpe

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/onig"
)

// normalizer changes a piece. A maker returns one for each encoder, because
// patterns are matched with memory.
type (
	normalizer      func(piece) piece
	normalizerMaker func() normalizer
)

// always is a maker of a normalizer without memory.
func always(n normalizer) normalizerMaker { return func() normalizer { return n } }

func compileNormalizer(n Normalizer, depth int) (normalizerMaker, error) {
	switch n := n.(type) {
	case nil:
		return nil, nil
	case *Plain:
		return plainNormalizer(n.Type)
	case *StripText:
		return always(func(p piece) piece { return strip(p, n.Left, n.Right) }), nil
	case *Precompiled:
		return precompiled(n)
	case *BertNormalizer:
		return n.maker(), nil
	case *Prepend:
		return always(func(p piece) piece { return prepend(p, n.Prepend) }), nil
	case *Replace:
		find, err := compilePattern(n.Pattern)
		if err != nil {
			return nil, err
		}
		return func() normalizer {
			find := find()
			return func(p piece) piece { return replace(p, find, n.Content) }
		}, nil
	case *NormalizerSequence:
		return normalizerSequence(n.Normalizers, depth)
	}
	return nil, unsupported("normalizer %T", n)
}

func normalizerSequence(list []Normalizer, depth int) (normalizerMaker, error) {
	if depth > maxDepth {
		return nil, unsupported("normalizers nested more than %d deep", maxDepth)
	}
	var makers []normalizerMaker
	for _, sub := range list {
		m, err := compileNormalizer(sub, depth+1)
		if err != nil {
			return nil, err
		}
		makers = append(makers, m)
	}
	return func() normalizer {
		var steps []normalizer
		for _, m := range makers {
			steps = append(steps, m())
		}
		return func(p piece) piece {
			for _, n := range steps {
				p = n(p)
			}
			return p
		}
	}, nil
}

func plainNormalizer(typ string) (normalizerMaker, error) {
	if f, ok := forms[typ]; ok {
		return always(f.normalize), nil
	}
	switch typ {
	case "Lowercase":
		return always(func(p piece) piece {
			return mapChars(p, func(r rune) (string, bool) { return toLower(r), true })
		}), nil
	case "StripAccents":
		return always(func(p piece) piece {
			return mapChars(p, func(r rune) (string, bool) { return string(r), !inRanges(accents, r) })
		}), nil
	case "Nmt":
		return always(func(p piece) piece { return mapChars(p, nmt) }), nil
	case "ByteLevel":
		return always(byteChars), nil
	}
	return nil, unsupported("normalizer %s", quote(typ))
}

// mapChars puts a text in the place of each character, or drops it.
func mapChars(p piece, change func(rune) (string, bool)) piece {
	var out *rewriter
	same := 0 // what has not been passed on begins here
	for i, r := range p.s {
		n := utf8.RuneLen(r)
		s, keep := change(r)
		if keep && s == p.s[i:i+n] {
			continue
		}
		if out == nil {
			out = rewrite(p)
		}
		out.keep(same, i)
		if keep {
			out.put(s, i+n)
		}
		same = i + n
	}
	if out == nil {
		return p
	}
	out.keep(same, len(p.s))
	return out.piece()
}

// nmt drops control characters and makes spaces of other white space, as the
// normalizer of that name does.
func nmt(r rune) (string, bool) {
	switch {
	case r >= 1 && r <= 8, r == 0xb, r >= 0xe && r <= 0x1f, r == 0x7f, r == 0x8f, r == 0x9f:
		return "", false
	case r == '\t', r == '\n', r == '\f', r == '\r', r == 0x1680, r >= 0x200b && r <= 0x200f,
		r == 0x2028, r == 0x2029, r == 0x2581, r == 0xfeff, r == 0xfffd:
		return " ", true
	}
	return string(r), true
}

func strip(p piece, left, right bool) piece {
	from, to := 0, len(p.s)
	if left {
		from = len(p.s) - len(strings.TrimLeftFunc(p.s, unicode.IsSpace))
	}
	if right {
		to = max(from, len(strings.TrimRightFunc(p.s, unicode.IsSpace)))
	}
	return p.slice(from, to)
}

func prepend(p piece, s string) piece {
	if p.s == "" {
		return p
	}
	out := rewrite(p)
	out.put(s, 0)
	out.keep(0, len(p.s))
	return out.piece()
}

func replace(p piece, find finder, with string) piece {
	find.reset(p.s)
	var out *rewriter
	last := 0
	for {
		start, end, ok := find.next()
		if !ok {
			break
		}
		if out == nil {
			out = rewrite(p)
		}
		out.keep(last, start)
		out.put(with, end)
		last = end
	}
	if out == nil {
		return p
	}
	out.keep(last, len(p.s))
	return out.piece()
}

// finder finds the matches of a pattern in order.
type finder interface {
	reset(text string)
	next() (start, end int, ok bool)
}

// compilePattern returns a maker of finders.
func compilePattern(p Pattern) (func() finder, error) {
	switch {
	case p.String != nil && p.Regex != nil:
		return nil, malformed("a pattern that is both a text and a regular expression")
	case p.String != nil && *p.String == "":
		return nil, unsupported("an empty pattern")
	case p.String != nil:
		return func() finder { return &textFinder{pattern: *p.String} }, nil
	case p.Regex != nil:
		return compileRegex(*p.Regex)
	}
	return nil, malformed("a pattern that is neither a text nor a regular expression")
}

func compileRegex(s string) (func() finder, error) {
	re, err := onig.Compile(s)
	switch {
	case err == nil:
		return func() finder { return regexFinder{re.Matcher()} }, nil
	case isUnsupported(err):
		return nil, unsupported("%v", err)
	}
	return nil, malformed("%v", err)
}

type textFinder struct {
	pattern, text string
	at            int
}

func (f *textFinder) reset(text string) { f.text, f.at = text, 0 }

func (f *textFinder) next() (start, end int, ok bool) {
	i := strings.Index(f.text[f.at:], f.pattern)
	if i < 0 {
		return 0, 0, false
	}
	start = f.at + i
	f.at = start + len(f.pattern)
	return start, f.at, true
}

type regexFinder struct{ m *onig.Matcher }

func (f regexFinder) reset(text string)               { f.m.Reset(text) }
func (f regexFinder) next() (start, end int, ok bool) { return f.m.Next() }
