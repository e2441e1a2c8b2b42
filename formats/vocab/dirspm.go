package vocab

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// The scores that llama.cpp's converter gives to what SentencePiece did not
// score (conversion/base.py, _create_vocab_sentencepiece).
const (
	addedScore = -1000  // an added token
	padScore   = -10000 // a place without a token
)

// openSentencePiece reads tokenizer.model and what the JSON files add to it.
func (d *dirReader) openSentencePiece() error {
	path := filepath.Join(d.dir, "tokenizer.model")
	data, err := readFile(path)
	if err != nil {
		return err
	}
	notes := d.v.Notes
	if d.v, err = ParseSentencePiece(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d.v.Notes = notes
	switch {
	case d.v.Kind == Unigram:
		d.note("tokenizer.model is of type unigram: in GGUF it is written as \"t5\", by which llama.cpp splits text as SentencePiece does, and not as BPE, which its converter makes of it")
	case len(d.v.Charsmap) > 0 && !d.o.TextOnly:
		return hint.Add(fmt.Errorf("%s: %w: text normalization by rules of its own (%d bytes of precompiled_charsmap), which llama.cpp does not apply to BPE", path, tensor.ErrUnsupported, len(d.v.Charsmap)),
			"train and generate from the directory itself")
	}
	tokens, err := d.addedTokens()
	if err != nil {
		return err
	}
	size := d.o.Size
	if size == 0 {
		size = d.count(len(d.v.Pieces), tokens)
	}
	if err := d.checkHoles(size, len(d.v.Pieces)); err != nil {
		return err
	}
	d.fill(size)
	if err := d.addAll(tokens); err != nil {
		return err
	}
	if err := d.setSpecials(); err != nil {
		return err
	}
	d.setPrefix()
	return d.writeKeys()
}

// count returns how many of n pieces and the added tokens follow each other
// without a hole.
func (d *dirReader) count(n int, tokens []bpe.Added) int {
	ids := slices.Collect(maps.Values(d.added))
	for _, a := range tokens {
		ids = append(ids, int64(a.ID))
	}
	slices.Sort(ids)
	for _, id := range ids {
		if id == int64(n) {
			n++
		}
	}
	return n
}

// fill gives every id below size a piece, and drops those from there on.
func (d *dirReader) fill(size int) {
	v := d.v
	if n := len(v.Pieces); n > size {
		d.note("tokenizer.model has %d pieces and the model a vocabulary of %d: the last ones are left out", n, size)
		v.Pieces = v.Pieces[:size]
	}
	for i := len(v.Pieces); i < size; i++ {
		v.Pieces = append(v.Pieces, pad(i))
	}
}

// parseID reads an id. Those that no vocabulary has are all the same.
func parseID(s string) (int32, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 0 {
		return 0, strconv.ErrRange
	}
	return int32(min(id, math.MaxInt32)), nil
}

// addAll enters the added tokens: those of added_tokens.json, which are never
// special and keep their Space, then those of tokenizer_config.json, and for some
// families those of tokenizer.json.
func (d *dirReader) addAll(tokens []bpe.Added) error {
	plain := d.o.Rules.Plain
	for _, text := range slices.SortedFunc(maps.Keys(d.added), func(a, b string) int {
		return cmp.Or(cmp.Compare(d.added[a], d.added[b]), cmp.Compare(a, b))
	}) {
		id := d.added[text]
		if id < 0 {
			return fmt.Errorf("%s: %w: added token %q has the id %d", filepath.Join(d.dir, "added_tokens.json"), tensor.ErrMalformed, text, id)
		}
		d.add(bpe.Added{ID: int32(min(id, math.MaxInt32)), Content: text}, true)
	}
	for _, a := range tokens {
		if a.SingleWord {
			return fmt.Errorf("%s: %w: added token %q counts only as a whole word", filepath.Join(d.dir, "tokenizer_config.json"), tensor.ErrUnsupported, a.Content)
		}
		a.Special = a.Special || !plain && looksSpecial(a.Content)
		d.add(a, plain)
	}
	if !plain {
		return nil
	}
	for i, v := range list(d.tokenizer["added_tokens"]) {
		var a bpe.Added
		if err := json.Unmarshal(v, &a); err != nil || a.ID < 0 {
			return fmt.Errorf("%s: %w: added_tokens[%d]", filepath.Join(d.dir, "tokenizer.json"), tensor.ErrMalformed, i)
		}
		d.add(a, true)
	}
	return nil
}

// add enters one added token. What the vocabulary knows as the unknown piece or as
// a byte stays so, except in GGUF.
func (d *dirReader) add(a bpe.Added, literal bool) {
	if int(a.ID) >= len(d.v.Pieces) {
		d.note("added token %q has the id %d, and the vocabulary has %d tokens: left out", a.Content, a.ID, len(d.v.Pieces))
		return
	}
	typ := UserDefined
	switch {
	case a.Special:
		typ = Control
	case !literal:
		a.Content = strings.ReplaceAll(a.Content, Space, " ")
	}
	old := &d.v.Pieces[a.ID]
	p := Piece{Text: a.Content, Score: addedScore, Type: typ, Added: true, LStrip: a.LStrip, RStrip: a.RStrip}
	if old.Type == Unknown || old.Type == Byte && old.Text == a.Content {
		p.Type, p.gguf = old.Type, typ
	}
	*old = p
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

// setSpecials finds the special tokens: by the text that the JSON files give, else
// by the id that they give, else where tokenizer.model has them.
func (d *dirReader) setSpecials() error {
	tokens, _, err := d.hfTokens(class{})
	if err != nil {
		return err
	}
	byText := make(map[string]int32, len(d.v.Pieces))
	for i, p := range d.v.Pieces {
		byText[p.Text] = int32(i)
	}
	for _, s := range specials() {
		if id, ok := byText[tokens[s.name].text]; ok && tokens[s.name].text != "" {
			*s.id(d.v) = id
		} else if id, ok := d.configID(s.name); ok && id < int64(len(d.v.Pieces)) {
			*s.id(d.v) = int32(id)
		} else if id := s.id(d.v); int(*id) >= len(d.v.Pieces) {
			*id = None
		}
	}
	return nil
}

// setPrefix finds out whether a space is put in front of a text and of what comes
// after special tokens: from tokenizer_config.json, else from the parts of
// tokenizer.json, else from tokenizer.model.
func (d *dirReader) setPrefix() {
	v := d.v
	if legacy := flag(d.config["legacy"]); legacy != nil {
		v.Legacy = *legacy
	}
	add := flag(d.config["add_prefix_space"])
	switch {
	case add != nil:
		v.AddSpacePrefix = *add
	case d.tokenizer != nil:
		v.AddSpacePrefix, v.Legacy = d.jsonPrefix()
	}
	if d.o.Rules.NoPrefix {
		v.AddSpacePrefix = false
	}
}

// jsonPrefix reads from tokenizer.json what a converted SentencePiece model has
// there: a normalizer Prepend, or a pre-tokenizer Metaspace.
func (d *dirReader) jsonPrefix() (prefix, legacy bool) {
	n := object(d.tokenizer["normalizer"])
	for _, v := range append(list(n["normalizers"]), d.tokenizer["normalizer"]) {
		if m := object(v); str(m["type"]) == "Prepend" && str(m["prepend"]) == Space {
			return true, true
		}
	}
	if m := object(d.tokenizer["pre_tokenizer"]); str(m["type"]) == "Metaspace" {
		add := flag(m["add_prefix_space"])
		scheme := cmp.Or(str(m["prepend_scheme"]), "always")
		return scheme != "never" && (add == nil || *add), scheme == "always"
	}
	return false, false
}
