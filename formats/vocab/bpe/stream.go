package bpe

import (
	"strings"
	"unicode/utf8"
)

// Stream decodes tokens one at a time. What Next returns, up to and including
// Flush, makes the text that Decode returns of all of them.
type Stream struct {
	t    *Tokenizer
	skip bool
	push func(string) // the first step
	end  []func()     // what each step does at the end of the tokens
	out  strings.Builder
}

// NewStream returns a Stream at the beginning of a text. Special tokens have no
// text if skip is true.
func (t *Tokenizer) NewStream(skip bool) *Stream {
	s := &Stream{t: t, skip: skip}
	s.push = func(text string) { s.out.WriteString(text) }
	steps := t.decode.steps
	if !streams(steps) {
		s.collect()
		return s
	}
	for i := len(steps) - 1; i >= 0; i-- {
		s.push = s.step(steps[i], s.push, i > fuseAt(steps))
	}
	if t.spec.Decoder == nil {
		next, first := s.push, true
		s.push = func(text string) {
			if !first {
				next(" ")
			}
			first = false
			next(text)
		}
	}
	return s
}

// fuseAt returns where tokens become one text, len(steps) if nowhere.
func fuseAt(steps []Decoder) int {
	for i, d := range steps {
		if p, ok := d.(*PlainDecoder); ok && p.Type == "Fuse" {
			return i
		}
		if _, ok := d.(*ByteLevel); ok {
			return i
		}
	}
	return len(steps)
}

// streams reports whether step knows all steps: behind the one that fuses tokens
// only what is stripped in front is known.
func streams(steps []Decoder) bool {
	fuse := fuseAt(steps)
	for i, d := range steps {
		switch d := d.(type) {
		case *Suffixes: // the last token is special
			return false
		case *StripToken:
			if i > fuse && d.Stop > 0 {
				return false
			}
		default:
			if i > fuse {
				return false
			}
		}
	}
	return true
}

// collect makes the Stream one that returns all text at the end.
func (s *Stream) collect() {
	var tokens []string
	s.push = func(text string) { tokens = append(tokens, text) }
	s.end = append(s.end, func() {
		for _, d := range s.t.decode.steps {
			if len(tokens) > 0 {
				tokens = decodeStep(d, tokens)
			}
		}
		s.out.WriteString(strings.Join(tokens, ""))
	})
}

// step returns a decoder as what is done with each token, or behind the one that
// fuses them with each part of the text.
func (s *Stream) step(d Decoder, next func(string), fused bool) func(string) {
	switch d := d.(type) {
	case *ByteLevel:
		return s.bytes(next)
	case *StripToken:
		if fused {
			return stripFront(d, next)
		}
	case *PlainDecoder:
		if d.Type == "Fuse" {
			return next
		}
		return s.fallback(next)
	case *Prefixes:
		first := true
		return func(text string) {
			text = d.decode(first, text)
			first = false
			next(text)
		}
	case *Metaspace:
		first := true
		return func(text string) {
			if first {
				first = false
				next(decodeStep(d, []string{text})[0])
				return
			}
			next(strings.ReplaceAll(text, d.Replacement, " "))
		}
	}
	return func(text string) { next(decodeStep(d, []string{text})[0]) }
}

// bytes passes on the characters of bytes as soon as they are complete.
func (s *Stream) bytes(next func(string)) func(string) {
	var held []byte
	s.end = append(s.end, func() {
		if len(held) > 0 {
			next(lossy(held))
		}
	})
	return func(text string) {
		held = append(held, tokenBytes(text)...)
		n := len(held)
		for k := 1; k < utf8.UTFMax && k <= n; k++ {
			if utf8.RuneStart(held[n-k]) {
				if !utf8.FullRune(held[n-k:]) {
					n -= k
				}
				break
			}
		}
		next(lossy(held[:n]))
		held = append(held[:0], held[n:]...)
	}
}

// fallback keeps a run of bytes until it ends: only then it is known to be text.
func (s *Stream) fallback(next func(string)) func(string) {
	var run []byte
	flush := func() {
		for _, text := range fallbackText(run) {
			next(text)
		}
		run = run[:0]
	}
	s.end = append(s.end, flush)
	return func(text string) {
		if b, ok := fallbackByte(text); ok {
			run = append(run, b)
			return
		}
		flush()
		next(text)
	}
}

// stripFront removes characters in front of all of the text.
func stripFront(d *StripToken, next func(string)) func(string) {
	left := d.Start
	return func(text string) {
		for left > 0 && text != "" {
			if !strings.HasPrefix(text, d.Content) {
				left = 0
				break
			}
			text = text[len(d.Content):]
			left--
		}
		next(text)
	}
}

// Next returns the text that a token adds: whole characters, so that it may be ""
// until what is needed for one is there.
func (s *Stream) Next(id int32) string {
	if text, ok := s.t.texts[id]; ok && !(s.skip && s.t.special[id]) {
		s.push(text)
	}
	return s.take()
}

// Flush returns what is left at the end of the tokens.
func (s *Stream) Flush() string {
	for i := len(s.end) - 1; i >= 0; i-- {
		s.end[i]()
	}
	s.end = nil
	return s.take()
}

func (s *Stream) take() string {
	text := s.out.String()
	s.out.Reset()
	return text
}
