package tokenizer

import (
	"fmt"
	"io"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Tokenizer splits text by one vocabulary. It is safe for concurrent use.
type Tokenizer struct {
	v      *vocab.Vocab
	engine engine
}

// engine is one way of splitting text.
type engine interface {
	// encode returns the tokens of a text. Special ones are found in it if special
	// is true, other added tokens always.
	encode(text string, special bool) []int32
	offsets(text string, special bool) (ids []int32, ends []int)
	read(r io.Reader, yield func(ids []int32) error) error
	decoder() decoder
}

// decoder is the state of decoding one text.
type decoder interface {
	Next(id int32) string
	Flush() string
}

// New returns the tokenizer of a vocabulary, which must not change afterwards.
// It returns an error that wraps tensor.ErrMalformed if the vocabulary is not
// valid, and one that wraps tensor.ErrUnsupported if it does not say how text is
// split (a GGUF file with a pre-tokenizer that is not known) or says what is not
// done: an Unused piece that can be joined in two ways, a user-defined piece with a
// space where extra spaces are removed.
func New(v *vocab.Vocab) (*Tokenizer, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	e, err := newEngine(v)
	if err != nil {
		return nil, err
	}
	return &Tokenizer{v, e}, nil
}

func newEngine(v *vocab.Vocab) (engine, error) {
	switch {
	case v.Spec != nil:
		t, err := bpe.New(v.Spec)
		return words{t}, err
	case v.Kind == vocab.SPM || v.Kind == vocab.Unigram:
		return newSPM(v)
	}
	return nil, hint.Add(fmt.Errorf("%w: the pre-tokenizer %q; it is not known how it splits text", tensor.ErrUnsupported, v.Pre),
		"use the model's Hugging Face directory, whose tokenizer.json says it")
}

// Vocab returns the vocabulary.
func (t *Tokenizer) Vocab() *vocab.Vocab { return t.v }

// Piece returns the text of a token as the vocabulary has it, "" if there is no
// such token.
func (t *Tokenizer) Piece(id int32) string {
	if id < 0 || int(id) >= len(t.v.Pieces) {
		return ""
	}
	return t.v.Pieces[id].Text
}

// Options say what Encode does beside splitting the text.
type Options struct {
	// BOS and EOS put the vocabulary's token in front and at the end, if it has
	// one. Whether a model wants them is in vocab.Vocab.AddBOS and AddEOS.
	BOS, EOS bool

	// ParseSpecial makes special tokens of their text: "<s>" becomes one token.
	// It is for prompts that are made by a template, never for the text of
	// others in them.
	ParseSpecial bool
}

// Encode returns the tokens of a text, without special ones.
func (t *Tokenizer) Encode(text string) []int32 { return t.EncodeWith(text, Options{}) }

// EncodeWith returns the tokens of a text.
func (t *Tokenizer) EncodeWith(text string, o Options) []int32 {
	ids := t.engine.encode(text, o.ParseSpecial)
	if o.BOS && t.v.BOS != vocab.None {
		ids = append([]int32{t.v.BOS}, ids...)
	}
	if o.EOS && t.v.EOS != vocab.None {
		ids = append(ids, t.v.EOS)
	}
	return ids
}

// EncodeOffsets returns the tokens of a text, as Encode does, and for each the
// length of the text up to and including the last character that it is part of.
// (Of several tokens that are the bytes of one character, each has the end of
// the character. A token that is only the space put in front has 0.)
func (t *Tokenizer) EncodeOffsets(text string) (ids []int32, ends []int) {
	return t.engine.offsets(text, false)
}

// EncodeOffsetsWith is EncodeOffsets of a text in which special tokens are found, if
// special is true, as EncodeWith finds them with ParseSpecial.
func (t *Tokenizer) EncodeOffsetsWith(text string, special bool) (ids []int32, ends []int) {
	return t.engine.offsets(text, special)
}

// EncodeReader passes the tokens of a text to yield, in order and in parts that
// are only valid during the call. They are those of Encode of the whole text.
// An error of yield ends it and is returned.
//
// Only as much of the text is kept in memory as the tokens before it can depend on.
// If that is more than 64 MiB, for SentencePiece more than 16 MiB in one word, the
// error wraps tensor.ErrUnsupported. (For a tokenizer.json that puts something in front
// of a text, as Metaspace does, it can be all of the text.)
func (t *Tokenizer) EncodeReader(r io.Reader, yield func(ids []int32) error) error {
	return t.engine.read(r, yield)
}

// Decode returns the text of tokens. Special tokens have none, and the space that
// was put in front of the text is taken away. Bytes that are not valid UTF-8
// together become U+FFFD.
//
// SentencePiece vocabularies are decoded as SentencePiece does: the Unknown piece
// and ids that do not exist have the vocabulary's surface for it. Others have no
// text for ids that do not exist, as transformers.
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
type Decoder struct{ decoder }

// NewDecoder returns a Decoder at the beginning of a text.
func (t *Tokenizer) NewDecoder() *Decoder { return &Decoder{t.engine.decoder()} }

// Next returns the text that a token adds: whole characters, so that it may be
// "" until the bytes of one are complete.
func (d *Decoder) Next(id int32) string { return d.decoder.Next(id) }

// Flush returns what is left at the end of the tokens: U+FFFD for what is no
// complete character.
func (d *Decoder) Flush() string { return d.decoder.Flush() }
