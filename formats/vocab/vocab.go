package vocab

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/tensor"
)

// Space is the character that stands for a space in the text of a piece:
// U+2581, lower one eighth block.
const Space = "▁"

// DefaultUnknownSurface is what SentencePiece decodes the unknown piece to if
// its model does not say otherwise.
const DefaultUnknownSurface = " \u2047 "

// Kind is a way of splitting text into pieces, by the name GGUF gives it in
// tokenizer.ggml.model.
type Kind string

const (
	// SPM is the byte-pair encoding of SentencePiece: adjacent pieces are joined in
	// the order of the score of what they make.
	SPM Kind = "llama"

	// BPE is byte-pair encoding by merges, over the bytes of words that patterns
	// split text into, as GPT-2 has it; with some values of Pre over characters.
	BPE Kind = "gpt2"

	// Unigram is the other way of SentencePiece: the pieces of a word are those that
	// are together the most probable, by their scores.
	Unigram Kind = "t5"

	// WordPiece is BERT's: the longest piece first. It is read from tokenizer.json to
	// split text, and not from GGUF.
	WordPiece Kind = "bert"
)

// Type says what a piece is for. The numbers are those of SentencePiece and of
// GGUF's tokenizer.ggml.token_type.
type Type uint8

// The types of pieces.
const (
	Normal      Type = 1 // text
	Unknown     Type = 2 // stands for text that no piece covers
	Control     Type = 3 // never made from text: <s>, </s>
	UserDefined Type = 4 // text that is always one piece
	Unused      Type = 5 // made on the way to another piece, never the result
	Byte        Type = 6 // <0x00> to <0xFF>: one byte of text that no piece covers
)

// Piece is one token of the vocabulary. Its index in Vocab.Pieces is its id.
type Piece struct {
	// Text is the piece: of kind SPM with Space for a space, of kind BPE with a
	// character for each byte (bpe.Chars). That of an added token is as it is in
	// text, but for a special one of kind SPM.
	Text  string
	Score float32 // of kinds SPM and Unigram
	Type  Type

	// Added marks a token that was added to the vocabulary after it was made, as
	// Hugging Face's added tokens are. One of type UserDefined is taken out of the
	// text before anything else happens to it.
	Added bool

	// LStrip and RStrip say that a special token takes the white space before
	// or after it along. GGUF cannot say so.
	LStrip, RStrip bool

	gguf Type // the token_type in GGUF, if it is not Type
}

// None is the id of a special token that the vocabulary lacks.
const None int32 = -1

// Vocab is a tokenizer.
type Vocab struct {
	Kind   Kind
	Pieces []Piece

	// Merges are the pairs of pieces that are joined, the first ones first, as GGUF
	// has them: with a space between the two. Pre is GGUF's name of the patterns that
	// text is split by before. Both are of kind BPE.
	Merges []string
	Pre    string

	// Spec is how Hugging Face's tokenizers split text, if it is known: of kind BPE
	// from tokenizer.json or from what is known of Pre, nil for a Pre of which
	// nothing is; of other kinds if there is a tokenizer.json and no tokenizer.model.
	Spec *bpe.Spec

	// The ids of the special tokens, None where there is none. Text is split with
	// the piece of type Unknown whatever UNK is.
	BOS, EOS, UNK, SEP, PAD int32

	// AddBOS and AddEOS say whether a sequence that a model reads starts with BOS and
	// ends with EOS: as the files say, else as llama.cpp takes them.
	AddBOS, AddEOS bool

	// Keys is GGUF's metadata of the tokenizer, in order. A nil value stands for
	// what Pieces or Merges say. It is what GGUF returns, and nil for a vocabulary
	// that comes from no directory and no GGUF file.
	Keys tensor.Meta

	// Notes are what is worth knowing about how the files were read: what was
	// dropped, what was told from other signs than usual.
	Notes []string

	// What follows up to UnknownSurface is of kinds SPM and Unigram.

	// AddSpacePrefix puts a space in front of a text ("dummy prefix"), so that
	// its first word is the same piece as in the middle of a sentence.
	AddSpacePrefix bool

	// Legacy puts that space also after every special token in the text, as
	// llama.cpp does. Otherwise only the beginning of a text gets it.
	Legacy bool

	// RemoveExtraWhitespaces drops leading and trailing spaces and makes
	// several spaces in a row one.
	RemoveExtraWhitespaces bool

	// EscapeWhitespaces turns spaces into Space before pieces are looked for.
	EscapeWhitespaces bool

	// ByteFallback splits text that no piece covers into Byte pieces. Without
	// it such text becomes the Unknown piece.
	ByteFallback bool

	// Normalizer is the name that SentencePiece gives its normalization rule, and
	// Charsmap the rule itself (package unigram), nil for none. Only the second has an
	// effect.
	Normalizer string
	Charsmap   []byte

	// UnknownSurface is what the Unknown piece is decoded to.
	UnknownSurface string

	// ChatTemplate is the Jinja template that makes a prompt from messages, ""
	// if there is none. ChatTemplates are further ones, by name.
	ChatTemplate  string
	ChatTemplates []ChatTemplate
}

