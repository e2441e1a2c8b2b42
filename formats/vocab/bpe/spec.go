package bpe

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// maxTokens bounds ids, and with them the number of tokens.
	maxTokens = 1 << 24

	// maxMerges bounds the ranks of merges.
	maxMerges = math.MaxInt32

	// maxAdded bounds the text of an added token, which is looked for everywhere.
	maxAdded = 4096

	// maxSteps bounds the parts of a pipeline, and maxDepth how deeply sequences
	// of them are nested.
	maxSteps = 64
	maxDepth = 8
)

// Spec is what a tokenizer.json says. A nil part is absent.
type Spec struct {
	Added         []Added
	Normalizer    Normalizer
	PreTokenizer  PreTokenizer
	PostProcessor PostProcessor
	Decoder       Decoder
	Model         Model

	index map[string]int // the places of added tokens, by their text
	last  int32          // the largest id of an added token
}

// Added is a token that is taken out of the text before the model sees it.
type Added struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only if no letter is beside it
	LStrip     bool   `json:"lstrip"`      // white space before it belongs to it
	RStrip     bool   `json:"rstrip"`      // white space after it belongs to it
	Normalized bool   `json:"normalized"`  // found in the normalized text
	Special    bool   `json:"special"`     // not part of decoded text
}

// The types of models.
const (
	BPE       = "BPE"       // joined by merges
	Unigram   = "Unigram"   // the most probable pieces
	WordPiece = "WordPiece" // the longest piece first
)

// Model is the vocabulary, and its merges or what else tells how a word is split.
type Model struct {
	Type   string // "" is BPE
	Vocab  Vocabulary
	Merges [][2]string

	// Scores are of Unigram: the logarithm of the probability of each token, by id.
	Scores []float64

	// MaxChars is of WordPiece: a longer word is unknown.
	MaxChars int64

	// Unk is the token of characters without one, "" for none: they are dropped.
	Unk string

	// Prefix begins every symbol of a word but its first, Suffix ends its last. Both
	// are of BPE, the first of WordPiece too.
	Prefix, Suffix string

	FuseUnk      bool // unknown characters in a row are one token
	ByteFallback bool // an unknown character becomes tokens <0x00> to <0xFF>
	IgnoreMerges bool // a word that is a token is not split further
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{tensor.ErrMalformed}, args...)...)
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{tensor.ErrUnsupported}, args...)...)
}

// jsonError says what is wrong with JSON without the names that types have here.
func jsonError(err error) error {
	var s *json.SemanticError
	if !errors.As(err, &s) || s.JSONKind == 0 || s.Err != nil {
		return malformed("%s", strings.ToValidUTF8(cut(err.Error(), 200), ""))
	}
	where := ""
	if s.JSONPointer != "" {
		where = " at " + quote(string(s.JSONPointer))
	}
	return malformed("unexpected %s%s", s.JSONKind, where)
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// quote is %q of text that may be long.
func quote(s string) string {
	const most = 60
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:most], ""))
}

