package bpe

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A text can be split into parts that are encoded one by one, with the tokens of
// the whole as the result, at a line feed before a letter or a digit, if no step of
// the pipeline sees across it.

// endAtLines are the patterns of which no match goes on there. Of those that are
// true here, what they match before it depends on what comes after the white space,
// unless the line feed is all of that.
var endAtLines = map[string]bool{
	GPT2Pattern: true, Llama3Pattern: false, Qwen2Pattern: false, Qwen35Pattern: false, GPT4oPattern: false, TekkenPattern: false,
	DeepSeek3Pattern: false, "[\r\n]": false, `[\r\n]`: false, `[^\n]+|[\n]+`: false,
}

// apart are the patterns that match no line feed and do not look beyond one.
var apart = []string{`\p{N}{1,3}`, `\p{N}`, `\p{N}+`, `[0-9][0-9][0-9]`, `[一-龥぀-ゟ゠-ヿ]+`}

// cuts says where a text may be split.
type cuts uint8

const (
	noCuts    cuts = iota
	loneFeeds      // behind a line feed that is the only white space
	feeds          // behind any line feed
)

// Cut returns the last place where text may be split although more follows, 0 if
// it has none or none is known.
func (t *Tokenizer) Cut(text string) int {
	if t.cuts == noCuts {
		return 0
	}
	for end := len(text); ; {
		at := strings.LastIndexByte(text[:end], '\n')
		if at < 0 {
			return 0
		}
		end = at
		if at+1 == len(text) || !utf8.FullRuneInString(text[at+1:]) {
			continue
		}
		after, _ := utf8.DecodeRuneInString(text[at+1:])
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		if cutBefore(after) && (t.cuts == feeds || at > 0 && !unicode.IsSpace(before)) {
			return at + 1
		}
	}
}

func cutBefore(r rune) bool {
	return r >= '0' && r <= '9' || r != utf8.RuneError && unicode.IsLetter(r)
}

// findCuts looks at every part of the pipeline.
func (t *Tokenizer) findCuts() cuts {
	list, _ := flatten(t.spec.PreTokenizer, 0)
	_, bert := t.spec.Normalizer.(*BertNormalizer)
	if bert { // which makes spaces of line feeds: that will do where words end at both
		var words bool
		if len(list) > 0 {
			_, words = list[0].(*Whitespaces)
		}
		bert = words
	}
	if !bert && !lineNormalizer(t.spec.Normalizer) {
		return noCuts
	}
	for _, m := range t.all {
		for _, a := range m.added {
			if !lineToken(a) {
				return noCuts
			}
		}
	}
	for _, step := range list {
		pattern := ""
		switch s := step.(type) {
		case *ByteLevel:
			if s.AddPrefixSpace {
				return noCuts
			}
			if !s.UseRegex {
				continue
			}
			pattern = GPT2Pattern
		case *Digits, *Punctuation:
			continue
		case *Whitespaces:
			return feeds
		case *Split:
			if s.Pattern.Regex == nil {
				return noCuts
			}
			pattern = *s.Pattern.Regex
			if slices.Contains(apart, pattern) {
				continue
			}
			if !s.whole() {
				return noCuts
			}
		default:
			return noCuts
		}
		switch lone, known := endAtLines[pattern]; {
		case !known:
			return noCuts
		case lone:
			return loneFeeds
		}
		return feeds
	}
	return noCuts
}

// whole reports whether matches are words of their own, and so is what is between
// them, or there is nothing between them.
func (s *Split) whole() bool {
	return s.Behavior == Isolated || s.Behavior == Removed && s.Invert
}

// lineNormalizer reports whether a normalizer does the same to both parts of a
// text as to the whole.
func lineNormalizer(n Normalizer) bool {
	switch n := n.(type) {
	case nil:
		return true
	case *Plain:
		return n.Type != "Nmt" && n.Type != "ByteLevel" // which change line feeds
	case *Replace:
		return n.Pattern.String != nil && utf8.RuneCountInString(*n.Pattern.String) == 1 && *n.Pattern.String != "\n" && !strings.Contains(n.Content, "\n")
	case *NormalizerSequence:
		return !slices.ContainsFunc(n.Normalizers, func(sub Normalizer) bool { return !lineNormalizer(sub) })
	}
	return false
}

// lineToken reports whether an added token cannot be at both sides of such a place.
func lineToken(a Added) bool {
	begins, _ := utf8.DecodeRuneInString(a.Content)
	if a.LStrip && cutBefore(begins) {
		return false
	}
	after := false
	for _, r := range a.Content {
		if after && cutBefore(r) {
			return false
		}
		after = r == '\n'
	}
	return true
}
