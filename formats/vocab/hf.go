package vocab

import (
	"cmp"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// class is what a tokenizer class of transformers (4.57.6) does beside what its
// tokenizer.json says.
type class struct {
	names              []string
	bos, eos, unk, pad string // special tokens unless the files say otherwise

	// ends says that bos and eos are added as add_bos_token and add_eos_token have
	// it, or are absent from true and false, whatever the post-processor of the file.
	ends bool

	// files makes what vocab.json and merges.txt do not say; nil for a class that
	// has no such files.
	files func(add bool) *bpe.Spec
}

func classes() []class {
	const end = "<|endoftext|>"
	return []class{
		{names: []string{"GPT2Tokenizer"}, bos: end, eos: end, unk: end, files: gpt2Files},
		{names: []string{"Qwen2Tokenizer"}, eos: end, unk: end, pad: end, files: qwen2Files},
		{names: []string{"LlamaTokenizer", "CodeLlamaTokenizer"}, bos: "<s>", eos: "</s>", unk: "<unk>", ends: true},
		{names: []string{"GemmaTokenizer"}, bos: "<bos>", eos: "<eos>", unk: "<unk>", pad: "<pad>", ends: true},
	}
}

func gpt2Files(add bool) *bpe.Spec {
	b := &bpe.ByteLevel{Type: "ByteLevel", AddPrefixSpace: add, TrimOffsets: true, UseRegex: true}
	return &bpe.Spec{PreTokenizer: b, Decoder: byteDecoder()}
}

func qwen2Files(add bool) *bpe.Spec {
	steps := append(splits(bpe.Qwen2Pattern), &bpe.ByteLevel{Type: "ByteLevel", AddPrefixSpace: add, TrimOffsets: true})
	return &bpe.Spec{
		Normalizer:   &bpe.Plain{Type: "NFC"},
		PreTokenizer: &bpe.PreTokenizerSequence{Type: "Sequence", PreTokenizers: steps},
		Decoder:      byteDecoder(),
	}
}

func byteDecoder() bpe.Decoder {
	return &bpe.ByteLevel{Type: "ByteLevel", AddPrefixSpace: true, TrimOffsets: true, UseRegex: true}
}

// classOfType is the class of a model_type whose files name none.
var classOfType = map[string]string{
	"gpt2": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer", "qwen2_moe": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "qwen3_moe": "Qwen2Tokenizer",
	"llama": "LlamaTokenizer", "mistral": "LlamaTokenizer", "mixtral": "LlamaTokenizer", "phi3": "LlamaTokenizer",
	"gemma": "GemmaTokenizer", "gemma2": "GemmaTokenizer", "gemma3": "GemmaTokenizer", "gemma3_text": "GemmaTokenizer",
}

// class returns the tokenizer class of the directory. One that is not known does
// nothing of its own.
func (d *dirReader) class() class {
	name := cmp.Or(str(d.config["tokenizer_class"]), str(d.model["tokenizer_class"]), classOfType[str(d.model["model_type"])])
	name = strings.TrimSuffix(name, "Fast")
	for _, c := range classes() {
		if slices.Contains(c.names, name) {
			return c
		}
	}
	return class{names: []string{name}}
}

// tokenText is a special token as a file gives it: its text and, if it is an
// AddedToken, its flags. A null is no token.
type tokenText struct {
	text  string
	added *bpe.Added
}

func parseToken(v jsontext.Value) (t tokenText, err error) {
	switch v.Kind() {
	case '"':
		t.text = str(v)
	case '{':
		// An AddedToken is normalized unless it says otherwise.
		a := bpe.Added{Normalized: true}
		if err := json.Unmarshal(v, &a); err != nil {
			return t, err
		}
		a.Special = true
		t.text, t.added = a.Content, &a
	case 'n', 0:
	default:
		return t, fmt.Errorf("want a token as a string or an object with content")
	}
	return t, nil
}

// tokenNames are the special tokens of transformers in its order.
var tokenNames = []string{"bos", "eos", "unk", "sep", "pad", "cls", "mask"}

// hfTokens returns the special tokens that transformers has for the directory, by
// name, and those without one.
func (d *dirReader) hfTokens(c class) (map[string]tokenText, []tokenText, error) {
	tokens := map[string]tokenText{"bos": {text: c.bos}, "eos": {text: c.eos}, "unk": {text: c.unk}, "pad": {text: c.pad}}
	var more []tokenText
	read := func(file string, m members) error {
		for _, name := range tokenNames {
			v, ok := m[name+"_token"]
			if !ok {
				continue
			}
			t, err := parseToken(v)
			if err != nil {
				return fmt.Errorf("%s: %w: %s_token: %v", filepath.Join(d.dir, file), tensor.ErrMalformed, name, err)
			}
			tokens[name] = t
		}
		for _, key := range []string{"additional_special_tokens", "extra_special_tokens"} {
			values := list(m[key])
			for _, v := range object(m[key]) { // of transformers 5: names of them
				values = append(values, v)
			}
			for _, v := range values {
				t, err := parseToken(v)
				if err != nil {
					return fmt.Errorf("%s: %w: %s: %v", filepath.Join(d.dir, file), tensor.ErrMalformed, key, err)
				}
				more = append(more, t)
			}
		}
		return nil
	}
	if err := read("tokenizer_config.json", d.config); err != nil {
		return nil, nil, err
	}
	if _, ok := d.config["added_tokens_decoder"]; !ok {
		if err := read("special_tokens_map.json", d.tokensMap); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(more, func(a, b tokenText) int { return cmp.Compare(a.text, b.text) })
	return tokens, more, nil
}

// openHF makes the tokenizer that transformers makes of the directory: of
// tokenizer.json or of vocab.json and merges.txt, with the added tokens and settings
// of the other files.
func (d *dirReader) openHF() (*bpe.Spec, error) {
	c := d.class()
	spec, err := d.hfModel(&c)
	if err != nil {
		return nil, err
	}
	tokens, more, err := d.hfTokens(c)
	if err != nil {
		return nil, err
	}
	d.special = map[string]bool{}
	all := slices.Clone(more)
	for i := len(tokenNames) - 1; i >= 0; i-- {
		all = slices.Insert(all, 0, tokens[tokenNames[i]])
	}
	for _, t := range all {
		if t.text != "" {
			d.special[t.text] = true
		}
	}
	if err := d.hfAdd(spec, all); err != nil {
		return nil, err
	}
	d.hfIDs(spec, tokens)
	if b, ok := spec.PreTokenizer.(*bpe.ByteLevel); ok {
		add := flag(d.config["add_prefix_space"])
		b.AddPrefixSpace = add != nil && *add
	}
	if c.ends {
		spec.PostProcessor = d.hfEnds(spec, tokens)
	}
	return spec, nil
}

// hfModel reads the model and what is around it.
func (d *dirReader) hfModel(c *class) (*bpe.Spec, error) {
	path := filepath.Join(d.dir, "tokenizer.json")
	if d.tokenizer != nil {
		spec, mismatched, err := bpe.Parse(d.tokenizerText)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if n := len(mismatched); n > 0 {
			d.note("tokenizer.json gives %d added tokens other ids than it says, as transformers does: %s", n, strings.Join(mismatched[:min(n, 3)], "; "))
		}
		return spec, nil
	}
	if path := d.tikToken(); path != "" && !exists(d.dir, "vocab.json") {
		return d.openTikToken(path, c)
	}
	if c.files == nil {
		return nil, hint.Add(fmt.Errorf("%s: %w: vocab.json without tokenizer.json for the class %q", d.dir, tensor.ErrUnsupported, c.names[0]),
			"save the tokenizer with transformers, which writes tokenizer.json, or name GPT2Tokenizer or Qwen2Tokenizer as tokenizer_class in tokenizer_config.json")
	}
	add := flag(d.config["add_prefix_space"])
	spec := c.files(add != nil && *add)
	text, err := readFile(filepath.Join(d.dir, "vocab.json"))
	if err != nil {
		return nil, err
	}
	if spec.Model.Vocab, err = bpe.ParseVocab(text); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(d.dir, "vocab.json"), err)
	}
	spec.Model.Merges, err = d.mergesFile(*c)
	return spec, err
}

