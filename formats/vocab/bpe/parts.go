package bpe

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/tensor"
)

// The parts of a tokenizer.json are structs with the names and the members of the
// file, Type first. A Sequence holds parts of its own kind.
type (
	// Normalizer changes text before it is split.
	Normalizer interface{ normalizer() }

	// PreTokenizer splits text into words.
	PreTokenizer interface{ preTokenizer() }

	// PostProcessor puts special tokens around those of a text.
	PostProcessor interface{ postProcessor() }

	// Decoder makes text of the texts of tokens.
	Decoder interface{ decoder() }
)

// Behavior says what happens to the text that a pattern matches.
type Behavior string

// The behaviors, by the names they have in files.
const (
	Removed            Behavior = "Removed"
	Isolated           Behavior = "Isolated"
	MergedWithPrevious Behavior = "MergedWithPrevious"
	MergedWithNext     Behavior = "MergedWithNext"
	Contiguous         Behavior = "Contiguous"
)

// Pattern is a text or a regular expression.
type Pattern struct {
	String *string `json:"String,omitzero"`
	Regex  *string `json:"Regex,omitzero"`
}

// Regex returns the pattern of a regular expression.
func Regex(s string) Pattern { return Pattern{Regex: &s} }

// String returns the pattern that is a text.
func String(s string) Pattern { return Pattern{String: &s} }

// Normalizers.
type (
	// Plain is a normalizer that has no settings: NFC, NFD, NFKC, NFKD, Lowercase,
	// StripAccents, ByteLevel or Nmt.
	Plain struct {
		Type string `json:"type"`
	}
	// StripText removes white space at the ends of the text.
	StripText struct {
		Type  string `json:"type"`
		Left  bool   `json:"strip_left"`
		Right bool   `json:"strip_right"`
	}
	// Replace puts a text in the place of what a pattern matches. It is a decoder too.
	Replace struct {
		Type    string  `json:"type"`
		Pattern Pattern `json:"pattern"`
		Content string  `json:"content"`
	}
	// Precompiled puts characters in the place of others by a table (package
	// unigram), for each cluster of characters.
	Precompiled struct {
		Type     string `json:"type"`
		Charsmap []byte `json:"precompiled_charsmap"`
	}
	// BertNormalizer drops control characters, puts spaces around Chinese ones, takes
	// accents away (if StripAccents says so, or is absent and Lowercase does) and lowers
	// letters.
	BertNormalizer struct {
		Type         string `json:"type"`
		CleanText    bool   `json:"clean_text"`
		Chinese      bool   `json:"handle_chinese_chars"`
		StripAccents *bool  `json:"strip_accents"`
		Lowercase    bool   `json:"lowercase"`
	}
	// Prepend puts a text in front of one that is not empty.
	Prepend struct {
		Type    string `json:"type"`
		Prepend string `json:"prepend"`
	}
	// NormalizerSequence applies several in order.
	NormalizerSequence struct {
		Type        string       `json:"type"`
		Normalizers []Normalizer `json:"normalizers"`
	}
)

// Pre-tokenizers.
type (
	// ByteLevel makes a character of every byte, after splitting by GPT-2's pattern
	// if UseRegex is set. It is a post-processor and a decoder too; the first has no
	// effect on tokens.
	ByteLevel struct {
		Type           string `json:"type"`
		AddPrefixSpace bool   `json:"add_prefix_space"`
		TrimOffsets    bool   `json:"trim_offsets"`
		UseRegex       bool   `json:"use_regex"`
	}
	// Split splits by a pattern.
	Split struct {
		Type     string   `json:"type"`
		Pattern  Pattern  `json:"pattern"`
		Behavior Behavior `json:"behavior"`
		Invert   bool     `json:"invert"` // split by what it does not match
	}
	// Digits splits numbers from the rest, Individual each character of them.
	Digits struct {
		Type       string `json:"type"`
		Individual bool   `json:"individual_digits"`
	}
	// Punctuation splits by punctuation.
	Punctuation struct {
		Type     string   `json:"type"`
		Behavior Behavior `json:"behavior"`
	}
	// Whitespaces is Whitespace (words of letters and words of the rest),
	// WhitespaceSplit (words between white space) or BertPreTokenizer (those, and each
	// punctuation alone).
	Whitespaces struct {
		Type string `json:"type"`
	}
	// CharDelimiterSplit splits at a character, which is dropped.
	CharDelimiterSplit struct {
		Type      string `json:"type"`
		Delimiter string `json:"delimiter"`
	}
	// Metaspace replaces spaces and splits before them. It is a decoder too.
	Metaspace struct {
		Type           string `json:"type"`
		Replacement    string `json:"replacement"`
		PrependScheme  string `json:"prepend_scheme"` // always, first or never
		Split          bool   `json:"split"`
		AddPrefixSpace *bool  `json:"add_prefix_space,omitzero"` // of old files
	}
	// PreTokenizerSequence applies several in order.
	PreTokenizerSequence struct {
		Type          string         `json:"type"`
		PreTokenizers []PreTokenizer `json:"pretokenizers"`
	}
)

