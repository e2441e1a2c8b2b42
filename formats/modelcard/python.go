package modelcard

import (
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// The functions below are Python's methods of str. Go's differ in which
// characters they mean.

// fields is str.split without an argument.
func fields(s string) []string { return strings.FieldsFunc(s, isSpace) }

// isSpace is str.isspace of one character: Go leaves out the four separators of
// ASCII.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

// isDecimal is str.isdecimal of one character, and what \d matches.
func isDecimal(r rune) bool { return unicode.Is(unicode.Nd, r) }

// isLower is str.islower: there is a letter with a case, and none that is a
// capital.
func isLower(s string) bool {
	lower := false
	for _, r := range s {
		if isUpperOrTitle(r) {
			return false
		}
		lower = lower || isLowerRune(r)
	}
	return lower
}

func isLowerRune(r rune) bool { return unicode.In(r, unicode.Ll, unicode.Other_Lowercase) }

func isUpperOrTitle(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Other_Uppercase, unicode.Lt)
}

// title is str.title of a word that isLower: each letter that follows none
// becomes a capital.
func title(s string) string {
	capital := cases.Title(language.Und, cases.NoLower)
	var b strings.Builder
	inWord := false
	for _, r := range s {
		if inWord {
			b.WriteRune(r)
		} else {
			b.WriteString(capital.String(string(r)))
		}
		inWord = isLowerRune(r) || isUpperOrTitle(r)
	}
	return b.String()
}

// upper is str.upper, where one character may become several.
func upper(s string) string { return cases.Upper(language.Und).String(s) }

// splitLines is str.splitlines of a text that was read with any newlines.
func splitLines(s string) []string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	var lines []string
	start := 0
	for i, r := range s {
		switch r {
		case '\n', '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
			lines = append(lines, s[start:i])
			start = i + len(string(r))
		}
	}
	if start < len(s) {
		lines = append(lines, s[start:])
	}
	return lines
}
