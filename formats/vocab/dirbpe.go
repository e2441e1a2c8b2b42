package vocab

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// openByteLevel reads the tokenizer as transformers does and writes it as the
// converter's get_vocab_base and _set_vocab_gpt2.
func (d *dirReader) openByteLevel() error {
	v := d.v
	v.Kind = BPE
	spec, tok, err := d.openTokenizer()
	if err != nil {
		return err
	}
	if t := spec.Model.Type; t == bpe.Unigram || t == bpe.WordPiece {
		return d.openOther(spec, t)
	}
	v.Pre = d.o.Pre
	if v.Pre == "" {
		var note string
		if v.Pre, note, err = detectPre(tok); err != nil && !d.o.TextOnly {
			return fmt.Errorf("%s: %w", d.dir, err)
		}
		if note != "" {
			d.note("%s", note)
		}
	}
	pieces, err := d.hfPieces(spec, func(text string, id int32, a *bpe.Added) Piece { return d.byteLevelPiece(tok, text, id, a) })
	if err != nil {
		return err
	}
	v.Pieces = pieces
	d.cut(spec, len(pieces))
	v.Spec = spec
	v.Merges = ggufMerges(spec.Model.Merges)
	return d.writeKeys()
}

// openOther reads a tokenizer.json whose model is not BPE, which is only split by.
func (d *dirReader) openOther(spec *bpe.Spec, typ string) error {
	v := d.v
	if !d.o.TextOnly {
		return hint.Add(fmt.Errorf("%s: %w: a tokenizer.json with a model of type %s, for GGUF", d.dir, tensor.ErrUnsupported, typ),
			"put the SentencePiece model that it was made from beside it, as tokenizer.model")
	}
	v.Kind = map[string]Kind{bpe.Unigram: Unigram, bpe.WordPiece: WordPiece}[typ]
	v.ByteFallback = typ == bpe.Unigram && spec.Model.ByteFallback
	for b := range 256 {
		v.ByteFallback = v.ByteFallback && has(spec.Model.Vocab, fmt.Sprintf("<0x%02X>", b))
	}
	var err error
	v.Pieces, err = d.hfPieces(spec, func(text string, id int32, a *bpe.Added) Piece {
		p := Piece{Text: text, Type: Normal}
		if int(id) < len(spec.Model.Scores) {
			p.Score = float32(spec.Model.Scores[id])
		}
		_, isByte := byteOf(text)
		switch {
		case text == spec.Model.Unk:
			p.Type = Unknown
		case isByte && v.ByteFallback:
			p.Type = Byte
		case a != nil && a.Special:
			p.Type = Control
		case a != nil:
			p.Type = UserDefined
		}
		if a != nil {
			p.Added, p.LStrip, p.RStrip = true, a.LStrip, a.RStrip
		}
		return p
	})
	if err != nil {
		return err
	}
	if n := len(spec.Model.Vocab); n > len(v.Pieces) {
		return fmt.Errorf("%s: %w: a tokenizer of %d tokens for a model with a vocabulary of %d", d.dir, tensor.ErrUnsupported, n, len(v.Pieces))
	}
	d.cut(spec, len(v.Pieces))
	v.Spec = spec
	return d.writeKeys()
}

// openTokenizer makes transformers' tokenizer of the directory.
func (d *dirReader) openTokenizer() (*bpe.Spec, *bpe.Tokenizer, error) {
	spec, err := d.openHF()
	if err != nil {
		return nil, nil, err
	}
	tok, err := bpe.New(spec)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: the tokenizer: %w", d.dir, err)
	}
	return spec, tok, nil
}

// hfPieces makes a piece of every token of a tokenizer, by id.
func (d *dirReader) hfPieces(spec *bpe.Spec, piece func(text string, id int32, a *bpe.Added) Piece) ([]Piece, error) {
	type token struct {
		text  string
		added *bpe.Added
	}
	byID := make(map[int32]token, len(spec.Model.Vocab)+len(spec.Added))
	last := int32(-1)
	for text, id := range spec.Model.Vocab {
		byID[id] = token{text: text}
		last = max(last, id)
	}
	for i := range spec.Added {
		a := &spec.Added[i]
		if old, ok := byID[a.ID]; ok && old.text != a.Content {
			return nil, fmt.Errorf("%s: %w: tokens %q and %q both have the id %d", d.dir, tensor.ErrMalformed, old.text, a.Content, a.ID)
		}
		byID[a.ID] = token{a.Content, a}
		last = max(last, a.ID)
	}
	size := d.o.Size
	if size == 0 {
		size = int(last) + 1
	}
	if err := d.checkHoles(size, len(byID)); err != nil {
		return nil, err
	}
	if beyond := int(last) + 1 - size; beyond > 0 {
		d.note("the tokenizer has ids up to %d and the model a vocabulary of %d: the tokens from there on are left out", last, size)
	}
	pieces := make([]Piece, size)
	for i := range pieces {
		t, ok := byID[int32(i)]
		if !ok {
			pieces[i] = pad(i)
			if d.v.Kind == BPE {
				pieces[i].Score = 0
			}
			continue
		}
		pieces[i] = piece(t.text, int32(i), t.added)
	}
	return pieces, nil
}

