package vocab

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// maxFile bounds the size of each file that OpenDir reads. The largest
// tokenizer.model in use (Gemma) has 4 MB, the largest tokenizer.json 33 MB.
const maxFile = 64 << 20

// OpenDir reads the tokenizer of a Hugging Face model directory, as
// transformers 4 or 5 or a trainer of SentencePiece models left it:
//
//   - tokenizer.model: the pieces;
//   - added_tokens.json and added_tokens_decoder of tokenizer_config.json: more
//     of them, or what is different about those there are;
//   - tokenizer_config.json, else special_tokens_map.json: the special tokens
//     by their text; else config.json, else generation_config.json, by id;
//     else what tokenizer.model says;
//   - chat_template of tokenizer_config.json, else chat_template.jinja with
//     additional_chat_templates, else chat_template.json.
//
// vocabSize is the number of rows of the model's embedding; 0 means as many as
// there are pieces and added tokens without a hole. Ids that have no piece get one named [PADi] of type Unused,
// as llama.cpp's converter (conversion/base.py, _create_vocab_sentencepiece)
// does. Added tokens beyond vocabSize have no embedding and are left out, as
// there. A tokenizer.model with more pieces than that is an error.
//
// A directory with only a tokenizer.json is refused with an error that wraps
// tensor.ErrUnsupported; one without any tokenizer with an error that wraps
// fs.ErrNotExist.
func OpenDir(dir string, vocabSize int) (*Vocab, error) {
	if vocabSize < 0 || vocabSize > maxPieces {
		return nil, fmt.Errorf("vocabulary size %d; want at most %d", vocabSize, maxPieces)
	}
	v, err := openModel(dir)
	if err != nil {
		return nil, err
	}
	d := &dirReader{dir: dir, v: v, size: vocabSize}
	for _, step := range []func() error{d.readJSON, d.pad, d.addTokens, d.setSpecials, d.setTemplates} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if err := v.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return v, nil
}