// Post-processors.
type (
	// Template is TemplateProcessing. Only Single has an effect here.
	Template struct {
		Type          string                     `json:"type"`
		Single        []TemplatePiece            `json:"single"`
		Pair          []TemplatePiece            `json:"pair"`
		SpecialTokens map[string]TemplateSpecial `json:"special_tokens"`
	}
	// TemplatePiece is a text ("A", "B") or a special token.
	TemplatePiece struct {
		SpecialToken *TemplateRef `json:"SpecialToken,omitzero"`
		Sequence     *TemplateRef `json:"Sequence,omitzero"`
	}
	// TemplateRef names what a piece stands for.
	TemplateRef struct {
		ID     string `json:"id"`
		TypeID int64  `json:"type_id"`
	}
	// TemplateSpecial is what a special token of a template is made of.
	TemplateSpecial struct {
		ID     string   `json:"id"`
		IDs    []int32  `json:"ids"`
		Tokens []string `json:"tokens"`
	}
	// Ends is RobertaProcessing or BertProcessing: Cls in front, Sep at the end.
	Ends struct {
		Type           string   `json:"type"`
		Sep            EndToken `json:"sep"`
		Cls            EndToken `json:"cls"`
		TrimOffsets    *bool    `json:"trim_offsets,omitzero"`
		AddPrefixSpace *bool    `json:"add_prefix_space,omitzero"`
	}
	// EndToken is a token as its text and its id.
	EndToken struct {
		Text string
		ID   int32
	}
	// PostProcessorSequence applies several in order.
	PostProcessorSequence struct {
		Type       string          `json:"type"`
		Processors []PostProcessor `json:"processors"`
	}
)

// Decoders.
type (
	// PlainDecoder is one that has no settings: ByteFallback or Fuse.
	PlainDecoder struct {
		Type string `json:"type"`
	}
	// StripToken removes up to Start characters Content in front of each token, and
	// up to Stop of them at its end.
	StripToken struct {
		Type    string `json:"type"`
		Content string `json:"content"`
		Start   int64  `json:"start"`
		Stop    int64  `json:"stop"`
	}
	// Prefixes is the decoder of WordPiece: a space goes before each token without the
	// prefix. Cleanup takes spaces before punctuation away.
	Prefixes struct {
		Type    string `json:"type"`
		Prefix  string `json:"prefix"`
		Cleanup bool   `json:"cleanup"`
	}
	// Suffixes is BPEDecoder: the suffix of a word becomes a space.
	Suffixes struct {
		Type   string `json:"type"`
		Suffix string `json:"suffix"`
	}
	// DecoderSequence applies several in order.
	DecoderSequence struct {
		Type     string    `json:"type"`
		Decoders []Decoder `json:"decoders"`
	}
)

func (*Plain) normalizer()              {}
func (*StripText) normalizer()          {}
func (*Replace) normalizer()            {}
func (*Prepend) normalizer()            {}
func (*Precompiled) normalizer()        {}
func (*BertNormalizer) normalizer()     {}
func (*NormalizerSequence) normalizer() {}

func (*ByteLevel) preTokenizer()            {}
func (*Split) preTokenizer()                {}
func (*Digits) preTokenizer()               {}
func (*Punctuation) preTokenizer()          {}
func (*Whitespaces) preTokenizer()          {}
func (*CharDelimiterSplit) preTokenizer()   {}
func (*Metaspace) preTokenizer()            {}
func (*PreTokenizerSequence) preTokenizer() {}

func (*ByteLevel) postProcessor()             {}
func (*Template) postProcessor()              {}
func (*Ends) postProcessor()                  {}
func (*PostProcessorSequence) postProcessor() {}

func (*ByteLevel) decoder()       {}
func (*Metaspace) decoder()       {}
func (*Replace) decoder()         {}
func (*PlainDecoder) decoder()    {}
func (*StripToken) decoder()      {}
func (*Suffixes) decoder()        {}
func (*Prefixes) decoder()        {}
func (*DecoderSequence) decoder() {}