// byteLevelPiece is get_vocab_base's rule for one token. llama.cpp looks for added
// tokens in text, so that their text is what they are decoded to.
func (d *dirReader) byteLevelPiece(tok *bpe.Tokenizer, text string, id int32, a *bpe.Added) Piece {
	if a == nil {
		return Piece{Text: text, Type: Normal}
	}
	if !a.Normalized {
		text = tok.Decode(tok.Encode(text, true), false)
		if clean := flag(d.config["clean_up_tokenization_spaces"]); clean != nil && *clean {
			text = cleanUp(text)
		}
	}
	p := Piece{Text: text, Type: Control, Added: true, LStrip: a.LStrip, RStrip: a.RStrip}
	if !a.Special && !looksSpecial(text) {
		p.Text, p.Type = strings.ReplaceAll(text, Space, " "), UserDefined
	}
	return p
}

// cleanUp is what transformers does to decoded text if clean_up_tokenization_spaces
// is set.
func cleanUp(text string) string {
	for _, r := range [][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		text = strings.ReplaceAll(text, r[0], r[1])
	}
	return text
}

// cut drops the tokens of ids from size on, and the merges that need them.
func (d *dirReader) cut(spec *bpe.Spec, size int) {
	for _, s := range specials() {
		if id := s.id(d.v); int(*id) >= size {
			*id = None
		}
	}
	n := len(spec.Model.Vocab)
	for text, id := range spec.Model.Vocab {
		if int(id) >= size {
			delete(spec.Model.Vocab, text)
		}
	}
	spec.Added = slices.DeleteFunc(spec.Added, func(a bpe.Added) bool { return int(a.ID) >= size })
	if len(spec.Model.Vocab) == n {
		return
	}
	spec.Model.Merges = slices.DeleteFunc(spec.Model.Merges, func(m [2]string) bool { return !mergeable(spec.Model.Vocab, m[0], m[1]) })
	if _, ok := spec.Model.Vocab[spec.Model.Unk]; !ok {
		spec.Model.Unk = ""
	}
}

func mergeable(vocab bpe.Vocabulary, left, right string) bool {
	for _, text := range []string{left, right, left + right} {
		if _, ok := vocab[text]; !ok {
			return false
		}
	}
	return true
}

// ggufMerges returns merges as GGUF has them: the two tokens with a space between
// them. A space in a token is written as byte-level BPE does.
func ggufMerges(merges [][2]string) []string {
	out := make([]string, len(merges))
	for i, m := range merges {
		left, right := m[0], m[1]
		if strings.Contains(left, " ") || strings.Contains(right, " ") {
			left, right = strings.ReplaceAll(left, " ", "Ġ"), strings.ReplaceAll(right, " ", "Ġ")
		}
		out[i] = left + " " + right
	}
	return out
}

// openByteFallback reads a tokenizer.json with byte fallback, and writes it as a
// SentencePiece vocabulary, as the converter's LlamaHfVocab does but for the scores.
func (d *dirReader) openByteFallback() error {
	v := d.v
	spec, _, err := d.openTokenizer()
	if err != nil {
		return err
	}
	scores, exact := mergeScores(spec)
	base := int32(len(spec.Model.Vocab))
	v.Pieces, err = d.hfPieces(spec, func(text string, id int32, a *bpe.Added) Piece {
		p := Piece{Text: text, Score: addedScore, Type: Normal}
		if score, ok := scores[id]; ok {
			p.Score = score
		}
		if a != nil {
			p.Added, p.LStrip, p.RStrip = true, a.LStrip, a.RStrip
		}
		_, isByte := byteOf(text)
		switch {
		case isByte && id < base:
			p.Type = Byte
		case d.special[text]:
			p.Type = Control
		case id >= base:
			p.Type = UserDefined
		}
		return p
	})
	if err != nil {
		return err
	}
	if !exact {
		d.note("tokenizer.json has merges that scores of tokens cannot say: llama.cpp may split some text differently")
	}
	d.cut(spec, len(v.Pieces))
	v.Spec = spec
	v.ByteFallback = true
	v.AddSpacePrefix, v.Legacy = d.jsonPrefix()
	v.RemoveExtraWhitespaces, v.Normalizer = false, "identity"
	return d.writeKeys()
}

// mergeScores returns scores by which joining the pair that makes the token of the
// highest score first does what joining the pair of the lowest rank first does: the
// tokens in the order of their first merges, from 0 down. That is how SentencePiece
// numbers the pieces it trains. It is exact if all merges that make a token follow
// each other, and every two tokens that make one are a merge; but for text such as
// "aaaa" of the symbols a, aa and a, where the first two and the last two make the
// same: SentencePiece takes the first two then, and BPE those of the lower rank.
func mergeScores(spec *bpe.Spec) (scores map[int32]float32, exact bool) {
	vocab := spec.Model.Vocab
	scores = make(map[int32]float32)
	pairs := make(map[int32]int)
	exact = true
	last := int32(-1)
	for _, m := range spec.Model.Merges {
		id, ok := vocab[m[0]+m[1]]
		if !ok {
			continue
		}
		if _, ok := scores[id]; !ok {
			scores[id] = -float32(len(scores))
		} else if id != last {
			exact = false
		}
		pairs[id]++
		last = id
	}
	for text, id := range vocab {
		ways := 0
		for i := range text {
			if i > 0 && has(vocab, text[:i]) && has(vocab, text[i:]) {
				ways++
			}
		}
		if _, made := scores[id]; made && ways != pairs[id] {
			exact = false
		}
	}
	return scores, exact && len(spec.Model.Merges) < math.MaxInt32
}

func has(vocab bpe.Vocabulary, text string) bool {
	_, ok := vocab[text]
	return ok
}