func openModel(dir string) (*Vocab, error) {
	path := filepath.Join(dir, "tokenizer.model")
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, other := range []string{"tokenizer.json", "tekken.json", "vocab.json"} {
			if _, err := os.Stat(filepath.Join(dir, other)); err == nil {
				return nil, hint.Add(fmt.Errorf("%s: %w: a tokenizer in %s without tokenizer.model", dir, tensor.ErrUnsupported, other),
					"put the SentencePiece file tokenizer.model of the original model into %s; models that never had one (Llama 3, Qwen) cannot be read yet", dir)
			}
		}
		return nil, hint.Add(fmt.Errorf("%s: no tokenizer.model: %w", dir, fs.ErrNotExist),
			"copy tokenizer.model and tokenizer_config.json of the original model into %s", dir)
	}
	if err != nil {
		return nil, err
	}
	v, err := ParseSentencePiece(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// dirReader adds to a vocabulary what the JSON files of a directory say.
type dirReader struct {
	dir    string
	v      *Vocab
	size   int
	added  map[string]int64 // added_tokens.json
	config tokenizerConfig
	tokens specialTokens     // special_tokens_map.json
	ids    []specialTokenIDs // config.json, generation_config.json
}

// tokenizerConfig is the part of tokenizer_config.json that matters here.
type tokenizerConfig struct {
	specialTokens
	AddBOS         *bool                 `json:"add_bos_token"`
	AddEOS         *bool                 `json:"add_eos_token"`
	AddPrefixSpace *bool                 `json:"add_prefix_space"`
	Legacy         bool                  `json:"legacy"`
	Added          map[string]addedToken `json:"added_tokens_decoder"`
	ChatTemplate   templates             `json:"chat_template"`
}

// specialTokens names special tokens by their text.
type specialTokens struct {
	BOS tokenText `json:"bos_token"`
	EOS tokenText `json:"eos_token"`
	UNK tokenText `json:"unk_token"`
	SEP tokenText `json:"sep_token"`
	PAD tokenText `json:"pad_token"`
}

func (t specialTokens) list() []tokenText {
	return []tokenText{t.BOS, t.EOS, t.UNK, t.SEP, t.PAD} // the order of specials
}

// specialTokenIDs names special tokens by their id.
type specialTokenIDs struct {
	BOS tokenID `json:"bos_token_id"`
	EOS tokenID `json:"eos_token_id"`
	UNK tokenID `json:"unk_token_id"`
	SEP tokenID `json:"sep_token_id"`
	PAD tokenID `json:"pad_token_id"`
}

func (t specialTokenIDs) list() []tokenID {
	return []tokenID{t.BOS, t.EOS, t.UNK, t.SEP, t.PAD} // the order of specials
}

// addedToken is a token as transformers' AddedToken serializes it.
type addedToken struct {
	Content    string `json:"content"`
	Special    bool   `json:"special"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	SingleWord bool   `json:"single_word"`

	// literal keeps Space in the text of one that is not special.
	literal bool
}

// tokenText is a token given as its text, as an AddedToken, or as null.
type tokenText string

func (t *tokenText) UnmarshalJSON(b []byte) error {
	switch jsontext.Value(b).Kind() {
	case 'n':
		return nil
	case '{':
		var a addedToken
		if err := json.Unmarshal(b, &a); err != nil {
			return err
		}
		*t = tokenText(a.Content)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("want a token as a string or an object with content")
	}
	*t = tokenText(s)
	return nil
}

// tokenID is one id, the first of a list, or none.
type tokenID struct {
	id int64
	ok bool
}

func (t *tokenID) UnmarshalJSON(b []byte) error {
	switch jsontext.Value(b).Kind() {
	case 'n':
		return nil
	case '[':
		var list []int64
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		if len(list) > 0 {
			t.id, t.ok = list[0], true
		}
		return nil
	}
	t.ok = true
	return json.Unmarshal(b, &t.id)
}

// templates is chat_template: one, or a list of named ones.
type templates []ChatTemplate

func (t *templates) UnmarshalJSON(b []byte) error {
	switch jsontext.Value(b).Kind() {
	case 'n':
		return nil
	case '"':
		*t = templates{{Name: defaultTemplate}}
		return json.Unmarshal(b, &(*t)[0].Template)
	}
	var list []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	for _, e := range list {
		*t = append(*t, ChatTemplate(e))
	}
	return nil
}

const defaultTemplate = "default"

func (d *dirReader) readJSON() error {
	d.ids = make([]specialTokenIDs, 2)
	for _, f := range []struct {
		name string
		to   any
	}{
		{"added_tokens.json", &d.added},
		{"tokenizer_config.json", &d.config},
		{"special_tokens_map.json", &d.tokens},
		{"config.json", &d.ids[0]},
		{"generation_config.json", &d.ids[1]},
	} {
		if _, err := readJSON(filepath.Join(d.dir, f.name), f.to); err != nil {
			return err
		}
	}
	return nil
}

// pad gives every id below the size of the vocabulary a piece.
func (d *dirReader) pad() error {
	n := len(d.v.Pieces)
	if d.size == 0 {
		d.size = d.countAdded(n)
	}
	if n > d.size {
		return hint.Add(fmt.Errorf("%s: %w: tokenizer.model has %d pieces and the model a vocabulary of %d", d.dir, tensor.ErrMalformed, n, d.size),
			"the tokenizer is not the one this model was trained with")
	}
	for i := n; i < d.size; i++ {
		d.v.Pieces = append(d.v.Pieces, Piece{Text: fmt.Sprintf("[PAD%d]", i), Score: padScore, Type: Unused})
	}
	return nil
}

// countAdded returns how many of n pieces and the added tokens follow each other
// without a hole.
func (d *dirReader) countAdded(n int) int {
	ids := slices.Collect(maps.Values(d.added))
	for key := range d.config.Added {
		if id, err := strconv.ParseInt(key, 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		if id == int64(n) {
			n++
		}
	}
	return n
}

// addTokens enters the added tokens, those of added_tokens.json first. Only in
// the others does the converter replace Space.
func (d *dirReader) addTokens() error {
	for _, text := range slices.Sorted(maps.Keys(d.added)) {
		if err := d.add("added_tokens.json", d.added[text], addedToken{Content: text, literal: true}); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(d.config.Added)) {
		const name = "tokenizer_config.json"
		id, err := strconv.ParseInt(key, 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w: added_tokens_decoder has the id %q", filepath.Join(d.dir, name), tensor.ErrMalformed, key)
		}
		if err := d.add(name, id, d.config.Added[key]); err != nil {
			return err
		}
	}
	return nil
}

func (d *dirReader) add(file string, id int64, t addedToken) error {
	path := filepath.Join(d.dir, file)
	switch {
	case id < 0:
		return fmt.Errorf("%s: %w: added token %q has the id %d", path, tensor.ErrMalformed, t.Content, id)
	case t.SingleWord:
		return fmt.Errorf("%s: %w: added token %q counts only as a whole word", path, tensor.ErrUnsupported, t.Content)
	case id >= int64(len(d.v.Pieces)):
		return nil
	}
	p := &d.v.Pieces[id]
	typ := UserDefined
	switch {
	case p.Type == Unknown || p.Type == Byte:
		typ = p.Type
	case t.Special || looksSpecial(t.Content):
		typ = Control
	case !t.literal:
		t.Content = strings.ReplaceAll(t.Content, Space, " ")
	}
	*p = Piece{Text: t.Content, Score: addedScore, Type: typ, Added: true, LStrip: t.LStrip, RStrip: t.RStrip}
	return nil
}

// looksSpecial reports whether an added token is a special one although its
// file does not say so, by llama.cpp's rule (conversion/base.py,
// does_token_look_special).
func looksSpecial(text string) bool {
	within := func(open, end string) bool {
		return strings.HasPrefix(text, open) && strings.HasSuffix(text, end)
	}
	return slices.Contains([]string{"<pad>", "<mask>", "<2mass>", "[@BOS@]"}, text) ||
		within("<|", "|>") || within("<｜", "｜>") || within("<unused", ">")
}

// setSpecials finds the special tokens and the settings beside them.
func (d *dirReader) setSpecials() error {
	v, c := d.v, d.config
	fromConfig, fromMap := c.specialTokens.list(), d.tokens.list()
	_, err := os.Stat(filepath.Join(d.dir, "tokenizer.json"))
	v.UNK = None
	for i, s := range specials() {
		text := cmp.Or(fromConfig[i], fromMap[i])
		// The converter looks texts up in tokenizer.json. Without that file it
		// declares no unknown token, unless config.json does.
		if s.name == "unk" && err != nil {
			text = ""
		}
		if id := v.find(string(text)); text != "" && id != None {
			*s.id(v) = id
			continue
		}
		for _, ids := range d.ids {
			// Some programs write -1 for "none", or an id that does not exist.
			if id := ids.list()[i]; id.ok && id.id >= 0 && id.id < int64(len(v.Pieces)) {
				*s.id(v) = int32(id.id)
				break
			}
		}
	}
	v.Legacy = c.Legacy
	v.AddBOS = v.BOS != None
	for _, f := range []struct {
		from, to *bool
	}{{c.AddBOS, &v.AddBOS}, {c.AddEOS, &v.AddEOS}, {c.AddPrefixSpace, &v.AddSpacePrefix}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	return nil
}

func (d *dirReader) setTemplates() error {
	list := d.config.ChatTemplate
	if list == nil {
		var err error
		if list, err = d.templateFiles(); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, t := range list {
		switch {
		case seen[t.Name]:
			return fmt.Errorf("%s: %w: two chat templates named %q", d.dir, tensor.ErrMalformed, t.Name)
		case t.Name == defaultTemplate:
			d.v.ChatTemplate = t.Template
		case t.Name != "":
			d.v.ChatTemplates = append(d.v.ChatTemplates, t)
		}
		seen[t.Name] = true
	}
	return nil
}

// templateFiles reads the chat templates that have files of their own.
func (d *dirReader) templateFiles() (templates, error) {
	text, err := readFile(filepath.Join(d.dir, "chat_template.jinja"))
	if errors.Is(err, fs.ErrNotExist) {
		var file struct {
			ChatTemplate templates `json:"chat_template"`
		}
		_, err := readJSON(filepath.Join(d.dir, "chat_template.json"), &file)
		return file.ChatTemplate, err
	}
	if err != nil {
		return nil, err
	}
	list := templates{{defaultTemplate, string(text)}}
	folder := filepath.Join(d.dir, "additional_chat_templates")
	more, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range more {
		name, ok := strings.CutSuffix(e.Name(), ".jinja")
		if !ok {
			continue
		}
		text, err := readFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		list = append(list, ChatTemplate{name, string(text)})
	}
	return list, nil
}

// readJSON reads a JSON file into to, and reports whether there is one.
func readJSON(path string, to any) (bool, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return false, fmt.Errorf("%s: %w: %v", path, tensor.ErrMalformed, err)
	}
	return true, nil
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file", path)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: %w: %d bytes; at most %d are read", path, tensor.ErrMalformed, info.Size(), maxFile)
	}
	data, err := safeio.ReadN(f, uint64(info.Size()))
	if err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("%s: became shorter while it was read", path)
	}
	return data, err
}