// ChatTemplate is a chat template with a name other than "default".
type ChatTemplate struct{ Name, Template string }

// special is one row of the table of special tokens.
type special struct {
	name string // in Hugging Face's keys: name_token, name_token_id
	gguf string // after "tokenizer.ggml."
	id   func(*Vocab) *int32
}

// specials returns the special tokens that have a place in a Vocab. "seperator" is
// how GGUF spells it.
func specials() []special {
	return []special{
		{"bos", "bos_token_id", func(v *Vocab) *int32 { return &v.BOS }},
		{"eos", "eos_token_id", func(v *Vocab) *int32 { return &v.EOS }},
		{"unk", "unknown_token_id", func(v *Vocab) *int32 { return &v.UNK }},
		{"sep", "seperator_token_id", func(v *Vocab) *int32 { return &v.SEP }},
		{"pad", "padding_token_id", func(v *Vocab) *int32 { return &v.PAD }},
	}
}

// newVocab returns a Vocab of no pieces with SentencePiece's defaults.
func newVocab() *Vocab {
	return &Vocab{
		Kind: SPM,
		BOS:  None, EOS: None, UNK: None, SEP: None, PAD: None,
		AddBOS: true,
		// As sentencepiece_model.proto has them.
		AddSpacePrefix: true, RemoveExtraWhitespaces: true, EscapeWhitespaces: true,
		UnknownSurface: DefaultUnknownSurface,
	}
}

// maxPieces bounds the number of pieces, which is counted in 32 bits
// everywhere.
const maxPieces = 1 << 24

// Validate returns an error that wraps tensor.ErrMalformed unless every piece has
// a text of its own, the ids exist, and there is a way to write any text: for kinds
// SPM and Unigram a piece for each byte or none of type Byte (as ByteFallback says) and
// an Unknown piece, for kind BPE merges, for kind WordPiece a Spec.
func (v *Vocab) Validate() error {
	if _, ok := typeNames[v.Kind]; !ok {
		return fmt.Errorf("%w: tokenizer model %q; only %s are known", tensor.ErrUnsupported, v.Kind, knownKinds)
	}
	if len(v.Pieces) == 0 || len(v.Pieces) > maxPieces {
		return fmt.Errorf("%w: vocabulary of %d pieces; want 1 to %d", tensor.ErrMalformed, len(v.Pieces), maxPieces)
	}
	seen := make(map[string]int, len(v.Pieces))
	for i, p := range v.Pieces {
		if err := p.validate(); err != nil {
			return fmt.Errorf("piece %d: %w", i, err)
		}
		if j, dup := seen[p.Text]; dup {
			return fmt.Errorf("piece %d: %w: %q is already piece %d", i, tensor.ErrMalformed, p.Text, j)
		}
		seen[p.Text] = i
	}
	if v.Kind == BPE && len(v.Merges) == 0 {
		return fmt.Errorf("%w: byte-level BPE without merges", tensor.ErrMalformed)
	}
	if v.Kind == WordPiece && v.Spec == nil {
		return fmt.Errorf("%w: WordPiece without a tokenizer.json", tensor.ErrUnsupported)
	}
	if v.scored() {
		if err := v.validateSPM(); err != nil {
			return err
		}
	}
	for _, s := range specials() {
		if id := *s.id(v); id != None && (id < 0 || int(id) >= len(v.Pieces)) {
			return fmt.Errorf("%w: %s token id %d in a vocabulary of %d", tensor.ErrMalformed, s.name, id, len(v.Pieces))
		}
	}
	if v.AddBOS && v.BOS == None {
		return fmt.Errorf("%w: a bos token is to be added and there is none", tensor.ErrMalformed)
	}
	if v.AddEOS && v.EOS == None {
		return fmt.Errorf("%w: an eos token is to be added and there is none", tensor.ErrMalformed)
	}
	return nil
}