// mergesFile reads merges.txt: a line of version, and then a merge on each line.
// The class of GPT-2 drops the first line whatever it says.
func (d *dirReader) mergesFile(c class) ([][2]string, error) {
	path := filepath.Join(d.dir, "merges.txt")
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var merges [][2]string
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || i == 0 && (strings.HasPrefix(line, "#") || c.names[0] == "GPT2Tokenizer") {
			continue
		}
		parts := strings.Fields(line)
		if len(parts) != 2 {
			return nil, fmt.Errorf("%s:%d: %w: %d words; want two tokens", path, i+1, tensor.ErrMalformed, len(parts))
		}
		merges = append(merges, [2]string(parts))
	}
	return merges, nil
}

// hfAdd adds the tokens of tokenizer_config.json, or of the files that were there
// before it, and the special tokens that are not among them.
func (d *dirReader) hfAdd(spec *bpe.Spec, special []tokenText) error {
	tokens, err := d.addedTokens()
	if err != nil {
		return err
	}
	if tokens == nil {
		tokens = slices.Clone(spec.Added)
		for text, id := range d.added {
			tokens = append(tokens, bpe.Added{ID: int32(min(id, maxPieces)), Content: text, Normalized: !d.special[text]})
		}
	}
	slices.SortFunc(tokens, func(a, b bpe.Added) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Content, b.Content)) })
	known := map[string]bool{}
	for _, a := range spec.Added {
		known[a.Content] = true
	}
	for _, a := range tokens {
		known[a.Content] = true
	}
	for _, t := range special {
		switch {
		case t.text == "" || known[t.text]:
			continue
		case t.added != nil:
			tokens = append(tokens, *t.added)
		default:
			tokens = append(tokens, bpe.Added{Content: t.text, Special: true})
		}
		known[t.text] = true
	}
	for _, a := range tokens {
		a.Special = a.Special || d.special[a.Content]
		if _, err := spec.Add(a); err != nil {
			return fmt.Errorf("%s: added tokens: %w", d.dir, err)
		}
	}
	return nil
}