// normalizers makes a part of the type that the file names, with the values that
// are not given.
func normalizers(typ string) (Normalizer, bool) {
	switch typ {
	case "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel", "Nmt":
		return &Plain{}, true
	case "Strip":
		return &StripText{}, true
	case "Replace":
		return &Replace{}, true
	case "Prepend":
		return &Prepend{}, true
	case "Precompiled":
		return &Precompiled{}, true
	case "BertNormalizer":
		return &BertNormalizer{}, true
	case "Sequence":
		return &NormalizerSequence{}, true
	}
	return nil, false
}

func preTokenizers(typ string) (PreTokenizer, bool) {
	switch typ {
	case "ByteLevel":
		return &ByteLevel{UseRegex: true}, true
	case "Split":
		return &Split{}, true
	case "Digits":
		return &Digits{}, true
	case "Punctuation":
		return &Punctuation{Behavior: Isolated}, true
	case "Whitespace", "WhitespaceSplit", "BertPreTokenizer":
		return &Whitespaces{}, true
	case "CharDelimiterSplit":
		return &CharDelimiterSplit{}, true
	case "Metaspace":
		return &Metaspace{PrependScheme: "always", Split: true}, true
	case "Sequence":
		return &PreTokenizerSequence{}, true
	}
	return nil, false
}

func postProcessors(typ string) (PostProcessor, bool) {
	switch typ {
	case "ByteLevel":
		return &ByteLevel{UseRegex: true}, true
	case "TemplateProcessing":
		return &Template{}, true
	case "RobertaProcessing", "BertProcessing":
		return &Ends{}, true
	case "Sequence":
		return &PostProcessorSequence{}, true
	}
	return nil, false
}

func decoders(typ string) (Decoder, bool) {
	switch typ {
	case "ByteLevel":
		return &ByteLevel{UseRegex: true}, true
	case "Metaspace":
		return &Metaspace{PrependScheme: "always", Split: true}, true
	case "Replace":
		return &Replace{}, true
	case "ByteFallback", "Fuse":
		return &PlainDecoder{}, true
	case "Strip":
		return &StripToken{}, true
	case "WordPiece":
		return &Prefixes{}, true
	case "BPEDecoder":
		return &Suffixes{}, true
	case "Sequence":
		return &DecoderSequence{}, true
	}
	return nil, false
}

// parser counts the parts of a file.
type parser struct{ parts int }

// parsePart parses one part, nil for null or nothing.
func parsePart[T comparable](p *parser, text jsontext.Value, make func(string) (T, bool), depth int) (part T, err error) {
	if len(text) == 0 || text.Kind() == 'n' {
		return part, nil
	}
	if p.parts++; p.parts > maxSteps || depth > maxDepth {
		return part, unsupported("more than %d parts, or nested more than %d deep", maxSteps, maxDepth)
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return part, jsonError(err)
	}
	part, ok := make(head.Type)
	if !ok {
		return part, unsupported("a part of type %s", quote(head.Type))
	}
	unmarshalers := json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *T) error {
		text, err := d.ReadValue()
		if err == nil {
			*to, err = parsePart(p, text.Clone(), make, depth+1)
		}
		if err == nil && *to == *new(T) {
			err = malformed("null in a sequence")
		}
		return err
	}))
	if err := json.Unmarshal(text, part, unmarshalers); err != nil {
		return part, fmt.Errorf("%s: %w", head.Type, ownError(err))
	}
	return part, nil
}

// ownError takes what the JSON package says around an error of this package
// away; its own errors are about malformed input.
func ownError(err error) error {
	if !errors.Is(err, tensor.ErrMalformed) && !errors.Is(err, tensor.ErrUnsupported) {
		return jsonError(err)
	}
	for {
		var outer *json.SemanticError
		if !errors.As(err, &outer) || outer.Err == nil {
			return err
		}
		err = outer.Err
	}
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *EndToken) UnmarshalJSON(b []byte) error {
	var parts []jsontext.Value
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return malformed("%d parts of a token; want its text and its id", len(parts))
	}
	if err := json.Unmarshal(parts[0], &t.Text); err != nil {
		return err
	}
	return json.Unmarshal(parts[1], &t.ID)
}

// MarshalJSON implements json.Marshaler.
func (t EndToken) MarshalJSON() ([]byte, error) { return json.Marshal([]any{t.Text, t.ID}) }
