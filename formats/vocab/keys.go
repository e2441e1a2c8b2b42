package vocab

import (
	"slices"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// The beginnings and names of GGUF's keys. A key in lists nil as its value if it
// stands for what the pieces or the merges say.
const (
	ggml = "tokenizer.ggml."

	keyModel     = ggml + "model"
	keyPre       = ggml + "pre"
	keyTokens    = ggml + "tokens"
	keyScores    = ggml + "scores"
	keyTypes     = ggml + "token_type"
	keyMerges    = ggml + "merges"
	keyPrefix    = ggml + "add_space_prefix"
	keyRemove    = ggml + "remove_extra_whitespaces"
	keyLowercase = ggml + "normalizer.lowercase"
	keyAccents   = ggml + "normalizer.strip_accents"
	keyCharsmap  = ggml + "precompiled_charsmap"
	keyTemplate  = "tokenizer.chat_template"
	keyTemplates = "tokenizer.chat_templates"
)

// idKeys are the keys of special tokens by the names they have in Hugging Face's
// files; the converter drops those without one.
var idKeys = map[string]string{
	"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "sep": "seperator_token_id", "pad": "padding_token_id",
	"mask": "mask_token_id", "eot": "eot_token_id", "eom": "eom_token_id",
}

// addKeys are the tokens for which GGUF can say whether they are added.
var addKeys = map[string]string{"bos": "add_bos_token", "eos": "add_eos_token", "sep": "add_sep_token"}

// keys is metadata that is written one key after another. A key that is set again
// keeps its place, as in gguf-py.
type keys tensor.Meta

func (k *keys) set(key string, value any) {
	if i := slices.IndexFunc(*k, func(kv tensor.KV) bool { return kv.Key == key }); i >= 0 {
		(*k)[i].Value = value
		return
	}
	*k = append(*k, tensor.KV{Key: key, Value: value})
}

// bool returns the value of a key, or what it is if it is absent.
func (k keys) bool(key string, absent bool) bool {
	if value, ok := tensor.Lookup[bool](tensor.Meta(k), key); ok {
		return value
	}
	return absent
}

// setTemplates sets the keys of chat templates as gguf-py's add_chat_template
// does: those with a name, then the list of names (which is in no order there), then
// the one that is called "default".
func (k *keys) setTemplates(list []ChatTemplate) {
	var names []string
	standard := -1
	for i, t := range list {
		switch name := templateName(t.Name); {
		case name == "":
		case name == defaultTemplate:
			standard = i
		default:
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
			k.set(keyTemplate+"."+name, t.Template)
		}
	}
	if len(names) > 0 {
		k.set(keyTemplates, names)
	}
	if standard >= 0 {
		k.set(keyTemplate, list[standard].Template)
	}
}

const defaultTemplate = "default"

// templateName keeps the letters and digits of a name, as gguf-py does.
func templateName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z') {
			return r
		}
		return '_'
	}, name)
}

// written returns the metadata with what the nil values stand for.
func (v *Vocab) written(k keys) tensor.Meta {
	out := make(tensor.Meta, len(k))
	for i, kv := range k {
		if kv.Value == nil {
			kv.Value = v.derived(kv.Key)
		}
		out[i] = kv
	}
	return out
}

// derived returns the value of a key that the pieces or the merges say.
func (v *Vocab) derived(key string) any {
	switch key {
	case keyMerges:
		return v.Merges
	case keyTokens:
		tokens := make([]string, len(v.Pieces))
		for i, p := range v.Pieces {
			tokens[i] = p.Text
		}
		return tokens
	case keyScores:
		scores := make([]float32, len(v.Pieces))
		for i, p := range v.Pieces {
			scores[i] = p.Score
		}
		return scores
	}
	types := make([]int32, len(v.Pieces))
	for i, p := range v.Pieces {
		types[i] = int32(p.ggufType())
	}
	return types
}

// ggufType is the token_type of a piece in GGUF. What SentencePiece itself calls
// user-defined is normal there.
func (p Piece) ggufType() Type {
	switch {
	case p.gguf != 0:
		return p.gguf
	case !p.Added && p.Type == UserDefined:
		return Normal
	}
	return p.Type
}