// hfIDs finds the special tokens in the vocabulary.
func (d *dirReader) hfIDs(spec *bpe.Spec, tokens map[string]tokenText) {
	for _, s := range specials() {
		*s.id(d.v) = None
		if id, ok := spec.Find(tokens[s.name].text); ok && tokens[s.name].text != "" {
			*s.id(d.v) = id
		} else if id, ok := d.configID(s.name); ok && id < maxPieces {
			*s.id(d.v) = int32(id)
		}
	}
}

// hfEnds is the post-processor that the classes of SentencePiece tokenizers make.
func (d *dirReader) hfEnds(spec *bpe.Spec, tokens map[string]tokenText) bpe.PostProcessor {
	on := func(key string, absent bool) bool {
		if b := flag(d.config[key]); b != nil {
			return *b
		}
		return absent
	}
	ends := func(name string, on bool) string {
		if _, ok := spec.Find(tokens[name].text); !on || !ok {
			return ""
		}
		return tokens[name].text
	}
	return template(spec, ends("bos", on("add_bos_token", true)), ends("eos", on("add_eos_token", false)))
}

// template is a post-processor that puts tokens around a text; "" is none.
func template(spec *bpe.Spec, front, back string) *bpe.Template {
	t := &bpe.Template{Type: "TemplateProcessing", SpecialTokens: map[string]bpe.TemplateSpecial{}}
	special := func(text string, typ int64) []bpe.TemplatePiece {
		if text == "" {
			return nil
		}
		id, _ := spec.Find(text)
		t.SpecialTokens[text] = bpe.TemplateSpecial{ID: text, IDs: []int32{id}, Tokens: []string{text}}
		return []bpe.TemplatePiece{{SpecialToken: &bpe.TemplateRef{ID: text, TypeID: typ}}}
	}
	part := func(name string, typ int64) []bpe.TemplatePiece {
		return slices.Concat(special(front, typ), []bpe.TemplatePiece{{Sequence: &bpe.TemplateRef{ID: name, TypeID: typ}}}, special(back, typ))
	}
	t.Single = part("A", 0)
	t.Pair = slices.Concat(part("A", 0), part("B", 1))
	return t
}

// configID returns the id of a special token that config.json gives, or
// generation_config.json: the number, or the first of a list.
func (d *dirReader) configID(name string) (int64, bool) {
	for _, m := range []members{d.model, object(d.model["text_config"]), d.generation} {
		v := m[name+"_token_id"]
		if l := list(v); len(l) > 0 {
			v = l[0]
		}
		if id, ok := integer(v); ok && id >= 0 {
			return id, true
		}
	}
	return 0, false
}

// missing returns an error about a directory without a tokenizer that the family
// can have.
func (d *dirReader) missing() error {
	var files []string
	for _, kind := range d.kinds() {
		files = append(files, kindFiles[kind])
	}
	if exists(d.dir, "tekken.json") {
		return hint.Add(fmt.Errorf("%s: %w: a tokenizer in tekken.json", d.dir, tensor.ErrUnsupported),
			"put the tokenizer.json of the model's Hugging Face repository beside it")
	}
	for _, other := range []string{"tokenizer.json", "vocab.json", "tokenizer.model"} {
		if exists(d.dir, other) {
			return hint.Add(fmt.Errorf("%s: %w: this family's tokenizer comes as %s, and there is %s", d.dir, tensor.ErrUnsupported, strings.Join(files, " or "), other),
				"copy the tokenizer files of the original model into %s", d.dir)
		}
	}
	return hint.Add(fmt.Errorf("%s: no %s: %w", d.dir, strings.Join(files, " or "), fs.ErrNotExist),
		"copy the tokenizer files of the original model into %s", d.dir)
}
