package vocab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

// Description is what can be said of a tokenizer without taking in its tokens and
// merges, which is most of the work of reading one.
type Description struct {
	// Type is how it makes tokens of text, as in "byte-level BPE".
	Type string

	// Tokens is the highest id and 1. The model may have more rows.
	Tokens int

	// ChatTemplate reports whether there is one.
	ChatTemplate bool
}

var typeNames = map[Kind]string{SPM: "SentencePiece BPE", BPE: "byte-level BPE", Unigram: "SentencePiece unigram", WordPiece: "WordPiece"}

// knownKinds are the values of tokenizer.ggml.model that are read.
const knownKinds = `"llama" (SentencePiece BPE), "gpt2" (byte-level BPE) and "t5" (SentencePiece unigram)`

// DescribeGGUF describes the tokenizer of a GGUF file, of whatever kind. An error
// says that there is none.
func DescribeGGUF(meta tensor.Meta) (*Description, error) {
	kind, err := lookup[string](meta, keyModel)
	if err != nil {
		return nil, err
	}
	tokens, err := lookup[[]string](meta, keyTokens)
	if err != nil {
		return nil, err
	}
	d := &Description{Type: typeNames[Kind(kind)], Tokens: len(tokens)}
	if d.Type == "" {
		d.Type = kind
	}
	_, d.ChatTemplate = meta.Get(keyTemplate)
	return d, nil
}

// DescribeDir describes the tokenizer that OpenDir would read. It takes others for
// what they are where OpenDir refuses them, and overlooks what is wrong in a file
// with what it does not need.
func DescribeDir(dir string, rules arch.Tokenizers) (*Description, error) {
	d := &dirReader{dir: dir, o: Options{Rules: rules}, v: newVocab()}
	if err := d.readSmallFiles(); err != nil {
		return nil, err
	}
	last := int64(-1)
	if err := skim(filepath.Join(dir, "tokenizer.json"), d.skimTokenizer(&last)); err != nil {
		return nil, err
	}
	kind, err := d.kind()
	if err != nil {
		return nil, err
	}
	chat := d.config["chat_template"].Kind()
	out := &Description{Type: typeNames[SPM], ChatTemplate: chat == '"' || chat == '[' || len(d.templates) > 0}
	switch kind {
	case arch.SentencePiece:
		last, err = out.sentencePiece(filepath.Join(dir, "tokenizer.model"))
	case arch.ByteLevel:
		out.Type = typeNames[BPE]
		if path := d.tikToken(); d.tokenizer == nil && path != "" && !exists(dir, "vocab.json") {
			last, err = out.sentencePiece(path)
		} else if d.tokenizer == nil {
			err = skim(filepath.Join(dir, "vocab.json"), func(dec *jsontext.Decoder) error { return skimIDs(dec, &last) })
		}
	}
	if err != nil {
		return nil, err
	}
	if t := str(d.tokenizer.get("model", "type")); kind != arch.SentencePiece && t != "" && t != "BPE" {
		out.Type = t
	}
	added, err := d.addedTokens()
	if err != nil {
		return nil, err
	}
	for _, a := range added {
		last = max(last, int64(a.ID))
	}
	for _, id := range d.added {
		last = max(last, id)
	}
	out.Tokens = int(min(last, math.MaxInt32-1)) + 1
	return out, nil
}

// sentencePiece describes a tokenizer.model and returns the last id.
func (d *Description) sentencePiece(path string) (int64, error) {
	data, err := readFile(path)
	if err != nil {
		return 0, err
	}
	if tiktokenLine.Match(data[:min(len(data), 256)]) {
		d.Type = "tiktoken"
		return int64(bytes.Count(data, []byte(" "))) - 1, nil
	}
	last, t := int64(-1), trainer{modelType: 1}
	err = eachField(data, func(f field) error {
		switch f.num {
		case modelPieces:
			last++
		case modelTrainer:
			return t.parse(f, newVocab())
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if t.modelType != modelTypeBPE {
		d.Type = strings.TrimSpace("SentencePiece " + modelTypes[t.modelType])
	}
	return last, nil
}

// errEnough stops the reading of a file.
var errEnough = errors.New("enough")

// skim reads the beginning of a JSON file, if there is one.
func skim(path string, read func(*jsontext.Decoder) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = read(jsontext.NewDecoder(io.LimitReader(f, maxFile), jsontext.AllowDuplicateNames(true)))
	if err == nil || err == errEnough {
		return nil
	}
	return malformedJSON(path, err)
}

// skimTokenizer reads the parts of tokenizer.json that tell of what kind it is, and
// the highest id. The merges come last and are most of it: they are left.
func (d *dirReader) skimTokenizer(last *int64) func(*jsontext.Decoder) error {
	return func(dec *jsontext.Decoder) error {
		d.tokenizer = members{}
		return eachMember(dec, func(t jsontext.Token) (err error) {
			switch name := t.String(); name {
			case "decoder":
				err = keep(dec, d.tokenizer, name)
			case "added_tokens":
				var list []struct {
					ID int64 `json:"id"`
				}
				err = json.UnmarshalDecode(dec, &list)
				for _, a := range list {
					*last = max(*last, a.ID)
				}
			case "model":
				err = d.skimModel(dec, last)
			default:
				err = dec.SkipValue()
			}
			return err
		})
	}
}

func (d *dirReader) skimModel(dec *jsontext.Decoder, last *int64) error {
	model, ids := members{}, false
	err := eachMember(dec, func(t jsontext.Token) error {
		switch name := t.String(); name {
		case "type", "byte_fallback":
			return keep(dec, model, name)
		case "vocab":
			ids = true
			return skimIDs(dec, last)
		case "merges":
			if ids && len(model) == 2 && d.tokenizer["decoder"] != nil {
				return errEnough
			}
		}
		return dec.SkipValue()
	})
	text, _ := json.Marshal(model)
	d.tokenizer["model"] = text
	return err
}

// skimIDs finds the highest id of a vocabulary: an object of ids, or an array of
// tokens in their order.
func skimIDs(dec *jsontext.Decoder, last *int64) error {
	if dec.PeekKind() == '[' {
		n := int64(-1)
		for _, err := dec.ReadToken(); dec.PeekKind() != ']'; n++ {
			if err = errors.Join(err, dec.SkipValue()); err != nil {
				return err
			}
		}
		*last = max(*last, n)
		_, err := dec.ReadToken()
		return err
	}
	return eachMember(dec, func(jsontext.Token) error {
		t, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if t.Kind() != '0' {
			return fmt.Errorf("a token's id is %v", t)
		}
		id, err := t.Int()
		*last = max(*last, id)
		return err
	})
}

// eachMember calls do with the name of every member of an object; do reads its
// value.
func eachMember(dec *jsontext.Decoder, do func(name jsontext.Token) error) error {
	if t, err := dec.ReadToken(); err != nil {
		return err
	} else if t.Kind() != '{' {
		return fmt.Errorf("%v is no object", t)
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err == nil {
			err = do(name)
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// keep reads a value into a member.
func keep(dec *jsontext.Decoder, m members, name string) error {
	v, err := dec.ReadValue()
	m[name] = v.Clone()
	return err
}
