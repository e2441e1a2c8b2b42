package bpe

import (
	"errors"
	"unicode"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/onig"
	"github.com/seed18967229/nibble/internal/ucd"
)

// gpt2 is the pattern that ByteLevel splits by.
const gpt2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// sink takes pieces in order.
type sink func(piece)

// step passes the parts of a piece to a sink. A stepMaker returns one for each
// encoder.
type (
	step      func(piece, sink)
	stepMaker func() step
)

func isUnsupported(err error) bool { return errors.Is(err, onig.ErrUnsupported) }

// flatten returns the steps of a pre-tokenizer without the sequences around them.
func flatten(t PreTokenizer, depth int) ([]PreTokenizer, error) {
	seq, ok := t.(*PreTokenizerSequence)
	switch {
	case t == nil:
		return nil, nil
	case !ok:
		return []PreTokenizer{t}, nil
	case depth > maxDepth:
		return nil, unsupported("pre-tokenizers nested more than %d deep", maxDepth)
	}
	var all []PreTokenizer
	for _, sub := range seq.PreTokenizers {
		list, err := flatten(sub, depth+1)
		if err != nil {
			return nil, err
		}
		if all = append(all, list...); len(all) > maxSteps {
			return nil, unsupported("more than %d pre-tokenizers", maxSteps)
		}
	}
	return all, nil
}

// compileSteps returns the steps of a pre-tokenizer. If the last one makes
// characters of bytes it is left out, and raw is true: the model works with bytes.
func compileSteps(t PreTokenizer) (makers []stepMaker, raw bool, err error) {
	list, err := flatten(t, 0)
	if err != nil {
		return nil, false, err
	}
	for i, sub := range list {
		b, isBytes := sub.(*ByteLevel)
		raw = isBytes && i == len(list)-1
		var ms []stepMaker
		if w, ok := sub.(*Whitespaces); ok && w.Type == "BertPreTokenizer" {
			ms = []stepMaker{func() step { return bertStep }}
		} else if isBytes {
			ms, err = byteLevelSteps(b, raw)
		} else {
			var m stepMaker
			m, err = compileStep(sub)
			ms = []stepMaker{m}
		}
		if err != nil {
			return nil, false, err
		}
		makers = append(makers, ms...)
	}
	return makers, raw, nil
}

func byteLevelSteps(b *ByteLevel, raw bool) (makers []stepMaker, err error) {
	if b.AddPrefixSpace {
		makers = append(makers, func() step {
			return func(p piece, to sink) {
				if p.s == "" || p.s[0] != ' ' {
					out := rewrite(p)
					out.put(" ", 0)
					out.keep(0, len(p.s))
					p = out.piece()
				}
				to(p)
			}
		})
	}
	if b.UseRegex {
		find, err := compileRegex(gpt2)
		if err != nil {
			return nil, err
		}
		makers = append(makers, splitBy(find, Isolated, false))
	}
	if !raw {
		makers = append(makers, func() step {
			return func(p piece, to sink) { to(byteChars(p)) }
		})
	}
	return makers, nil
}

func compileStep(t PreTokenizer) (stepMaker, error) {
	switch t := t.(type) {
	case *Split:
		find, err := compilePattern(t.Pattern)
		if err != nil {
			return nil, err
		}
		if err := t.Behavior.check(); err != nil {
			return nil, err
		}
		return splitBy(find, t.Behavior, t.Invert), nil
	case *Digits:
		classes := ucd.Load()
		find := charFinder(func(r rune) bool { return isNumeric(classes, r) })
		if t.Individual {
			return splitBy(find, Isolated, false), nil
		}
		return splitBy(find, Contiguous, false), nil
	case *Punctuation:
		if err := t.Behavior.check(); err != nil {
			return nil, err
		}
		return splitBy(charFinder(func(r rune) bool { return inRanges(punctuation, r) }), t.Behavior, false), nil
	case *Whitespaces:
		if t.Type == "WhitespaceSplit" {
			return splitBy(charFinder(unicode.IsSpace), Removed, false), nil
		}
		return splitBy(func() finder { return &wordFinder{} }, Removed, true), nil
	case *CharDelimiterSplit:
		if utf8.RuneCountInString(t.Delimiter) != 1 {
			return nil, malformed("delimiter %s; want one character", quote(t.Delimiter))
		}
		return splitBy(func() finder { return &textFinder{pattern: t.Delimiter} }, Removed, false), nil
	case *Metaspace:
		return metaspaceStep(t)
	}
	return nil, unsupported("pre-tokenizer %T", t)
}

func (b Behavior) check() error {
	switch b {
	case Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous:
		return nil
	}
	return malformed("behavior %s", quote(string(b)))
}

