package vocab

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/formats/vocab/unigram"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// IsGGUFKey reports whether a GGUF metadata key describes the tokenizer.
func IsGGUFKey(key string) bool { return strings.HasPrefix(key, "tokenizer.") }

// GGUF returns the vocabulary as GGUF metadata: the tokenizer.* keys of Keys. For a
// vocabulary that has none they are those of a converted one: what the pieces say,
// the special tokens, and whether bos and eos are added.
func (v *Vocab) GGUF() tensor.Meta { return v.written(v.keys()) }

func (v *Vocab) keys() keys {
	if v.Keys == nil {
		return v.ownKeys()
	}
	return keys(v.Keys)
}

// ownKeys are the keys of a vocabulary that comes from no file that has them.
func (v *Vocab) ownKeys() keys {
	var k keys
	if v.Kind == SPM && !v.AddSpacePrefix {
		k.set(keyPrefix, false)
	}
	k.set(keyModel, string(v.Kind))
	k.set(keyPre, "default")
	if v.Kind == BPE {
		k.set(keyPre, v.Pre)
	}
	k.set(keyTokens, nil)
	if v.scored() {
		k.set(keyScores, nil)
	}
	k.set(keyTypes, nil)
	if v.Kind == Unigram {
		v.unigramKeys(&k)
	}
	if v.Kind == BPE {
		k.set(keyMerges, nil)
	}
	for _, s := range specials() {
		if id := *s.id(v); id != None {
			k.set(ggml+s.gguf, uint32(id))
		}
	}
	k.set(ggml+addKeys["bos"], v.AddBOS)
	k.set(ggml+addKeys["eos"], v.AddEOS)
	if v.scored() && v.RemoveExtraWhitespaces {
		k.set(keyRemove, true)
	}
	templates := v.ChatTemplates
	if v.ChatTemplate != "" {
		templates = append(slices.Clone(templates), ChatTemplate{defaultTemplate, v.ChatTemplate})
	}
	k.setTemplates(templates)
	return k
}

// unigramKeys are how text is normalized before it is split by probability
// (conversion/t5.py, set_vocab).
func (v *Vocab) unigramKeys(k *keys) {
	k.set(keyPrefix, v.AddSpacePrefix)
	k.set(keyRemove, v.RemoveExtraWhitespaces)
	if len(v.Charsmap) > 0 {
		k.set(keyCharsmap, v.Charsmap)
	}
}

// FromGGUF reads the tokenizer of a GGUF file from its metadata, with
// llama.cpp's defaults for what is absent; but where byte-level BPE names no bos or
// eos token there is none, and not its token 11. An id of 4294967295 counts as
// absent.
//
// It returns an error that wraps tensor.ErrUnsupported for any tokenizer.ggml.model
// other than "llama", "gpt2" and "t5", and one that wraps tensor.ErrMalformed and names
// the key if a value is missing, of the wrong type, or does not fit the others.
func FromGGUF(meta tensor.Meta) (*Vocab, error) {
	model, err := lookup[string](meta, keyModel)
	if err != nil {
		return nil, err
	}
	v := newVocab()
	v.Kind = Kind(model)
	v.RemoveExtraWhitespaces, v.Legacy, v.Normalizer = false, true, "identity"
	switch v.Kind {
	case SPM:
		err = v.ggufSPM(meta)
	case BPE:
		err = v.ggufBPE(meta)
	case Unigram:
		err = v.ggufUnigram(meta)
	default:
		err = hint.Add(fmt.Errorf("%w: %s is %q; only %s are known", tensor.ErrUnsupported, keyModel, model, knownKinds),
			"models with the tokenizers of Llama, Mistral, Qwen, Gemma up to 3, Phi 3, GPT-2 and T5 work")
	}
	if err != nil {
		return nil, err
	}
	if err := v.ggufTemplates(meta); err != nil {
		return nil, err
	}
	v.ggufKeys(meta)
	if err := v.Validate(); err != nil {
		return nil, err
	}
	return v, nil
}

