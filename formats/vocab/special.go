package vocab

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// specialVocab is what gguf-py's class of that name (gguf/vocab.py) finds in the
// JSON files of a directory about special tokens, and in which order. The rules are
// its rules, with what they do to unusual files.
type specialVocab struct {
	types []string // which special tokens are looked for
	limit int      // ids from here on are dropped
	notes []string

	ids                  []named[int64]
	add                  []named[bool]
	templates            []ChatTemplate
	lowercase, stripMark *bool
}

// named is one entry of a dict that keeps its order.
type named[T any] struct {
	name  string
	value T
}

func setNamed[T any](list []named[T], name string, value T) []named[T] {
	if i := slices.IndexFunc(list, func(n named[T]) bool { return n.name == name }); i >= 0 {
		list[i].value = value
		return list
	}
	return append(list, named[T]{name, value})
}

// allSpecials are the special tokens that are looked for unless a family says
// otherwise.
var allSpecials = []string{"bos", "eos", "unk", "sep", "pad", "cls", "mask"}

// members is a JSON object by its keys; nil for one that is absent.
type members map[string]jsontext.Value

func (m members) get(path ...string) jsontext.Value {
	var value jsontext.Value
	for _, key := range path {
		value = m[key]
		m = object(value)
	}
	return value
}

// object returns the members of a value, nil if it is no object.
func object(v jsontext.Value) (m members) {
	if v.Kind() != '{' || json.Unmarshal(v, &m) != nil {
		return nil
	}
	return m
}

// list returns the elements of a value, nil if it is no array.
func list(v jsontext.Value) (l []jsontext.Value) {
	if v.Kind() != '[' || json.Unmarshal(v, &l) != nil {
		return nil
	}
	return l
}

