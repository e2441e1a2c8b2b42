package tokenizer

import (
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab"
)

// spmDecoder decodes as SentencePiece's Decode does.
type spmDecoder struct {
	t     *spm
	bytes []byte // of Byte pieces, not yet a character
	text  bool   // there has been text
	space bool   // the space in front has been taken away
}

func (t *spm) decoder() decoder { return &spmDecoder{t: t} }

func (d *spmDecoder) Next(id int32) string {
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

// Flush returns U+FFFD for every byte of an incomplete character.
func (d *spmDecoder) Flush() string { return d.note(d.characters(true)) }

func (d *spmDecoder) note(s string) string {
	d.text = d.text || s != ""
	return s
}

// characters takes the complete characters off d.bytes; all of them at the end.
func (d *spmDecoder) characters(end bool) string {
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