// Parse reads a tokenizer.json. Added tokens get the ids that the library gives
// them, which are those of the file unless it contradicts itself: Added.ID is
// then another than the file's, and mismatched lists such tokens.
//
// Errors wrap tensor.ErrMalformed, or tensor.ErrUnsupported for a model or a part
// that is not known.
func Parse(data []byte) (s *Spec, mismatched []string, err error) {
	var file struct {
		Version       string         `json:"version"`
		Added         []Added        `json:"added_tokens"`
		Normalizer    jsontext.Value `json:"normalizer"`
		PreTokenizer  jsontext.Value `json:"pre_tokenizer"`
		PostProcessor jsontext.Value `json:"post_processor"`
		Decoder       jsontext.Value `json:"decoder"`
		Model         jsontext.Value `json:"model"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, nil, jsonError(err)
	}
	if file.Version != "" && file.Version != "1.0" {
		return nil, nil, unsupported("version %s; only 1.0 is known", quote(file.Version))
	}
	s = &Spec{}
	if s.Model, err = parseModel(file.Model); err != nil {
		return nil, nil, fmt.Errorf("model: %w", err)
	}
	p := parser{}
	if s.Normalizer, err = parsePart(&p, file.Normalizer, normalizers, 0); err != nil {
		return nil, nil, fmt.Errorf("normalizer: %w", err)
	}
	if s.PreTokenizer, err = parsePart(&p, file.PreTokenizer, preTokenizers, 0); err != nil {
		return nil, nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	if s.PostProcessor, err = parsePart(&p, file.PostProcessor, postProcessors, 0); err != nil {
		return nil, nil, fmt.Errorf("post_processor: %w", err)
	}
	if s.Decoder, err = parsePart(&p, file.Decoder, decoders, 0); err != nil {
		return nil, nil, fmt.Errorf("decoder: %w", err)
	}
	for i, a := range file.Added {
		old := a.ID
		if a, err = s.Add(a); err != nil {
			return nil, nil, fmt.Errorf("added_tokens[%d]: %w", i, err)
		}
		if a.ID != old {
			mismatched = append(mismatched, fmt.Sprintf("%s: id %d, not %d", quote(a.Content), a.ID, old))
		}
	}
	return s, mismatched, nil
}

// Add adds a token, or changes what is said of one. Its id is that of the model's
// vocabulary if it is there, else the next one that is free, whatever a.ID says.
func (s *Spec) Add(a Added) (Added, error) {
	switch {
	case a.Content == "":
		return a, nil // as the library does
	case len(a.Content) > maxAdded:
		return a, unsupported("an added token of %d bytes; at most %d", len(a.Content), maxAdded)
	case !utf8.ValidString(a.Content):
		return a, malformed("added token %s is not UTF-8", quote(a.Content))
	}
	if i, ok := s.added(a.Content); ok {
		a.ID = s.Added[i].ID
		s.Added[i] = a
		return a, nil
	}
	id, ok := s.Model.Vocab[a.Content]
	if !ok {
		id = max(int32(len(s.Model.Vocab)), s.last+1)
	}
	if id >= maxTokens {
		return a, malformed("more than %d tokens", maxTokens)
	}
	a.ID = id
	s.last = max(s.last, id)
	s.index[a.Content] = len(s.Added)
	s.Added = append(s.Added, a)
	return a, nil
}

// added returns the place of an added token.
func (s *Spec) added(text string) (int, bool) {
	if len(s.index) != len(s.Added) || s.index == nil {
		s.index = make(map[string]int, len(s.Added))
		for i, a := range s.Added {
			s.index[a.Content] = i
			s.last = max(s.last, a.ID)
		}
	}
	i, ok := s.index[text]
	return i, ok
}

// Find returns the id of a token by its text, added ones first.
func (s *Spec) Find(text string) (int32, bool) {
	if i, ok := s.added(text); ok {
		return s.Added[i].ID, true
	}
	id, ok := s.Model.Vocab[text]
	return id, ok
}

func parseModel(text jsontext.Value) (m Model, err error) {
	var file struct {
		Type         string         `json:"type"`
		Dropout      *float64       `json:"dropout"`
		Unk          string         `json:"unk_token"`
		Prefix       string         `json:"continuing_subword_prefix"`
		Suffix       string         `json:"end_of_word_suffix"`
		FuseUnk      bool           `json:"fuse_unk"`
		ByteFallback bool           `json:"byte_fallback"`
		IgnoreMerges bool           `json:"ignore_merges"`
		Vocab        jsontext.Value `json:"vocab"`
		Merges       jsontext.Value `json:"merges"`
	}
	if len(text) == 0 {
		return m, malformed("there is none")
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return m, jsonError(err)
	}
	// A file without a type is of an old version; only BPE has merges.
	if file.Type == "" && file.Merges != nil {
		file.Type = BPE
	}
	switch {
	case file.Type == Unigram:
		return parseUnigram(text)
	case file.Type == WordPiece:
		return parseWordPiece(text)
	case file.Type != BPE:
		return m, unsupported("a model of type %s; only BPE, Unigram and WordPiece are known", quote(file.Type))
	case file.Dropout != nil && *file.Dropout != 0:
		return m, unsupported("dropout of %v", *file.Dropout)
	}
	m = Model{
		Unk: file.Unk, Prefix: file.Prefix, Suffix: file.Suffix,
		FuseUnk: file.FuseUnk, ByteFallback: file.ByteFallback, IgnoreMerges: file.IgnoreMerges,
	}
	if m.Vocab, err = ParseVocab(file.Vocab); err != nil {
		return m, fmt.Errorf("vocab: %w", err)
	}
	if m.Merges, err = parseMerges(file.Merges); err != nil {
		return m, fmt.Errorf("merges: %w", err)
	}
	return m, nil
}

// ParseVocab reads a vocabulary: an object of ids by text, as model.vocab and the
// file vocab.json are. Two tokens of one id are an error.
func ParseVocab(text []byte) (Vocabulary, error) {
	if len(text) == 0 {
		return nil, malformed("there is none")
	}
	var ids map[string]int64
	if err := json.Unmarshal(text, &ids); err != nil {
		return nil, jsonError(err)
	}
	vocab := make(Vocabulary, len(ids))
	texts := make(map[int64]string, len(ids))
	for token, id := range ids {
		if id < 0 || id >= maxTokens {
			return nil, malformed("token %s has the id %d; at most %d", quote(token), id, maxTokens-1)
		}
		if other, ok := texts[id]; ok {
			return nil, malformed("tokens %s and %s both have the id %d", quote(min(token, other)), quote(max(token, other)), id)
		}
		texts[id] = token
		vocab[token] = int32(id)
	}
	return vocab, nil
}

// parseMerges reads merges as "a b" or, where a part may have a space in it, as
// ["a", "b"].
func parseMerges(text jsontext.Value) ([][2]string, error) {
	if len(text) == 0 || text.Kind() == 'n' {
		return nil, malformed("there are none")
	}
	var list []jsontext.Value
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, jsonError(err)
	}
	merges := make([][2]string, 0, len(list))
	for i, v := range list {
		var pair [2]string
		switch v.Kind() {
		case '"':
			var s string
			if err := json.Unmarshal(v, &s); err != nil {
				return nil, jsonError(err)
			}
			if strings.HasPrefix(s, "#version") {
				continue
			}
			left, right, ok := strings.Cut(s, " ")
			if !ok || strings.Contains(right, " ") {
				return nil, malformed("merge %d is %s; want two tokens", i, quote(s))
			}
			pair = [2]string{left, right}
		default:
			var parts []string
			if err := json.Unmarshal(v, &parts); err != nil {
				return nil, fmt.Errorf("merge %d: %w", i, jsonError(err))
			}
			if len(parts) != 2 {
				return nil, malformed("merge %d has %d parts; want 2", i, len(parts))
			}
			pair = [2]string(parts)
		}
		merges = append(merges, pair)
	}
	return merges, nil
}

// Marshal returns the tokenizer.json that says the same: tokens in the order of
// their ids, merges as pairs.
func (s *Spec) Marshal() ([]byte, error) {
	added := slices.Clone(s.Added)
	slices.SortFunc(added, func(a, b Added) int { return cmp.Compare(a.ID, b.ID) })
	if added == nil {
		added = []Added{}
	}
	return json.Marshal(struct {
		Version       string        `json:"version"`
		Truncation    *int          `json:"truncation"`
		Padding       *int          `json:"padding"`
		Added         []Added       `json:"added_tokens"`
		Normalizer    Normalizer    `json:"normalizer"`
		PreTokenizer  PreTokenizer  `json:"pre_tokenizer"`
		PostProcessor PostProcessor `json:"post_processor"`
		Decoder       Decoder       `json:"decoder"`
		Model         any           `json:"model"`
	}{
		Version: "1.0", Added: added,
		Normalizer: s.Normalizer, PreTokenizer: s.PreTokenizer, PostProcessor: s.PostProcessor, Decoder: s.Decoder,
		Model: s.Model.file(),
	}, json.Deterministic(true), jsontext.WithIndent("  "))
}

// file is the model as the file has it.
func (m *Model) file() any {
	optional := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	switch m.Type {
	case Unigram:
		return m.unigramFile()
	case WordPiece:
		return m.wordPieceFile()
	}
	return struct {
		Type         string      `json:"type"`
		Dropout      *int        `json:"dropout"`
		Unk          *string     `json:"unk_token"`
		Prefix       *string     `json:"continuing_subword_prefix"`
		Suffix       *string     `json:"end_of_word_suffix"`
		FuseUnk      bool        `json:"fuse_unk"`
		ByteFallback bool        `json:"byte_fallback"`
		IgnoreMerges bool        `json:"ignore_merges"`
		Vocab        Vocabulary  `json:"vocab"`
		Merges       [][2]string `json:"merges"`
	}{
		BPE, nil, optional(m.Unk), optional(m.Prefix), optional(m.Suffix), m.FuseUnk, m.ByteFallback, m.IgnoreMerges,
		m.Vocab, append([][2]string{}, m.Merges...),
	}
}

// Vocabulary is a vocabulary that is written in the order of its ids.
type Vocabulary map[string]int32

// MarshalJSONTo implements json.MarshalerTo.
func (v Vocabulary) MarshalJSONTo(e *jsontext.Encoder) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, token := range slices.SortedFunc(maps.Keys(v), func(a, b string) int { return cmp.Compare(v[a], v[b]) }) {
		if err := e.WriteToken(jsontext.String(token)); err != nil {
			return err
		}
		if err := e.WriteToken(jsontext.Int(int64(v[token]))); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}
