package tokenizer

import (
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab"
)

// Decode returns the text of tokens, as SentencePiece's Decode does: special
// tokens have none, the Unknown piece and ids that do not exist have the
// vocabulary's surface for it, Byte pieces that are not valid UTF-8 together
// become U+FFFD each, and the space that was put in front of the text is taken
// away.
func (t *Tokenizer) Decode(ids []int32) string {
	d := t.NewDecoder()
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(d.Next(id))
	}
	b.WriteString(d.Flush())
	return b.String()
}

// Decoder decodes tokens one at a time, for text that is shown while it is
// generated. What Next returns, up to and including Flush, makes the text that
// Decode returns. To continue a prompt, give the Decoder the prompt's tokens
// first.
type Decoder struct {
	t     *Tokenizer
	bytes []byte // of Byte pieces, not yet a character
	text  bool   // there has been text
	space bool   // the space in front has been taken away
}

// NewDecoder returns a Decoder at the beginning of a text.
func (t *Tokenizer) NewDecoder() *Decoder { return &Decoder{t: t} }

// Next returns the text that a token adds: whole characters, so that it may be
// "" until the bytes of one are complete.
func (d *Decoder) Next(id int32) string {
	v := d.t.v
	typ := vocab.Unknown
	if id >= 0 && int(id) < len(v.Pieces) {
		typ = v.Pieces[id].Type
	}
	if typ == vocab.Byte {
		b, _ := v.Pieces[id].Byte()
		d.bytes = append(d.bytes, b)
		return d.note(d.characters(false))
	}
	before := d.Flush()
	switch typ {
	case vocab.Control:
		return before
	case vocab.Unknown:
		return before + d.note(v.UnknownSurface)
	}
	piece := v.Pieces[id].Text
	if !d.text && !d.space && (v.AddSpacePrefix || v.RemoveExtraWhitespaces) {
		var cut bool
		piece, cut = strings.CutPrefix(piece, vocab.Space)
		// Where extra spaces are removed there are none in front at all.
		d.space = cut && !v.RemoveExtraWhitespaces
	}
	return before + d.note(strings.ReplaceAll(piece, vocab.Space, " "))
}

// Flush returns what is left at the end of the tokens: U+FFFD for every byte of
// an incomplete character.
func (d *Decoder) Flush() string { return d.note(d.characters(true)) }

func (d *Decoder) note(s string) string {
	d.text = d.text || s != ""
	return s
}

// characters takes the complete characters off d.bytes; all of them at the end.
func (d *Decoder) characters(end bool) string {
	if len(d.bytes) == 0 {
		return ""
	}
	var b strings.Builder
	n := 0
	for n < len(d.bytes) && (end || utf8.FullRune(d.bytes[n:])) {
		r, size := utf8.DecodeRune(d.bytes[n:]) // U+FFFD of length 1 if invalid
		b.WriteRune(r)
		n += size
	}
	d.bytes = d.bytes[:copy(d.bytes, d.bytes[n:])]
	return b.String()
}