func (m *Metaspace) scheme() (string, error) {
	scheme := m.PrependScheme
	if m.AddPrefixSpace != nil && !*m.AddPrefixSpace {
		scheme = "never"
	}
	switch {
	case scheme != "always" && scheme != "first" && scheme != "never":
		return "", malformed("prepend_scheme %s", quote(scheme))
	case utf8.RuneCountInString(m.Replacement) != 1:
		return "", malformed("replacement %s; want one character", quote(m.Replacement))
	}
	return scheme, nil
}

func metaspaceStep(m *Metaspace) (stepMaker, error) {
	scheme, err := m.scheme()
	if err != nil {
		return nil, err
	}
	mark, _ := utf8.DecodeRuneInString(m.Replacement)
	split := splitBy(func() finder { return &textFinder{pattern: m.Replacement} }, MergedWithNext, false)
	return func() step {
		split := split()
		space := &textFinder{pattern: " "}
		return func(p piece, to sink) {
			p = replace(p, space, m.Replacement)
			begins, _ := utf8.DecodeRuneInString(p.s)
			if begins != mark && (scheme == "always" || scheme == "first" && p.first) {
				out := rewrite(p)
				out.put(m.Replacement, 0)
				out.keep(0, len(p.s))
				p = out.piece()
			}
			if !m.Split {
				to(p)
				return
			}
			split(p, to)
		}
	}, nil
}

// charFinder finds the characters of a kind, one by one.
func charFinder(is func(rune) bool) func() finder {
	return func() finder { return &charsFinder{is: is} }
}

type charsFinder struct {
	is   func(rune) bool
	text string
	at   int
}

func (f *charsFinder) reset(text string) { f.text, f.at = text, 0 }

func (f *charsFinder) next() (start, end int, ok bool) {
	for f.at < len(f.text) {
		r, n := utf8.DecodeRuneInString(f.text[f.at:])
		f.at += n
		if f.is(r) {
			return f.at - n, f.at, true
		}
	}
	return 0, 0, false
}

// wordFinder finds \w+|[^\w\s]+.
type wordFinder struct {
	text string
	at   int
}

func (f *wordFinder) reset(text string) { f.text, f.at = text, 0 }

func (f *wordFinder) next() (start, end int, ok bool) {
	kind := func(at int) (word, space bool, n int) {
		r, n := utf8.DecodeRuneInString(f.text[at:])
		return isRegexWord(r), unicode.IsSpace(r), n
	}
	for f.at < len(f.text) {
		word, space, n := kind(f.at)
		start = f.at
		f.at += n
		if space {
			continue
		}
		for f.at < len(f.text) {
			w, s, n := kind(f.at)
			if w != word || s {
				break
			}
			f.at += n
		}
		return start, f.at, true
	}
	return 0, 0, false
}

// splitBy splits by what a finder finds, or by what it does not.
func splitBy(find func() finder, b Behavior, invert bool) stepMaker {
	return func() step {
		s := &splitter{find: find(), behavior: b, invert: invert}
		return s.split
	}
}

// splitter merges matches and what is between them as a behavior has it.
type splitter struct {
	find     finder
	behavior Behavior
	invert   bool

	p       piece
	to      sink
	from    int // the beginning of what has not been passed on
	at      int // the end of what has been seen
	pending bool
	matched bool // what was seen last is a match
}

func (s *splitter) split(p piece, to sink) {
	s.p, s.to, s.from, s.at, s.pending, s.matched = p, to, 0, 0, false, false
	s.find.reset(p.s)
	last := 0
	for {
		start, end, ok := s.find.next()
		if !ok {
			break
		}
		if last < start {
			s.part(start, s.invert)
		}
		s.part(end, !s.invert)
		last = end
	}
	if last < len(p.s) {
		s.part(len(p.s), s.invert)
	}
	s.flush(s.at)
}

// part takes the text from s.at to end, which is a match or is between two.
func (s *splitter) part(end int, match bool) {
	switch s.behavior {
	case Isolated:
		s.flush(s.at)
	case Removed:
		s.flush(s.at)
		if match {
			s.from = end
		}
	case Contiguous:
		if match != s.matched || !s.pending {
			s.flush(s.at)
		}
	case MergedWithPrevious:
		if !match || s.matched {
			s.flush(s.at)
		}
	case MergedWithNext:
		// A match waits for what comes next: another match goes alone.
		if match || !s.matched {
			s.flush(s.at)
		}
	}
	s.at, s.matched, s.pending = end, match, true
}

// flush passes on what is before end.
func (s *splitter) flush(end int) {
	if s.from < end {
		s.to(s.p.slice(s.from, end))
	}
	s.from = max(s.from, end)
}