// scored reports whether the vocabulary is SentencePiece's.
func (v *Vocab) scored() bool { return v.Kind == SPM || v.Kind == Unigram }

func (v *Vocab) validateSPM() error {
	unknown, bytes := -1, 0
	var written [256]bool // the bytes that have a piece
	for i, p := range v.Pieces {
		switch p.Type {
		case Unknown:
			if unknown >= 0 {
				return fmt.Errorf("piece %d: %w: %q is a second unknown piece, after %d", i, tensor.ErrMalformed, p.Text, unknown)
			}
			unknown = i
		case Byte:
			b, _ := p.Byte()
			written[b] = true
			bytes++
		case Normal:
			// Gemma's tokenizer.json has the tab itself in the place of <0x09>.
			if len(p.Text) == 1 {
				written[p.Text[0]] = true
			}
		case UserDefined:
			if p.LStrip && v.Spec == nil {
				return fmt.Errorf("piece %d: %w: added token %q is not special and takes white space before it along", i, tensor.ErrUnsupported, p.Text)
			}
		}
	}
	switch {
	case v.ByteFallback && slices.Contains(written[:], false):
		return fmt.Errorf("%w: byte fallback with %d byte pieces; want 256", tensor.ErrMalformed, bytes)
	case !v.ByteFallback && bytes != 0:
		return fmt.Errorf("%w: %d byte pieces without byte fallback", tensor.ErrMalformed, bytes)
	case !v.ByteFallback && unknown < 0:
		return fmt.Errorf("%w: neither an unknown piece nor byte fallback", tensor.ErrMalformed)
	}
	return nil
}

func (p Piece) validate() error {
	switch {
	case p.Text == "":
		return fmt.Errorf("%w: no text", tensor.ErrMalformed)
	case !utf8.ValidString(p.Text):
		return fmt.Errorf("%w: text %q is not UTF-8", tensor.ErrMalformed, p.Text)
	case math.IsNaN(float64(p.Score)):
		return fmt.Errorf("%w: %q has no number as score", tensor.ErrMalformed, p.Text)
	case p.Type < Normal || p.Type > Byte:
		return fmt.Errorf("%w: %q has type %d; want 1 to 6", tensor.ErrMalformed, p.Text, p.Type)
	case p.Type == Byte:
		if _, ok := p.Byte(); !ok {
			return fmt.Errorf("%w: byte piece %q; want <0x00> to <0xFF>", tensor.ErrMalformed, p.Text)
		}
	}
	return nil
}

// Byte returns the byte that a piece of type Byte stands for, and whether its
// text is of that form.
func (p Piece) Byte() (byte, bool) {
	if p.Type != Byte {
		return 0, false
	}
	return byteOf(p.Text)
}

func byteOf(text string) (byte, bool) {
	if len(text) != 6 || text[:3] != "<0x" || text[5] != '>' {
		return 0, false
	}
	hi, lo := strings.IndexByte(hexDigits, text[3]), strings.IndexByte(hexDigits, text[4])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

const hexDigits = "0123456789ABCDEF"

// text returns the text of a special token, "" for None.
func (v *Vocab) text(id int32) string {
	if id < 0 || int(id) >= len(v.Pieces) {
		return ""
	}
	return v.Pieces[id].Text
}
