package vocab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// The scores that llama.cpp's converter gives to what SentencePiece did not
// score (conversion/base.py, _create_vocab_sentencepiece).
const (
	addedScore = -1000  // an added token
	padScore   = -10000 // a place without a token
)

const ggml = "tokenizer.ggml."

// IsGGUFKey reports whether a GGUF metadata key describes the tokenizer.
func IsGGUFKey(key string) bool { return strings.HasPrefix(key, "tokenizer.") }

// GGUF returns the vocabulary as GGUF metadata: the tokenizer.* keys in the
// order and with the types of llama.cpp's convert_hf_to_gguf.py.
//
// The converter gives add_bos_token, add_eos_token and add_space_prefix when
// tokenizer_config.json does. Here the first two are always given, and the third
// when it is false, which llama.cpp does not take it for otherwise. The
// converter's add_sep_token, without meaning for this kind, is left out.
func (v *Vocab) GGUF() tensor.Meta {
	tokens := make([]string, len(v.Pieces))
	scores := make([]float32, len(v.Pieces))
	types := make([]int32, len(v.Pieces))
	for i, p := range v.Pieces {
		tokens[i], scores[i], types[i] = p.Text, p.Score, int32(p.ggufType())
	}
	var m tensor.Meta
	add := func(key string, value any) { m = append(m, tensor.KV{Key: key, Value: value}) }
	if !v.AddSpacePrefix {
		add(ggml+"add_space_prefix", false)
	}
	add(ggml+"model", string(v.Kind))
	add(ggml+"pre", "default")
	add(ggml+"tokens", tokens)
	add(ggml+"scores", scores)
	add(ggml+"token_type", types)
	for _, s := range specials() {
		if id := *s.id(v); id != None {
			add(ggml+s.gguf, uint32(id))
		}
	}
	add(ggml+"add_bos_token", v.AddBOS)
	add(ggml+"add_eos_token", v.AddEOS)
	if v.RemoveExtraWhitespaces {
		add(ggml+"remove_extra_whitespaces", true)
	}
	var names []string
	for _, t := range v.ChatTemplates {
		name := templateName(t.Name)
		if slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
		add("tokenizer.chat_template."+name, t.Template)
	}
	if len(names) > 0 {
		add("tokenizer.chat_templates", names)
	}
	if v.ChatTemplate != "" {
		add("tokenizer.chat_template", v.ChatTemplate)
	}
	return m
}

// ggufType is the token_type that the converter gives to a piece: what
// SentencePiece calls user-defined is normal, and an added token is a control
// token unless it is user-defined.
func (p Piece) ggufType() Type {
	switch {
	case p.Added && p.Type == Unknown:
		return Control
	case !p.Added && p.Type == UserDefined:
		return Normal
	}
	return p.Type
}

// templateName keeps the letters and digits of a name, as gguf-py's
// add_chat_template does.
func templateName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z') {
			return r
		}
		return '_'
	}, name)
}

// FromGGUF reads the tokenizer of a GGUF file from its metadata, with
// llama.cpp's defaults for what is absent: bos 1, eos 2, a bos token and a space
// in front, a space also after every special token. An id of 4294967295 counts
// as absent.
//
// It returns an error that wraps tensor.ErrUnsupported for any tokenizer.ggml.model
// other than "llama", and one that wraps tensor.ErrMalformed and names the key
// if a value is missing, of the wrong type, or does not fit the others.
func FromGGUF(meta tensor.Meta) (*Vocab, error) {
	model, err := lookup[string](meta, ggml+"model")
	if err != nil {
		return nil, err
	}
	if Kind(model) != SPM {
		return nil, hint.Add(fmt.Errorf("%w: %smodel is %q; only %q (SentencePiece BPE) is known", tensor.ErrUnsupported, ggml, model, SPM),
			"models with a SentencePiece tokenizer (Llama 1 and 2, Mistral 7B) work")
	}
	if _, ok := meta.Get(ggml + "precompiled_charsmap"); ok {
		return nil, fmt.Errorf("%w: text normalization by rules of its own (%sprecompiled_charsmap)", tensor.ErrUnsupported, ggml)
	}
	v := newVocab()
	v.RemoveExtraWhitespaces, v.Legacy, v.Normalizer = false, true, "identity"
	if v.Pieces, err = ggufPieces(meta); err != nil {
		return nil, err
	}
	v.ByteFallback = slices.ContainsFunc(v.Pieces, func(p Piece) bool { return p.Type == Byte })
	if err := v.ggufSpecials(meta); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		key string
		to  *bool
	}{
		{"add_bos_token", &v.AddBOS}, {"add_eos_token", &v.AddEOS},
		{"add_space_prefix", &v.AddSpacePrefix}, {"remove_extra_whitespaces", &v.RemoveExtraWhitespaces},
	} {
		if err := optional(meta, ggml+f.key, f.to); err != nil {
			return nil, err
		}
	}
	if err := v.ggufTemplates(meta); err != nil {
		return nil, err
	}
	if err := v.Validate(); err != nil {
		return nil, err
	}
	return v, nil
}

