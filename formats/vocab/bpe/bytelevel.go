package bpe

import (
	"strings"
	"unicode/utf8"
)

// byteRune are the characters that stand for bytes in the tokens of byte-level
// BPE, as GPT-2 chose them: printable bytes of Latin-1 for themselves, the others
// from U+0100 on in order. https://github.com/openai/gpt-2/blob/master/src/encoder.py
var byteRune, runeByte = func() (to [256]rune, from map[rune]byte) {
	from = make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !(r >= '!' && r <= '~' || r >= 0xa1 && r <= 0xac || r >= 0xae && r <= 0xff) {
			r = next
			next++
		}
		to[b] = r
		from[r] = byte(b)
	}
	return to, from
}()

// Bytes returns the bytes that a token of byte-level BPE stands for, and false if
// it has a character that stands for none.
func Bytes(token string) (string, bool) {
	b := make([]byte, 0, len(token))
	for _, r := range token {
		c, ok := runeByte[r]
		if !ok {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}

// Chars returns the token that stands for bytes.
func Chars(bytes string) string {
	var b strings.Builder
	b.Grow(2 * len(bytes))
	for i := range len(bytes) {
		b.WriteRune(byteRune[bytes[i]])
	}
	return b.String()
}

// byteChars puts the characters that stand for them in the place of the bytes of
// a piece.
func byteChars(p piece) piece {
	out := rewrite(p)
	for i := 0; i < len(p.s); {
		_, n := utf8.DecodeRuneInString(p.s[i:])
		for k := range n {
			out.put(string(byteRune[p.s[i+k]]), i+n)
		}
		i += n
	}
	return out.piece()
}
