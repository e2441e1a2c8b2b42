package vocab

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// maxFile bounds the size of each file that OpenDir reads. The largest
// tokenizer.model in use (Gemma) has 4 MB, the largest tokenizer.json 33 MB.
const maxFile = 64 << 20

// Options say what OpenDir has to know beside the files.
type Options struct {
	// Size is the number of rows of the model's embedding; 0 means as many as there
	// are pieces and added tokens without a hole. Ids that have no piece get one named
	// [PADi] of type Unused. Those from Size on have no embedding and are left out,
	// with a note.
	Size int

	// Rules are those of the model's family: which files count, and what belongs to
	// the metadata beside what they say.
	Rules arch.Tokenizers

	// Pre is the name of the pre-tokenizer of byte-level BPE, one that llama.cpp
	// knows; "" means that it is told from the files.
	Pre string

	// TextOnly says that text is to be split and no GGUF file written: it is no
	// error then if Pre cannot be told.
	TextOnly bool
}

// OpenDir reads the tokenizer of a Hugging Face model directory, as transformers 4
// or 5 or a trainer of SentencePiece models left it:
//
//   - tokenizer.model, or tokenizer.json, or vocab.json and merges.txt, or a tiktoken
//     file (tokenizer.model may be one): the pieces, of the first kind of o.Rules that
//     there is;
//   - added_tokens.json and added_tokens_decoder of tokenizer_config.json: more
//     of them, or what is different about those there are;
//   - tokenizer_config.json, special_tokens_map.json, config.json and
//     generation_config.json: the special tokens;
//   - chat_template of tokenizer_config.json, else chat_template.jinja with
//     additional_chat_templates, else chat_template.json.
//
// What GGUF then returns is what llama.cpp's converter (v0.5.0, with transformers
// 4.57.6) writes for the directory, with four exceptions. The pieces of a
// tokenizer.json with byte fallback have scores by which llama.cpp splits text as
// transformers does, where the converter gives all the same one. Ids that the
// vocabulary lacks are left out with a note, as are negative ones, and holes in it
// filled, where the converter fails or writes a file that llama.cpp refuses. A
// pre-tokenizer that the converter does not know by its digest is told by what
// tokenizer.json says. The names in chat_templates are in the order of the files,
// and there in no order.
//
// An error about a tokenizer of another kind wraps tensor.ErrUnsupported, one about
// a directory without any fs.ErrNotExist.
func OpenDir(dir string, o Options) (*Vocab, error) {
	if o.Size < 0 || o.Size > maxPieces {
		return nil, fmt.Errorf("vocabulary size %d; want at most %d", o.Size, maxPieces)
	}
	if err := CheckPre(o.Pre); err != nil {
		return nil, err
	}
	d := &dirReader{dir: dir, o: o, v: newVocab()}
	if err := d.readFiles(); err != nil {
		return nil, err
	}
	kind, err := d.kind()
	if err == nil {
		switch kind {
		case arch.SentencePiece:
			err = d.openSentencePiece()
		case arch.ByteFallback:
			err = d.openByteFallback()
		default:
			err = d.openByteLevel()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := d.v.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return d.v, nil
}

// dirReader reads the files of a directory into a vocabulary.
type dirReader struct {
	dir string
	o   Options
	v   *Vocab

	tokenizerText []byte  // tokenizer.json
	tokenizer     members // the same
	config        members // tokenizer_config.json
	tokensMap     members // special_tokens_map.json
	model         members // config.json
	generation    members // generation_config.json
	added         map[string]int64
	templates     []ChatTemplate // those with files of their own

	special map[string]bool // the texts of transformers' special tokens
}

func (d *dirReader) note(format string, args ...any) {
	d.v.Notes = append(d.v.Notes, fmt.Sprintf(format, args...))
}

func exists(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular()
}

// kindFiles are what the kinds are known by.
var kindFiles = map[arch.TokenizerKind]string{
	arch.SentencePiece: "tokenizer.model", arch.ByteFallback: "tokenizer.json", arch.ByteLevel: "tokenizer.json",
}

func (d *dirReader) kinds() []arch.TokenizerKind {
	if d.o.Rules.Kinds == nil {
		return []arch.TokenizerKind{arch.SentencePiece, arch.ByteFallback, arch.ByteLevel}
	}
	return d.o.Rules.Kinds
}

// kind returns the first kind of tokenizer that is there.
func (d *dirReader) kind() (arch.TokenizerKind, error) {
	level := d.tokenizer != nil || exists(d.dir, "vocab.json") || d.tikToken() != ""
	pieces := exists(d.dir, "tokenizer.model") && !isTikToken(filepath.Join(d.dir, "tokenizer.model"))
	if class := d.o.Rules.ByteLevelClass; class != "" && str(d.config["tokenizer_class"]) == class && level {
		return arch.ByteLevel, nil
	}
	for _, kind := range d.kinds() {
		if kind == arch.SentencePiece && pieces ||
			kind == arch.ByteFallback && d.fallsBack() || kind == arch.ByteLevel && level {
			return kind, nil
		}
	}
	return 0, d.missing()
}

// fallsBack reports whether tokenizer.json is of the kind with byte fallback, by
// the converter's rule (gguf-py, vocab.py, LlamaHfVocab).
func (d *dirReader) fallsBack() bool {
	m := object(d.tokenizer["model"])
	fallback := flag(m["byte_fallback"])
	return str(m["type"]) == "BPE" && fallback != nil && *fallback && str(object(d.tokenizer["decoder"])["type"]) == "Sequence"
}

func (d *dirReader) readFiles() (err error) {
	if err := d.readSmallFiles(); err != nil {
		return err
	}
	d.tokenizerText, err = readJSON(filepath.Join(d.dir, "tokenizer.json"), &d.tokenizer)
	return err
}

// readSmallFiles reads the files beside those of the tokens.
func (d *dirReader) readSmallFiles() error {
	for _, f := range []struct {
		name string
		to   any
	}{
		{"added_tokens.json", &d.added},
		{"tokenizer_config.json", &d.config},
		{"special_tokens_map.json", &d.tokensMap},
		{"config.json", &d.model},
		{"generation_config.json", &d.generation},
	} {
		if _, err := readJSON(filepath.Join(d.dir, f.name), f.to); err != nil {
			return err
		}
	}
	if v := d.config["chat_template"]; v.Kind() == '{' {
		d.note("chat_template of tokenizer_config.json is an object: left out")
		d.config["chat_template"] = jsontext.Value("null")
	}
	return d.templateFiles()
}

// templateFiles reads the chat templates that have files of their own.
func (d *dirReader) templateFiles() error {
	text, err := readFile(filepath.Join(d.dir, "chat_template.jinja"))
	if errors.Is(err, fs.ErrNotExist) {
		var file members
		path := filepath.Join(d.dir, "chat_template.json")
		if _, err := readJSON(path, &file); err != nil {
			return err
		}
		if v := file["chat_template"]; len(v) > 0 {
			if d.templates, err = parseTemplates(v); err != nil {
				return fmt.Errorf("%s: %w: %v", path, tensor.ErrMalformed, err)
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	d.templates = []ChatTemplate{{defaultTemplate, string(text)}}
	folder := filepath.Join(d.dir, "additional_chat_templates")
	more, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range more {
		name, ok := strings.CutSuffix(e.Name(), ".jinja")
		if !ok {
			continue
		}
		text, err := readFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return err
		}
		d.templates = append(d.templates, ChatTemplate{name, string(text)})
	}
	return nil
}

// writeKeys makes the metadata, and what of it a Vocab has in fields.
func (d *dirReader) writeKeys() error {
	v, rules := d.v, d.o.Rules
	var k keys
	if add := flag(d.config["add_prefix_space"]); add != nil && rules.WritesPrefix {
		k.set(keyPrefix, *add)
	}
	k.set(keyModel, string(v.Kind))
	k.set(keyPre, "default")
	k.set(keyTokens, nil)
	if v.scored() {
		k.set(keyScores, nil)
	} else {
		k.set(keyPre, v.Pre)
	}
	k.set(keyTypes, nil)
	if v.Kind == Unigram {
		v.unigramKeys(&k)
	}
	s := specialVocab{types: allSpecials, limit: len(v.Pieces)}
	if err := s.load(d.tokenizer, d.config, d.model, d.templates); err != nil {
		return fmt.Errorf("%s: %w: %v", filepath.Join(d.dir, "tokenizer_config.json"), tensor.ErrMalformed, err)
	}
	s.write(&k, v.Kind == BPE && len(v.Merges) > 0)
	v.Notes = append(v.Notes, s.notes...)
	if d.setTemplates(s.templates); d.config == nil {
		d.setTemplates(d.templates) // which the converter leaves out then
	}
	if err := d.writeExtra(&k); err != nil {
		return err
	}
	if n := rules.NoBOSSize; n != 0 && n == int64(d.o.Size) {
		k.set(ggml+addKeys["bos"], false)
	}
	if rules.NoPrefix && v.scored() {
		k.set(keyPrefix, false)
	}
	bos := v.Kind == SPM || v.Kind == Unigram && v.Spec == nil
	if scheme, ok := schemeOf(v.Pre); ok && v.Kind == BPE {
		bos = scheme.addBOS
	}
	v.AddBOS = k.bool(ggml+addKeys["bos"], bos) && v.BOS != None
	v.AddEOS = k.bool(ggml+addKeys["eos"], false) && v.EOS != None
	if v.Kind == Unigram {
		v.sayAll(&k)
	}
	v.Keys = tensor.Meta(k)
	return nil
}

// sayAll writes what llama.cpp would otherwise take to be as in T5.
func (v *Vocab) sayAll(k *keys) {
	for _, s := range specials() {
		if id := *s.id(v); id != None {
			k.set(ggml+s.gguf, uint32(id))
		}
	}
	k.set(ggml+addKeys["bos"], v.AddBOS)
	k.set(ggml+addKeys["eos"], v.AddEOS)
}

// writeExtra writes the special tokens of the family, with those of their names
// that the files have, and once more what the files say of others.
func (d *dirReader) writeExtra(k *keys) error {
	rules := d.o.Rules
	if len(rules.Extra) == 0 || rules.ExtraSize != 0 && rules.ExtraSize != int64(d.o.Size) {
		return nil
	}
	s := specialVocab{limit: len(d.v.Pieces)}
	for _, e := range rules.Extra {
		s.types = append(s.types, e.Name)
	}
	if err := s.load(d.tokenizer, d.config, d.model, d.templates); err != nil {
		return fmt.Errorf("%s: %w: %v", filepath.Join(d.dir, "tokenizer_config.json"), tensor.ErrMalformed, err)
	}
	for _, e := range rules.Extra {
		id, _ := json.Marshal(e.ID)
		s.set(e.Name, id)
	}
	s.templates = nil
	s.write(k, false)
	return nil
}

func (d *dirReader) setTemplates(list []ChatTemplate) {
	for _, t := range list {
		switch {
		case t.Name == defaultTemplate:
			d.v.ChatTemplate = t.Template
		case t.Name != "":
			d.v.ChatTemplates = slices.DeleteFunc(d.v.ChatTemplates, func(old ChatTemplate) bool { return old.Name == t.Name })
			d.v.ChatTemplates = append(d.v.ChatTemplates, t)
		}
	}
}

// maxHoles bounds the ids without a token, beside as many as there are tokens.
const maxHoles = 1 << 16

// checkHoles returns an error if a vocabulary of size with so many tokens would be
// little but holes.
func (d *dirReader) checkHoles(size, tokens int) error {
	if size < 2*tokens+maxHoles {
		return nil
	}
	return fmt.Errorf("%s: %w: %d tokens in a vocabulary of %d", d.dir, tensor.ErrMalformed, tokens, size)
}

// pad is the piece of an id without one.
func pad(i int) Piece { return Piece{Text: fmt.Sprintf("[PAD%d]", i), Score: padScore, Type: Unused} }

// addedTokens returns added_tokens_decoder of tokenizer_config.json, nil if it has
// none.
func (d *dirReader) addedTokens() ([]bpe.Added, error) {
	v, ok := d.config["added_tokens_decoder"]
	if !ok || v.Kind() == 'n' {
		return nil, nil
	}
	path := filepath.Join(d.dir, "tokenizer_config.json")
	var file map[string]jsontext.Value
	if err := json.Unmarshal(v, &file); err != nil {
		return nil, fmt.Errorf("%s: %w: added_tokens_decoder: %v", path, tensor.ErrMalformed, err)
	}
	tokens := []bpe.Added{}
	for key, v := range file {
		id, err := parseID(key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: added_tokens_decoder has the id %q", path, tensor.ErrMalformed, key)
		}
		a := bpe.Added{Normalized: true}
		if err := json.Unmarshal(v, &a); err != nil {
			return nil, fmt.Errorf("%s: %w: added token %d: %v", path, tensor.ErrMalformed, id, err)
		}
		a.ID = id
		tokens = append(tokens, a)
	}
	slices.SortFunc(tokens, func(a, b bpe.Added) int { return int(a.ID) - int(b.ID) })
	return tokens, nil
}

// readJSON reads a JSON file into to, and returns its text, nil if there is none.
func readJSON(path string, to any) ([]byte, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return nil, malformedJSON(path, err)
	}
	return data, nil
}

func malformedJSON(path string, err error) error {
	text := err.Error()
	return fmt.Errorf("%s: %w: %s", path, tensor.ErrMalformed, text[:min(len(text), 200)])
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: %w: %d bytes; at most %d are read", path, tensor.ErrMalformed, info.Size(), maxFile)
	}
	data, err := safeio.ReadN(f, uint64(info.Size()))
	if err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("%s: became shorter while it was read", path)
	}
	return data, err
}
