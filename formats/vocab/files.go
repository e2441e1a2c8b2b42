package vocab

import (
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Files returns the files of a Hugging Face directory that say the same as v,
// by name: tokenizer.model and tokenizer_config.json. transformers'
// LlamaTokenizer, llama.cpp's converter and OpenDir read them. It fails as
// MarshalSentencePiece does.
func (v *Vocab) Files() (map[string][]byte, error) {
	model, err := MarshalSentencePiece(v)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(v.tokenizerConfig(), json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"tokenizer.model":       model,
		"tokenizer_config.json": append(config, '\n'),
	}, nil
}

func (v *Vocab) tokenizerConfig() map[string]any {
	c := map[string]any{
		"add_bos_token":                v.AddBOS,
		"add_eos_token":                v.AddEOS,
		"clean_up_tokenization_spaces": false,
		"legacy":                       v.Legacy,
		"tokenizer_class":              "LlamaTokenizer",
	}
	if !v.AddSpacePrefix {
		c["add_prefix_space"] = false
	}
	for _, s := range specials() {
		if text := v.text(*s.id(v)); text != "" {
			c[s.name+"_token"] = text
		}
	}
	added := map[string]any{}
	for i, p := range v.Pieces {
		if p.Type == Unknown {
			c["unk_token"] = p.Text
		}
		if !p.Added && (p.Type != Control || v.names(int32(i))) {
			continue
		}
		added[strconv.Itoa(i)] = map[string]any{
			"content":     p.Text,
			"lstrip":      p.LStrip,
			"normalized":  false,
			"rstrip":      p.RStrip,
			"single_word": false,
			"special":     p.Type != UserDefined,
		}
	}
	if len(added) > 0 {
		c["added_tokens_decoder"] = added
	}
	switch {
	case len(v.ChatTemplates) > 0:
		list := []map[string]any{}
		if v.ChatTemplate != "" {
			list = append(list, map[string]any{"name": defaultTemplate, "template": v.ChatTemplate})
		}
		for _, t := range v.ChatTemplates {
			list = append(list, map[string]any{"name": t.Name, "template": t.Template})
		}
		c["chat_template"] = list
	case v.ChatTemplate != "":
		c["chat_template"] = v.ChatTemplate
	}
	return c
}

// names reports whether id is one of the special tokens that have a name.
func (v *Vocab) names(id int32) bool {
	for _, s := range specials() {
		if *s.id(v) == id {
			return true
		}
	}
	return false
}