// flags reads the settings that are booleans.
func (v *Vocab) flags(meta tensor.Meta) error {
	for _, f := range []struct {
		key string
		to  *bool
	}{
		{ggml + addKeys["bos"], &v.AddBOS}, {ggml + addKeys["eos"], &v.AddEOS},
		{keyPrefix, &v.AddSpacePrefix}, {keyRemove, &v.RemoveExtraWhitespaces},
	} {
		if err := optional(meta, f.key, f.to); err != nil {
			return err
		}
	}
	return nil
}

func (v *Vocab) ggufSPM(meta tensor.Meta) error {
	if _, ok := meta.Get(keyCharsmap); ok {
		return fmt.Errorf("%w: text normalization by rules of its own (%s), which llama.cpp does not apply", tensor.ErrUnsupported, keyCharsmap)
	}
	scores, err := lookup[[]float32](meta, keyScores)
	if err != nil {
		return err
	}
	if err := v.ggufPieces(meta, scores); err != nil {
		return err
	}
	v.ByteFallback = slices.ContainsFunc(v.Pieces, func(p Piece) bool { return p.Type == Byte })
	for i := range v.Pieces {
		// A byte that is an added token too is still the byte, as for llama.cpp.
		p := &v.Pieces[i]
		if _, ok := byteOf(p.Text); ok && v.ByteFallback && p.taken() {
			p.Type, p.gguf = Byte, p.Type
		}
	}
	n := int32(len(v.Pieces))
	v.BOS, v.EOS = below(1, n), below(2, n)
	if err := v.ggufSpecials(meta); err != nil {
		return err
	}
	v.ggufUnknown()
	return v.flags(meta)
}

// ggufUnigram reads a vocabulary of kind Unigram, of which llama.cpp has T5's
// special tokens unless the file says others.
func (v *Vocab) ggufUnigram(meta tensor.Meta) error {
	switch m, _ := meta.Get(keyCharsmap); m := m.(type) {
	case nil:
	case []uint8:
		v.Charsmap = m
	case []int8:
		v.Charsmap = make([]byte, len(m))
		for i, b := range m {
			v.Charsmap[i] = byte(b)
		}
	default:
		return fmt.Errorf("%w: %s is a %T; want bytes", tensor.ErrMalformed, keyCharsmap, m)
	}
	if len(v.Charsmap) > 0 {
		if _, err := unigram.ParseCharsmap(v.Charsmap); err != nil {
			return err
		}
	}
	scores, err := lookup[[]float32](meta, keyScores)
	if err != nil {
		return err
	}
	if err := v.ggufPieces(meta, scores); err != nil {
		return err
	}
	v.ByteFallback = slices.ContainsFunc(v.Pieces, func(p Piece) bool { return p.Type == Byte })
	n := int32(len(v.Pieces))
	v.EOS, v.UNK, v.PAD = below(1, n), below(2, n), below(0, n)
	v.AddBOS, v.AddEOS, v.AddSpacePrefix, v.Legacy = false, true, false, false
	if err := v.ggufSpecials(meta); err != nil {
		return err
	}
	v.ggufUnknown()
	err = v.flags(meta)
	v.AddBOS, v.AddEOS = v.AddBOS && v.BOS != None, v.AddEOS && v.EOS != None
	return err
}

// ggufUnknown finds the unknown piece: that of UNK, else the only one of that type,
// else 0. A converter that found it among the added tokens wrote it as a control
// token, and an old one wrote places without a token as further unknown ones.
func (v *Vocab) ggufUnknown() {
	id := int(v.UNK)
	if v.UNK == None {
		id = max(0, slices.IndexFunc(v.Pieces, func(p Piece) bool { return p.Type == Unknown }))
	}
	unk := &v.Pieces[id]
	switch unk.Type {
	case Control:
		unk.Type, unk.Added, unk.gguf = Unknown, true, Control
	case Unknown:
	default:
		return
	}
	if v.UNK == None {
		return
	}
	for i := range v.Pieces {
		if p := &v.Pieces[i]; p.Type == Unknown && i != id {
			p.Type, p.gguf = Unused, Unknown
		}
	}
}

