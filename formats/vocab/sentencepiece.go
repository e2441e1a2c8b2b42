package vocab

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab/unigram"
	"github.com/seed18967229/nibble/tensor"
	"google.golang.org/protobuf/encoding/protowire"
)

// The field numbers of sentencepiece_model.proto that matter here.
const (
	modelPieces       = 1
	modelTrainer      = 2
	modelNormalizer   = 3
	modelDenormalizer = 5

	pieceText  = 1
	pieceScore = 2
	pieceType  = 3

	trainerModelType    = 3
	trainerVocabSize    = 4
	trainerSuffix       = 24 // treat_whitespace_as_suffix
	trainerByteFallback = 35
	trainerUNK          = 40
	trainerBOS          = 41
	trainerEOS          = 42
	trainerPAD          = 43
	trainerUNKSurface   = 44
	trainerUNKPiece     = 45
	trainerBOSPiece     = 46
	trainerEOSPiece     = 47
	trainerPADPiece     = 48

	normalizerName        = 1
	normalizerCharsmap    = 2
	normalizerDummyPrefix = 3
	normalizerRemoveExtra = 4
	normalizerEscape      = 5

	modelTypeUnigram = 1
	modelTypeBPE     = 2
)

var modelTypes = map[uint64]string{modelTypeUnigram: "unigram", modelTypeBPE: "bpe", 3: "word", 4: "char"}

