package bpe

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decodeChain is a decoder as the steps that it is made of.
type decodeChain struct{ steps []Decoder }

func compileDecoder(d Decoder) (*decodeChain, error) {
	c := &decodeChain{}
	return c, c.add(d, 0)
}

func (c *decodeChain) add(d Decoder, depth int) error {
	switch d := d.(type) {
	case nil:
		return nil
	case *DecoderSequence:
		if depth > maxDepth {
			return unsupported("decoders nested more than %d deep", maxDepth)
		}
		for _, sub := range d.Decoders {
			if err := c.add(sub, depth+1); err != nil {
				return err
			}
		}
		return nil
	case *Metaspace:
		if _, err := d.scheme(); err != nil {
			return err
		}
	case *Replace:
		if _, err := compilePattern(d.Pattern); err != nil {
			return err
		}
	case *StripToken:
		if utf8.RuneCountInString(d.Content) != 1 {
			return malformed("Strip of %s; want one character", quote(d.Content))
		}
		if d.Start < 0 || d.Stop < 0 {
			return malformed("Strip of %d and %d characters", d.Start, d.Stop)
		}
	case *Suffixes:
		if d.Suffix == "" {
			return unsupported("BPEDecoder without a suffix")
		}
	case *ByteLevel, *PlainDecoder, *Prefixes:
	default:
		return unsupported("decoder %T", d)
	}
	if len(c.steps) >= maxSteps {
		return unsupported("more than %d decoders", maxSteps)
	}
	c.steps = append(c.steps, d)
	return nil
}

// Decode returns the text of tokens. Special ones have none if skip is true; ids
// that do not exist never have any.
func (t *Tokenizer) Decode(ids []int32, skip bool) string {
	var tokens []string
	for _, id := range ids {
		if text, ok := t.texts[id]; ok && !(skip && t.special[id]) {
			tokens = append(tokens, text)
		}
	}
	if len(t.decode.steps) == 0 && t.spec.Decoder == nil {
		return strings.Join(tokens, " ")
	}
	for _, d := range t.decode.steps {
		if len(tokens) == 0 {
			break
		}
		tokens = decodeStep(d, tokens)
	}
	return strings.Join(tokens, "")
}

// decodeStep applies one decoder to tokens, of which there is at least one.
func decodeStep(d Decoder, tokens []string) []string {
	each := func(change func(i int, s string) string) []string {
		for i, s := range tokens {
			tokens[i] = change(i, s)
		}
		return tokens
	}
	switch d := d.(type) {
	case *ByteLevel:
		var b []byte
		for _, s := range tokens {
			b = append(b, tokenBytes(s)...)
		}
		return []string{lossy(b)}
	case *Metaspace:
		scheme, _ := d.scheme()
		return each(func(i int, s string) string {
			with := " "
			if i == 0 && scheme != "never" {
				with = ""
			}
			return strings.ReplaceAll(s, d.Replacement, with)
		})
	case *Replace:
		find, _ := compilePattern(d.Pattern)
		f := find()
		return each(func(_ int, s string) string { return replace(piece{s: s}, f, d.Content).s })
	case *StripToken:
		return each(func(_ int, s string) string { return d.strip(s) })
	case *Suffixes:
		return each(func(i int, s string) string {
			with := " "
			if i == len(tokens)-1 {
				with = ""
			}
			return strings.ReplaceAll(s, d.Suffix, with)
		})
	case *Prefixes:
		return each(func(i int, s string) string { return d.decode(i == 0, s) })
	case *PlainDecoder:
		if d.Type == "Fuse" {
			return []string{strings.Join(tokens, "")}
		}
		return byteFallback(tokens)
	}
	return tokens
}

// tokenBytes returns what a token of byte-level BPE stands for: the bytes of its
// characters, or its own text if one of them stands for no byte.
func tokenBytes(token string) string {
	if b, ok := Bytes(token); ok {
		return b
	}
	return token
}

func (d *StripToken) strip(s string) string {
	for n := int64(0); n < d.Start && strings.HasPrefix(s, d.Content); n++ {
		s = s[len(d.Content):]
	}
	for n := int64(0); n < d.Stop && strings.HasSuffix(s, d.Content); n++ {
		s = s[:len(s)-len(d.Content)]
	}
	return s
}

// fallbackByte returns the byte that a token <0x00> to <0xFF> stands for.
func fallbackByte(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[3:5], 16, 8)
	return byte(n), err == nil
}

// byteFallback makes text of runs of bytes, or U+FFFD of each if they are none.
func byteFallback(tokens []string) []string {
	var out []string
	var run []byte
	flush := func() {
		out = append(out, fallbackText(run)...)
		run = run[:0]
	}
	for _, s := range tokens {
		if b, ok := fallbackByte(s); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, s)
	}
	flush()
	return out
}

func fallbackText(run []byte) []string {
	switch {
	case len(run) == 0:
		return nil
	case utf8.Valid(run):
		return []string{string(run)}
	}
	out := make([]string, len(run))
	for i := range out {
		out[i] = "\uFFFD"
	}
	return out
}

// lossy makes text of bytes as Rust's String::from_utf8_lossy does: U+FFFD for
// every longest part that begins a character and is not one, or else for a byte.
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			n = broken(b)
			out.WriteString("\uFFFD")
		} else {
			out.Write(b[:n])
		}
		b = b[n:]
	}
	return out.String()
}

// broken returns the length of the part at the beginning of b that begins a
// character and is not one: at least 1.
func broken(b []byte) int {
	n := 1
	for n < len(b) && n < utf8.UTFMax && begins(b[:n+1]) {
		n++
	}
	return n
}

// begins reports whether bytes are the beginning of a character, but not all of it.
func begins(b []byte) bool { return !utf8.FullRune(b) }