// str returns the text of a value, "" if it is no string.
func str(v jsontext.Value) (s string) {
	if v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// flag returns the value of a boolean, nil if it is none.
func flag(v jsontext.Value) *bool {
	switch v.Kind() {
	case 't', 'f':
		b := v.Kind() == 't'
		return &b
	}
	return nil
}

// integer returns the value of a whole number.
func integer(v jsontext.Value) (n int64, ok bool) {
	return n, v.Kind() == '0' && json.Unmarshal(v, &n) == nil
}

// truthy is what Python takes for true.
func truthy(v jsontext.Value) bool {
	switch v.Kind() {
	case '"':
		return str(v) != ""
	case '{':
		return len(object(v)) > 0
	case '[':
		return len(list(v)) > 0
	case '0':
		n, ok := integer(v)
		return !ok || n != 0
	}
	return v.Kind() == 't'
}

// same reports whether a value is a string, and that one.
func same(v jsontext.Value, s string) bool { return v.Kind() == '"' && str(v) == s }

func quoted(s string) jsontext.Value {
	b, _ := json.Marshal(s)
	return b
}

// load reads the parts of tokenizer.json, tokenizer_config.json and config.json.
func (s *specialVocab) load(tokenizer, config, model members, templates []ChatTemplate) error {
	s.types = slices.Clone(s.types)
	if len(tokenizer) > 0 {
		s.normalizer(tokenizer.get("normalizer"), 0)
		c := &configTokens{members: config, s: s}
		c.read(tokenizer.get("post_processor"))
		config = c.members
	}
	if len(config) > 0 {
		if err := s.config(config, tokenizer, templates); err != nil {
			return err
		}
	}
	for _, typ := range s.types {
		id := model.get(typ + "_token_id")
		if id == nil || id.Kind() == 'n' {
			id = model.get("text_config", typ+"_token_id")
		}
		s.set(typ, id)
	}
	return nil
}

func (s *specialVocab) normalizer(v jsontext.Value, depth int) {
	yes := true
	m := object(v)
	switch str(m["type"]) {
	case "Lowercase":
		s.lowercase = &yes
	case "StripAccents":
		s.stripMark = &yes
	case "BertNormalizer":
		if b := flag(m["lowercase"]); b != nil {
			s.lowercase = b
		}
		if b := flag(m["strip_accents"]); b != nil {
			s.stripMark = b
		}
	case "Sequence":
		if depth > 8 {
			return
		}
		for _, sub := range list(m["normalizers"]) {
			s.normalizer(sub, depth+1)
		}
	}
}

// set notes the id of a special token, unless it is no id or there is one.
func (s *specialVocab) set(typ string, v jsontext.Value) {
	id, ok := integer(v)
	switch {
	case !ok, slices.ContainsFunc(s.ids, func(n named[int64]) bool { return n.name == typ }):
	case id < 0:
		s.notes = append(s.notes, fmt.Sprintf("%s_token_id is %d: left out", typ, id))
	case id >= int64(s.limit):
		s.notes = append(s.notes, fmt.Sprintf("%s_token_id is %d, and the vocabulary has %d tokens: left out", typ, id, s.limit))
	default:
		s.ids = append(s.ids, named[int64]{typ, id})
	}
}

// config reads the special tokens of tokenizer_config.json. Their ids are those of
// tokenizer.json's added tokens of the same text.
func (s *specialVocab) config(config, tokenizer members, templates []ChatTemplate) error {
	if v, ok := config["chat_template"]; ok {
		var err error
		if templates, err = parseTemplates(v); err != nil {
			return err
		}
	}
	s.templates = templates
	ids := map[string]jsontext.Value{}
	for _, v := range list(tokenizer.get("added_tokens")) {
		a := object(v)
		if content := a["content"]; content.Kind() == '"' {
			if _, ok := ids[str(content)]; !ok {
				ids[str(content)] = a["id"]
			}
		}
	}
	for _, typ := range s.types {
		if b := flag(config["add_"+typ+"_token"]); b != nil {
			s.add = setNamed(s.add, typ, *b)
		}
		text := config[typ+"_token"]
		if text.Kind() == '{' {
			text = object(text)["content"]
		}
		if text.Kind() == '"' {
			s.set(typ, ids[str(text)])
		}
	}
	return nil
}

// parseTemplates reads chat_template: one, or a list of named ones.
func parseTemplates(v jsontext.Value) ([]ChatTemplate, error) {
	switch v.Kind() {
	case '"':
		return []ChatTemplate{{defaultTemplate, str(v)}}, nil
	case '[':
		var out []ChatTemplate
		for _, e := range list(v) {
			m := object(e)
			if m == nil {
				return nil, fmt.Errorf("chat_template: want a text, or a list of objects with name and template")
			}
			if t := m["template"]; t.Kind() == '"' {
				out = append(out, ChatTemplate{str(m["name"]), str(t)})
			}
		}
		return out, nil
	case 'n':
		return nil, nil
	}
	return nil, fmt.Errorf("chat_template: want a text, or a list of objects with name and template")
}

// configTokens tells from the post-processor which special tokens are added, and
// fills in what tokenizer_config.json does not say.
type configTokens struct {
	members
	s                  *specialVocab
	bos, cls, eos, sep jsontext.Value
}

// put sets a key of tokenizer_config.json, if there is that file.
func (c *configTokens) put(key string, v jsontext.Value) {
	if len(c.members) == 0 {
		return
	}
	m := make(members, len(c.members)+1)
	for k, old := range c.members {
		m[k] = old
	}
	m[key] = v
	c.members = m
}

func (c *configTokens) read(processor jsontext.Value) {
	c.bos, c.cls, c.eos, c.sep = c.get("bos_token"), c.get("cls_token"), c.get("eos_token"), c.get("sep_token")
	there := len(c.members) > 0
	if !truthy(c.bos) && truthy(c.cls) && there {
		c.bos = c.cls
		c.put("bos_token", c.bos)
	}
	if !truthy(c.eos) && truthy(c.sep) && there {
		c.eos = c.sep
		c.put("eos_token", c.eos)
	}
	p := object(processor)
	if len(p) == 0 {
		return
	}
	processors := []jsontext.Value{processor}
	if subs, ok := p["processors"]; ok {
		processors = list(subs)
	}
	for _, v := range processors {
		switch p := object(v); str(p["type"]) {
		case "RobertaProcessing":
			c.roberta(p)
		case "TemplateProcessing":
			c.template(p)
		}
	}
}

func (c *configTokens) add(name string, yes bool) { c.s.add = setNamed(c.s.add, name, yes) }

func (c *configTokens) roberta(p members) {
	c.add("bos", true)
	c.add("eos", true)
	c.add("sep", true)
	first := func(v, absent jsontext.Value) jsontext.Value {
		if l := list(v); len(l) > 0 {
			return l[0]
		}
		return absent
	}
	if there := len(c.members) > 0; there && !truthy(c.cls) {
		c.cls = first(p["cls"], c.bos)
		c.put("cls_token", c.cls)
	}
	if there := len(c.members) > 0; there && !truthy(c.sep) {
		c.sep = first(p["sep"], c.eos)
		c.put("sep_token", c.sep)
	}
}

func (c *configTokens) template(p members) {
	single, pair := list(p["single"]), list(p["pair"])
	special := func(v jsontext.Value) string { return str(object(v).get("SpecialToken", "id")) }
	there := len(c.members) > 0
	var first, last string
	if len(single) > 1 {
		if first = special(single[0]); first != "" {
			c.first(first, there)
		}
		if last = special(single[len(single)-1]); last != "" {
			c.last(last, there)
		}
	}
	if len(pair) == 0 {
		return
	}
	if first != "" && special(pair[0]) == first {
		pair = pair[1:]
	}
	if len(pair) > 0 && last != "" && special(pair[len(pair)-1]) == last {
		pair = pair[:len(pair)-1]
	}
	if len(pair) < 3 {
		return
	}
	sequence := func(v jsontext.Value) string { return str(object(v).get("Sequence", "id")) }
	if sequence(pair[0]) != "A" || sequence(pair[len(pair)-1]) != "B" {
		return
	}
	between := pair[1 : len(pair)-1]
	ends := func(v jsontext.Value) bool {
		text := special(v)
		return text != "" && (same(c.sep, text) || same(c.eos, text))
	}
	yes := ends(between[0]) && last == "" || len(between) == 2 && ends(between[1])
	c.add("sep", yes)
	if yes && !truthy(c.sep) && there {
		c.put("sep_token", c.eos)
	}
}

func (c *configTokens) first(text string, there bool) {
	switch {
	case !there:
		c.bos = quoted(text)
	case !same(c.bos, text) && !same(c.cls, text):
		if !truthy(c.bos) {
			c.bos = quoted(text)
			c.put("bos_token", c.bos)
		}
		if !truthy(c.cls) {
			c.cls = quoted(text)
			c.put("cls_token", c.cls)
		}
	}
	c.add("bos", same(c.bos, text) || same(c.cls, text))
}

// last takes a token at the end of the template for eos. What was eos becomes eot,
// or eom if there is one.
func (c *configTokens) last(text string, there bool) {
	switch {
	case !there:
		c.eos = quoted(text)
	case !same(c.eos, text):
		for _, typ := range []string{"eot", "eom"} {
			if !slices.Contains(c.s.types, typ) {
				c.s.types = append(c.s.types, typ)
				c.put(typ+"_token", c.eos)
				break
			}
		}
		c.eos = quoted(text)
		c.put("eos_token", c.eos)
	}
	c.add("eos", same(c.eos, text))
}

// write sets the keys, as add_to_gguf does.
func (s *specialVocab) write(k *keys, merges bool) {
	if merges {
		k.set(keyMerges, nil)
	}
	for _, n := range s.ids {
		if key, ok := idKeys[n.name]; ok {
			k.set(ggml+key, uint32(n.value))
		}
	}
	for _, n := range s.add {
		if key, ok := addKeys[n.name]; ok {
			k.set(ggml+key, n.value)
		}
	}
	k.setTemplates(s.templates)
	if s.lowercase != nil {
		k.set(keyLowercase, *s.lowercase)
	}
	if s.stripMark != nil {
		k.set(keyAccents, *s.stripMark)
	}
}