func ggufPieces(meta tensor.Meta) ([]Piece, error) {
	tokens, err := lookup[[]string](meta, ggml+"tokens")
	if err != nil {
		return nil, err
	}
	scores, err := lookup[[]float32](meta, ggml+"scores")
	if err != nil {
		return nil, err
	}
	types, err := lookup[[]int32](meta, ggml+"token_type")
	if err != nil {
		return nil, err
	}
	if len(tokens) == 0 || len(scores) != len(tokens) || len(types) != len(tokens) {
		return nil, fmt.Errorf("%w: %d %stokens with %d scores and %d token_types", tensor.ErrMalformed, len(tokens), ggml, len(scores), len(types))
	}
	pieces := make([]Piece, len(tokens))
	for i := range pieces {
		p := Piece{Text: tokens[i], Score: scores[i], Type: Type(max(0, min(types[i], 255)))}
		if p.Text == "" {
			p.Text = fmt.Sprintf("[EMPTY_%d]", i) // as llama.cpp names it
		}
		p.Added = p.Type == UserDefined || p.Type == Control && p.Score == addedScore
		pieces[i] = p
	}
	return pieces, nil
}

func (v *Vocab) ggufSpecials(meta tensor.Meta) error {
	n := int32(len(v.Pieces))
	for _, d := range []struct {
		id *int32
		to int32
	}{{&v.BOS, 1}, {&v.EOS, 2}} {
		if d.to < n {
			*d.id = d.to
		}
	}
	for _, s := range specials() {
		key := ggml + s.gguf
		value, ok := meta.Get(key)
		if !ok {
			continue
		}
		var id int64
		switch u := value.(type) {
		case uint32:
			id = int64(int32(u))
		case int32:
			id = int64(u)
		default:
			return fmt.Errorf("%w: %s is a %T; want uint32", tensor.ErrMalformed, key, value)
		}
		switch {
		case id == int64(None):
		case id < 0 || id >= int64(n):
			return fmt.Errorf("%w: %s is %d in a vocabulary of %d", tensor.ErrMalformed, key, id, n)
		default:
			*s.id(v) = int32(id)
		}
	}
	// A converter that found the unknown token among the added ones wrote it as
	// a control token. llama.cpp takes 0 if no key names it.
	unk := &v.Pieces[max(v.UNK, 0)]
	if !slices.ContainsFunc(v.Pieces, func(p Piece) bool { return p.Type == Unknown }) && unk.Type == Control {
		unk.Type, unk.Added = Unknown, true
	}
	return nil
}

func (v *Vocab) ggufTemplates(meta tensor.Meta) error {
	if err := optional(meta, "tokenizer.chat_template", &v.ChatTemplate); err != nil {
		return err
	}
	var names []string
	if err := optional(meta, "tokenizer.chat_templates", &names); err != nil {
		return err
	}
	for _, name := range names {
		text, err := lookup[string](meta, "tokenizer.chat_template."+name)
		if err != nil {
			return err
		}
		v.ChatTemplates = append(v.ChatTemplates, ChatTemplate{name, text})
	}
	return nil
}

// lookup returns the value of a key, or an error if it is absent or not a T.
func lookup[T any](meta tensor.Meta, key string) (T, error) {
	var t T
	if _, ok := meta.Get(key); !ok {
		return t, fmt.Errorf("%w: no %s", tensor.ErrMalformed, key)
	}
	err := optional(meta, key, &t)
	return t, err
}

// optional stores the value of a key in to if there is one, and returns an
// error if it is not a T.
func optional[T any](meta tensor.Meta, key string, to *T) error {
	value, ok := meta.Get(key)
	if !ok {
		return nil
	}
	t, ok := value.(T)
	if !ok {
		return fmt.Errorf("%w: %s is a %T; want %T", tensor.ErrMalformed, key, value, t)
	}
	*to = t
	return nil
}