// below returns id, None if a vocabulary of n has no such id.
func below(id, n int32) int32 {
	if id < n {
		return id
	}
	return None
}

// ggufPieces reads the tokens. Those of kind BPE have no scores.
func (v *Vocab) ggufPieces(meta tensor.Meta, scores []float32) error {
	tokens, err := lookup[[]string](meta, keyTokens)
	if err != nil {
		return err
	}
	types, err := lookup[[]int32](meta, keyTypes)
	if err != nil {
		return err
	}
	if v.Kind == BPE {
		scores = make([]float32, len(tokens))
	}
	if len(tokens) == 0 || len(scores) != len(tokens) || len(types) != len(tokens) {
		return fmt.Errorf("%w: %d %stokens with %d scores and %d token_types", tensor.ErrMalformed, len(tokens), ggml, len(scores), len(types))
	}
	v.Pieces = make([]Piece, len(tokens))
	for i := range v.Pieces {
		p := Piece{Text: tokens[i], Score: scores[i], Type: Type(max(0, min(types[i], 255)))}
		if p.Text == "" {
			p.Text = fmt.Sprintf("[EMPTY_%d]", i) // as llama.cpp names it
		}
		p.Added = p.Type == UserDefined || p.Type == Control && (v.Kind == BPE || p.Score == addedScore)
		v.Pieces[i] = p
	}
	return nil
}

func (v *Vocab) ggufSpecials(meta tensor.Meta) error {
	n := int32(len(v.Pieces))
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
	return nil
}

func (v *Vocab) ggufBPE(meta tensor.Meta) error {
	if err := optional(meta, keyPre, &v.Pre); err != nil {
		return err
	}
	var err error
	if v.Merges, err = lookup[[]string](meta, keyMerges); err != nil {
		return err
	}
	if err := v.ggufPieces(meta, nil); err != nil {
		return err
	}
	v.AddSpacePrefix, v.EscapeWhitespaces = false, false
	scheme, known := schemeOf(v.Pre)
	if err := v.ggufSpecials(meta); err != nil {
		return err
	}
	v.AddBOS = scheme.addBOS
	if err := v.flags(meta); err != nil {
		return err
	}
	v.AddBOS, v.AddEOS = v.AddBOS && v.BOS != None, v.AddEOS && v.EOS != None
	if !known || scheme.steps == nil {
		v.Notes = append(v.Notes, fmt.Sprintf("%s is %q, of which it is not known how it splits text: there is no tokenizer.json to make of it", keyPre, v.Pre))
		return nil
	}
	if v.Pre == "" || v.Pre == "default" {
		v.Notes = append(v.Notes, keyPre+" is not given: text is split as llama.cpp does then, which is probably not what the model was trained with")
	}
	v.Spec = v.specOf(scheme)
	return nil
}

// specOf makes the tokenizer of what GGUF says and what is known of its scheme.
func (v *Vocab) specOf(s scheme) *bpe.Spec {
	spec := &bpe.Spec{PreTokenizer: s.preTokenizer(), Decoder: byteDecoder()}
	spec.Model = bpe.Model{Vocab: make(bpe.Vocabulary, len(v.Pieces)), IgnoreMerges: s.ignoreMerges}
	if s.nfc {
		spec.Normalizer = &bpe.Plain{Type: "NFC"}
	}
	if s.chars {
		spec.Model.ByteFallback, spec.Model.FuseUnk = true, true
		spec.Normalizer, spec.Decoder = spaceNormalizer(), fallbackDecoder(false)
	}
	v.addPieces(spec)
	lost := 0
	for _, text := range v.Merges {
		merge, ok := cutMerge(spec.Model.Vocab, text)
		if !ok {
			lost++
			continue
		}
		spec.Model.Merges = append(spec.Model.Merges, merge)
	}
	if lost > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("%d of %d merges are of tokens that the vocabulary lacks", lost, len(v.Merges)))
	}
	if v.AddBOS || v.AddEOS {
		spec.PostProcessor = v.ends(spec)
	}
	if b, ok := spec.PreTokenizer.(*bpe.ByteLevel); ok {
		b.AddPrefixSpace = v.AddSpacePrefix
	}
	return spec
}