// ParseSentencePiece reads a tokenizer.model. Special tokens are those that
// SentencePiece itself finds: the pieces that the model names as such, if they
// are of the right type. AddBOS is set, as models that come without further
// files expect it.
//
// It returns an error that wraps tensor.ErrMalformed if data is not such a
// model or SentencePiece would refuse it, and one that wraps
// tensor.ErrUnsupported if it is of type word or char, or treats white space as a
// suffix.
func ParseSentencePiece(data []byte) (*Vocab, error) {
	if tiktokenLine.Match(data[:min(len(data), 256)]) {
		return nil, fmt.Errorf("%w: a tiktoken vocabulary, not a SentencePiece model", tensor.ErrUnsupported)
	}
	v := newVocab()
	t := trainer{modelType: modelTypeUnigram}
	trained := false
	err := eachField(data, func(f field) error {
		switch f.num {
		case modelPieces:
			p, err := parsePiece(f)
			if err == nil {
				err = p.validate()
			}
			if err != nil {
				return fmt.Errorf("piece %d: %w", len(v.Pieces), err)
			}
			v.Pieces = append(v.Pieces, p)
		case modelTrainer:
			trained = true
			if err := t.parse(f, v); err != nil {
				return fmt.Errorf("trainer_spec: %w", err)
			}
		case modelNormalizer:
			if err := parseNormalizer(f, v); err != nil {
				return fmt.Errorf("normalizer_spec: %w", err)
			}
		case modelDenormalizer:
			d := newVocab()
			err := parseNormalizer(f, d)
			if err == nil && d.Charsmap != nil {
				err = fmt.Errorf("%w: %d bytes of precompiled_charsmap to change decoded text", tensor.ErrUnsupported, len(d.Charsmap))
			}
			if err != nil {
				return fmt.Errorf("denormalizer_spec: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !trained { // pieces come before it: the rest of the file may be missing
		return nil, fmt.Errorf("%w: %d pieces without a trainer_spec, which says of what type the model is", tensor.ErrMalformed, len(v.Pieces))
	}
	switch t.modelType {
	case modelTypeBPE:
	case modelTypeUnigram:
		v.Kind = Unigram
	default:
		name, ok := modelTypes[t.modelType]
		if !ok {
			name = fmt.Sprint(t.modelType)
		}
		return nil, fmt.Errorf("%w: SentencePiece model of type %s; only bpe and unigram are known", tensor.ErrUnsupported, name)
	}
	t.specials(v)
	v.AddBOS = v.BOS != None
	if err := v.Validate(); err != nil {
		return nil, err
	}
	return v, nil
}

// trainer is the part of trainer_spec that decides what the special tokens are.
type trainer struct {
	modelType uint64
	names     [4]string // unk, bos, eos, pad; "" is the default
}

func (t *trainer) parse(f field, v *Vocab) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	return eachField(f.bytes, func(f field) error {
		switch f.num {
		case trainerModelType:
			t.modelType = f.n
			return f.want(protowire.VarintType)
		case trainerSuffix:
			if f.n != 0 {
				return fmt.Errorf("%w: white space as a suffix of pieces", tensor.ErrUnsupported)
			}
			return f.want(protowire.VarintType)
		case trainerByteFallback:
			return f.flag(&v.ByteFallback)
		case trainerUNKSurface:
			return f.text(&v.UnknownSurface)
		case trainerUNKPiece, trainerBOSPiece, trainerEOSPiece, trainerPADPiece:
			return f.text(&t.names[f.num-trainerUNKPiece])
		}
		return nil
	})
}

// specials finds the special tokens as SentencePieceProcessor::bos_id and its
// siblings do: by the text that the trainer gave them, not by the ids it noted.
func (t *trainer) specials(v *Vocab) {
	for i, name := range [4]string{"<unk>", "<s>", "</s>", "<pad>"} {
		t.names[i] = cmp.Or(t.names[i], name)
	}
	for i, p := range v.Pieces {
		switch {
		case p.Type == Unknown && p.Text == t.names[0]:
			v.UNK = int32(i)
		case p.Type != Control:
		case p.Text == t.names[1]:
			v.BOS = int32(i)
		case p.Text == t.names[2]:
			v.EOS = int32(i)
		case p.Text == t.names[3]:
			v.PAD = int32(i)
		}
	}
}

func parsePiece(f field) (Piece, error) {
	p := Piece{Type: Normal}
	if err := f.want(protowire.BytesType); err != nil {
		return p, err
	}
	err := eachField(f.bytes, func(f field) error {
		switch f.num {
		case pieceText:
			return f.text(&p.Text)
		case pieceScore:
			p.Score = math.Float32frombits(uint32(f.n))
			return f.want(protowire.Fixed32Type)
		case pieceType:
			p.Type = Type(min(f.n, math.MaxUint8))
			return f.want(protowire.VarintType)
		}
		return nil
	})
	return p, err
}

func parseNormalizer(f field, v *Vocab) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	return eachField(f.bytes, func(f field) error {
		switch f.num {
		case normalizerName:
			return f.text(&v.Normalizer)
		case normalizerCharsmap:
			if v.Charsmap = nil; len(f.bytes) > 0 {
				if _, err := unigram.ParseCharsmap(f.bytes); err != nil {
					return err
				}
				v.Charsmap = bytes.Clone(f.bytes)
			}
			return f.want(protowire.BytesType)
		case normalizerDummyPrefix:
			return f.flag(&v.AddSpacePrefix)
		case normalizerRemoveExtra:
			return f.flag(&v.RemoveExtraWhitespaces)
		case normalizerEscape:
			return f.flag(&v.EscapeWhitespaces)
		}
		return nil
	})
}

// field is one field of a protocol buffer: bytes of a length-delimited one, n
// of a varint or a fixed 32-bit one. Others are skipped.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	bytes []byte
	n     uint64
}

// eachField calls do with every field of a message. Unknown fields are the
// business of do; fields of any wire type are stepped over soundly.
func eachField(b []byte, do func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: not a protocol buffer: %v", tensor.ErrMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var u uint32
			u, n = protowire.ConsumeFixed32(b)
			f.n = uint64(u)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %v", tensor.ErrMalformed, num, protowire.ParseError(n))
		}
		b = b[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

func (f field) want(t protowire.Type) error {
	if f.typ != t {
		return fmt.Errorf("%w: field %d has wire type %d; want %d", tensor.ErrMalformed, f.num, f.typ, t)
	}
	return nil
}

func (f field) flag(to *bool) error {
	*to = f.n != 0
	return f.want(protowire.VarintType)
}

func (f field) text(to *string) error {
	if !utf8.Valid(f.bytes) {
		return fmt.Errorf("%w: field %d: %q is not UTF-8", tensor.ErrMalformed, f.num, f.bytes[:min(len(f.bytes), 32)])
	}
	*to = string(f.bytes)
	return f.want(protowire.BytesType)
}

// MarshalSentencePiece writes the vocabulary as a tokenizer.model that
// SentencePiece loads and splits text with in the same way. What only Hugging
// Face's files can say (AddBOS, chat templates and so on) is left to Files. An
// added token with a space in it is found by Hugging Face's tokenizers, for which
// its text must be the same here and there, and not by SentencePiece alone.
//
// A vocabulary without an Unknown piece cannot be written, nor one with byte
// fallback that lacks a Byte piece, because SentencePiece refuses them; the error
// wraps tensor.ErrUnsupported.
func MarshalSentencePiece(v *Vocab) ([]byte, error) {
	if !v.scored() {
		return nil, fmt.Errorf("%w: a tokenizer of kind %q as a SentencePiece model", tensor.ErrUnsupported, v.Kind)
	}
	if err := v.Validate(); err != nil {
		return nil, err
	}
	var b, msg []byte
	unknown := None
	for i, p := range v.Pieces {
		if p.Type == Unknown {
			unknown = int32(i)
		}
		msg = protowire.AppendTag(msg[:0], pieceText, protowire.BytesType)
		msg = protowire.AppendString(msg, p.Text)
		msg = protowire.AppendTag(msg, pieceScore, protowire.Fixed32Type)
		msg = protowire.AppendFixed32(msg, math.Float32bits(p.Score))
		if p.Type != Normal {
			msg = appendVarint(msg, pieceType, uint64(p.Type))
		}
		b = appendMessage(b, modelPieces, msg)
	}
	if v.ByteFallback && v.bytePieces() != 256 {
		return nil, fmt.Errorf("%w: a vocabulary with %d byte pieces cannot be a SentencePiece model; want 256", tensor.ErrUnsupported, v.bytePieces())
	}
	if unknown == None {
		return nil, fmt.Errorf("%w: a vocabulary without an unknown piece cannot be a SentencePiece model", tensor.ErrUnsupported)
	}

	typ := uint64(modelTypeBPE)
	if v.Kind == Unigram {
		typ = modelTypeUnigram
	}
	msg = appendVarint(msg[:0], trainerModelType, typ)
	msg = appendVarint(msg, trainerVocabSize, uint64(len(v.Pieces)))
	msg = appendFlag(msg, trainerByteFallback, v.ByteFallback)
	for i, id := range []int32{unknown, v.BOS, v.EOS, v.PAD} {
		// Negative int32s are sign-extended to 64 bits.
		msg = appendVarint(msg, trainerUNK+protowire.Number(i), uint64(int64(id)))
	}
	msg = appendText(msg, trainerUNKSurface, v.UnknownSurface)
	for i, id := range []int32{unknown, v.BOS, v.EOS, v.PAD} {
		if text := v.text(id); text != "" {
			msg = appendText(msg, trainerUNKPiece+protowire.Number(i), text)
		}
	}
	b = appendMessage(b, modelTrainer, msg)

	msg = appendText(msg[:0], normalizerName, v.Normalizer)
	if len(v.Charsmap) > 0 {
		msg = protowire.AppendBytes(protowire.AppendTag(msg, normalizerCharsmap, protowire.BytesType), v.Charsmap)
	}
	msg = appendFlag(msg, normalizerDummyPrefix, v.AddSpacePrefix)
	msg = appendFlag(msg, normalizerRemoveExtra, v.RemoveExtraWhitespaces)
	msg = appendFlag(msg, normalizerEscape, v.EscapeWhitespaces)
	b = appendMessage(b, modelNormalizer, msg)
	return b, nil
}

func (v *Vocab) bytePieces() int {
	n := 0
	for _, p := range v.Pieces {
		if p.Type == Byte {
			n++
		}
	}
	return n
}

func appendMessage(b []byte, num protowire.Number, msg []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), msg)
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendVarint(b []byte, num protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), n)
}

func appendFlag(b []byte, num protowire.Number, on bool) []byte {
	return appendVarint(b, num, protowire.EncodeBool(on))
}