// addPieces enters the pieces in a tokenizer: those that were added after all
// others as such, and every other one with its id in the vocabulary. Ids without a
// token are left out.
func (v *Vocab) addPieces(spec *bpe.Spec) {
	tail := len(v.Pieces)
	for tail > 0 && v.Pieces[tail-1].isPad(tail-1) {
		tail--
	}
	for tail > 0 && v.Pieces[tail-1].taken() {
		tail--
	}
	for i, p := range v.Pieces {
		if p.isPad(i) {
			continue
		}
		if i < tail {
			spec.Model.Vocab[p.Text] = int32(i)
		}
	}
	if len(spec.Model.Vocab) != tail { // ids in the vocabulary do not follow each other
		for i, p := range v.Pieces {
			if !p.isPad(i) {
				spec.Model.Vocab[p.Text] = int32(i)
			}
		}
	}
	for i, p := range v.Pieces {
		if p.taken() {
			spec.Added = append(spec.Added, p.addedToken(int32(i), v.Kind))
		}
	}
}

// addedToken returns the added token of a piece. transformers decodes one that is
// not normalized as if it were of bytes: where that makes another text of it, it
// counts as normalized.
func (p Piece) addedToken(id int32, kind Kind) bpe.Added {
	a := bpe.Added{ID: id, Content: p.Text, LStrip: p.LStrip, RStrip: p.RStrip, Special: cmp.Or(p.gguf, p.Type) != UserDefined}
	if bytes, ok := bpe.Bytes(p.Text); kind == BPE && ok && bytes != p.Text {
		a.Normalized = true
	}
	return a
}

// taken reports whether a piece is found in text before it is split.
func (p Piece) taken() bool {
	return p.Type == Control || p.Type == Unknown || p.Type == UserDefined
}

// isPad reports whether a piece stands for an id that has none.
func (p Piece) isPad(i int) bool { return p.Type == Unused && p.Text == pad(i).Text }

// cutMerge returns the two tokens of a merge as llama.cpp finds them, or with the
// spaces that ggufMerges took from them, if there are such tokens.
func cutMerge(vocab bpe.Vocabulary, text string) (merge [2]string, ok bool) {
	if text == "" {
		return merge, false
	}
	left, right, ok := strings.Cut(text[1:], " ")
	merge = [2]string{text[:1] + left, right}
	if ok && !mergeable(vocab, merge[0], merge[1]) {
		merge[0], merge[1] = strings.ReplaceAll(merge[0], "Ġ", " "), strings.ReplaceAll(right, "Ġ", " ")
	}
	return merge, ok && mergeable(vocab, merge[0], merge[1])
}

// ends is the post-processor that adds bos and eos.
func (v *Vocab) ends(spec *bpe.Spec) *bpe.Template {
	front, back := "", ""
	if v.AddBOS {
		front = v.text(v.BOS)
	}
	if v.AddEOS {
		back = v.text(v.EOS)
	}
	return template(spec, front, back)
}

func (v *Vocab) ggufTemplates(meta tensor.Meta) error {
	if err := optional(meta, keyTemplate, &v.ChatTemplate); err != nil {
		return err
	}
	var names []string
	if err := optional(meta, keyTemplates, &names); err != nil {
		return err
	}
	for _, name := range names {
		text, err := lookup[string](meta, keyTemplate+"."+name)
		if err != nil {
			return err
		}
		v.ChatTemplates = append(v.ChatTemplates, ChatTemplate{name, text})
	}
	return nil
}

// ggufKeys notes the keys of the file, without what is in other fields.
func (v *Vocab) ggufKeys(meta tensor.Meta) {
	v.Keys = tensor.Meta{}
	for _, kv := range meta {
		if !IsGGUFKey(kv.Key) {
			continue
		}
		switch kv.Key {
		case keyTokens, keyTypes, keyMerges:
			kv.Value = nil
		case keyScores:
			if v.scored() {
				kv.Value = nil
			}
		}
		v.Keys = append(v.Keys, kv)
	}
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
