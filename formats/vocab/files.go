package vocab

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/tensor"
)

// TokenID is a special token by its name in Hugging Face's files, as in
// "bos_token_id".
type TokenID struct {
	Name string
	ID   int32
}

// ConfigIDs returns the special tokens of the metadata that the files of Files do
// not say, so that config.json has to.
func (v *Vocab) ConfigIDs() []TokenID {
	var out []TokenID
	for _, t := range v.declared() {
		if !v.inConfig(t) {
			out = append(out, t)
		}
	}
	return out
}

// declared returns the special tokens of the metadata in its order. Those that
// Hugging Face's files have no name for are not among them.
func (v *Vocab) declared() []TokenID {
	var out []TokenID
	for _, kv := range v.keys() {
		id, ok := kv.Value.(uint32)
		if !ok || int64(id) >= int64(len(v.Pieces)) {
			continue
		}
		for _, name := range allSpecials {
			if key, ok := idKeys[name]; ok && kv.Key == ggml+key {
				out = append(out, TokenID{name, int32(id)})
			}
		}
	}
	return out
}

// inConfig reports whether tokenizer_config.json gives a special token of the
// metadata: if it is an added token, and comes in the order in which the converter
// looks for them there. The others have to come from config.json.
func (v *Vocab) inConfig(t TokenID) bool {
	if v.Kind == BPE && v.Spec == nil {
		return false // there is no tokenizer.json to find it in
	}
	last := -1
	for _, other := range v.declared() {
		place := slices.Index(allSpecials, other.Name)
		if place < last || !v.Pieces[other.ID].taken() {
			return false
		}
		if last = place; other == t {
			return true
		}
	}
	return false
}

// Files returns the files of a Hugging Face directory that say the same as v, by
// name: tokenizer.json and tokenizer_config.json; for kind SPM tokenizer.model, and
// added_tokens.json for what has its place only there; for GPT-2's tokenizer also
// vocab.json and merges.txt. A vocabulary with a Pre that is not known has these
// instead of a tokenizer.json, and no class that splits text by them.
// transformers 4 and 5 split text by them as v does. llama.cpp's converter and
// OpenDir make the same metadata of them again, with the ids of ConfigIDs in
// config.json, but for what Lost returns, and for keys that were absent and are then
// what llama.cpp takes them for. It fails as MarshalSentencePiece does.
func (v *Vocab) Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	spec := v.Spec
	if v.scored() && spec == nil {
		spec = v.spmSpec()
		// One with a tab for <0x09> comes from a tokenizer.json.
		if spec == nil || !v.ByteFallback || v.bytePieces() == 256 {
			var err error
			if files["tokenizer.model"], err = MarshalSentencePiece(v); err != nil {
				return nil, err
			}
		}
	}
	// Without tokenizer.json that class cannot be loaded, rather than split text in
	// a way that was guessed.
	class := "PreTrainedTokenizerFast"
	switch {
	case v.scored() && spec == nil:
		class = "LlamaTokenizer" // which reads tokenizer.model
	case v.Kind == BPE && spec != nil && v.isGPT2():
		class = "GPT2Tokenizer"
	}
	if v.Kind == BPE && (spec == nil || class == "GPT2Tokenizer") {
		if err := v.bpeFiles(files); err != nil {
			return nil, err
		}
	}
	literal := v.literal()
	if len(literal) > 0 {
		text, err := json.Marshal(literal, json.Deterministic(true))
		if err != nil {
			return nil, err
		}
		files["added_tokens.json"] = text
	}
	config := v.tokenizerConfig(class, literal)
	if spec != nil {
		shown := *spec
		shown.PostProcessor = v.postProcessor(spec, config)
		var err error
		if files["tokenizer.json"], err = shown.Marshal(); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(config, json.Deterministic(true), jsontext.WithIndent("  "))
	files["tokenizer_config.json"] = append(text, '\n')
	return files, err
}

// isGPT2 reports whether transformers' class of GPT-2 splits text as v does.
func (v *Vocab) isGPT2() bool {
	_, ok := v.Spec.PreTokenizer.(*bpe.ByteLevel)
	return ok && v.Spec.Normalizer == nil && !v.Spec.Model.IgnoreMerges
}

// bpeFiles writes vocab.json and merges.txt.
func (v *Vocab) bpeFiles(files map[string][]byte) error {
	vocab := bpe.Vocabulary{}
	for i, p := range v.Pieces {
		if !p.isPad(i) {
			vocab[p.Text] = int32(i)
		}
	}
	text, err := json.Marshal(vocab, json.Deterministic(true))
	files["vocab.json"] = text
	files["merges.txt"] = []byte("#version: 0.2\n" + strings.Join(v.Merges, "\n") + "\n")
	return err
}

// literal returns the added tokens that the converter leaves as they are only if
// they are in added_tokens.json.
func (v *Vocab) literal() map[string]int32 {
	tokens := map[string]int32{}
	for i, p := range v.Pieces {
		if v.scored() && p.Added && p.Type == UserDefined && strings.Contains(p.Text, Space) {
			tokens[p.Text] = int32(i)
		}
	}
	return tokens
}

func (v *Vocab) tokenizerConfig(class string, literal map[string]int32) map[string]any {
	c := map[string]any{
		"clean_up_tokenization_spaces": false,
		"tokenizer_class":              class,
	}
	for _, name := range []string{"bos", "eos", "unk"} { // which the class of GPT-2 has names for
		if class == "GPT2Tokenizer" {
			c[name+"_token"] = nil
		}
	}
	if v.scored() {
		c["legacy"] = v.Legacy
	}
	if add, ok := tensor.Lookup[bool](v.Keys, keyPrefix); ok {
		c["add_prefix_space"] = add
	} else if v.Keys == nil && v.scored() && !v.AddSpacePrefix {
		c["add_prefix_space"] = false
	}
	v.configTokens(c)
	added := map[string]any{}
	for i, p := range v.Pieces {
		if _, ok := literal[p.Text]; !p.Added || ok {
			continue
		}
		a := p.addedToken(int32(i), v.Kind)
		added[strconv.Itoa(i)] = map[string]any{
			"content":     a.Content,
			"lstrip":      a.LStrip,
			"normalized":  a.Normalized,
			"rstrip":      a.RStrip,
			"single_word": a.SingleWord,
			"special":     a.Special,
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

// configTokens names the special tokens by their text. For kind SPM llama.cpp
// knows some that the metadata does not name.
func (v *Vocab) configTokens(c map[string]any) {
	declared := v.declared()
	for _, t := range declared {
		if v.inConfig(t) {
			c[t.Name+"_token"] = v.text(t.ID)
		}
	}
	if !v.scored() {
		return
	}
	for _, s := range specials() {
		id := *s.id(v)
		named := slices.ContainsFunc(declared, func(t TokenID) bool { return t.Name == s.name })
		if id != None && !named && v.Pieces[id].taken() {
			c[s.name+"_token"] = v.text(id)
		}
	}
}

// addFlags returns whether bos, eos and sep are added by the metadata, in its
// order.
func (v *Vocab) addFlags() []named[bool] {
	var out []named[bool]
	for _, kv := range v.keys() {
		for name, key := range addKeys {
			if value, ok := kv.Value.(bool); ok && kv.Key == ggml+key {
				out = append(out, named[bool]{name, value})
			}
		}
	}
	return out
}

// postProcessor returns the post-processor of tokenizer.json, and sets the keys of
// tokenizer_config.json that belong to it: one that adds bos and eos as v does, and
// of which llama.cpp's converter makes the flags that the metadata has, in their
// order. The converter looks at templates that are at most one sequence deep: where
// none will do, the template is put deeper.
func (v *Vocab) postProcessor(spec *bpe.Spec, config map[string]any) bpe.PostProcessor {
	flags := v.addFlags()
	for _, f := range flags {
		config["add_"+f.name+"_token"] = f.value
	}
	ends := v.ends(spec)
	hidden := bpe.PostProcessor(nil)
	if v.AddBOS || v.AddEOS {
		inner := &bpe.PostProcessorSequence{Type: "Sequence", Processors: []bpe.PostProcessor{ends}}
		hidden = &bpe.PostProcessorSequence{Type: "Sequence", Processors: []bpe.PostProcessor{inner}}
	}
	candidates := []bpe.PostProcessor{hidden, ends, v.pairOf(ends, nil)}
	for _, middle := range []string{v.text(v.BOS), v.text(v.EOS), v.text(v.SEP)} {
		if middle != "" {
			candidates = append(candidates, v.pairOf(ends, v.piece(spec, ends, middle)))
		}
	}
	if v.AddBOS && v.AddEOS {
		bos, eos := bpe.EndToken{Text: v.text(v.BOS), ID: v.BOS}, bpe.EndToken{Text: v.text(v.EOS), ID: v.EOS}
		no := false
		candidates = append(candidates, &bpe.Ends{Type: "RobertaProcessing", Sep: eos, Cls: bos, TrimOffsets: &no, AddPrefixSpace: &no})
	}
	for _, c := range candidates {
		if v.makes(flags, spec, config, c) {
			return c
		}
	}
	return hidden
}

// pairOf returns the template with another way to put two texts together: with a
// token between them, or nothing.
func (v *Vocab) pairOf(t *bpe.Template, middle []bpe.TemplatePiece) *bpe.Template {
	again := *t
	single := t.Single
	at := slices.IndexFunc(single, func(p bpe.TemplatePiece) bool { return p.Sequence != nil })
	second := []bpe.TemplatePiece{{Sequence: &bpe.TemplateRef{ID: "B", TypeID: 1}}}
	again.Pair = slices.Concat(single[:at+1], middle, second, single[at+1:])
	return &again
}

// piece adds a token to the template's list and returns it as a part of one.
func (v *Vocab) piece(spec *bpe.Spec, t *bpe.Template, text string) []bpe.TemplatePiece {
	for name, s := range template(spec, text, "").SpecialTokens {
		t.SpecialTokens[name] = s
	}
	return []bpe.TemplatePiece{{SpecialToken: &bpe.TemplateRef{ID: text}}}
}

// makes reports whether the converter makes the special tokens and flags of the
// metadata of the files.
func (v *Vocab) makes(flags []named[bool], spec *bpe.Spec, config map[string]any, p bpe.PostProcessor) bool {
	ids := map[string]int32{}
	for _, t := range v.ConfigIDs() {
		ids[t.Name+"_token_id"] = t.ID
	}
	parts := make([]members, 3)
	for i, part := range []any{map[string]any{"post_processor": p, "added_tokens": spec.Added}, config, ids} {
		text, err := json.Marshal(part)
		if err != nil || json.Unmarshal(text, &parts[i]) != nil {
			return false
		}
	}
	s := specialVocab{types: allSpecials, limit: len(v.Pieces)}
	if s.load(parts[0], parts[1], parts[2], nil) != nil {
		return false
	}
	s.add = slices.DeleteFunc(s.add, func(n named[bool]) bool { return addKeys[n.name] == "" })
	if !slices.Equal(s.add, flags) {
		return false
	}
	want := v.declared()
	var got []TokenID
	for _, n := range s.ids {
		if slices.ContainsFunc(want, func(t TokenID) bool { return t.Name == n.name }) {
			got = append(got, TokenID{n.name, int32(n.value)})
		}
	}
	return slices.Equal(want, got)
}

// Lost returns the keys of the metadata that Hugging Face's files have no place
// for.
func (v *Vocab) Lost() []string {
	var lost []string
	for _, kv := range v.Keys {
		if v.Kind == Unigram && (kv.Key == keyRemove || kv.Key == keyCharsmap) {
			continue // tokenizer.model has them
		}
		name, isGGML := strings.CutPrefix(kv.Key, ggml)
		known := slices.Contains([]string{keyModel, keyPre, keyTokens, keyScores, keyTypes, keyMerges, keyPrefix, keyTemplate, keyTemplates}, kv.Key) ||
			strings.HasPrefix(kv.Key, keyTemplate+".")
		for _, typ := range allSpecials {
			known = known || isGGML && (name == idKeys[typ] || name == addKeys[typ]) && name != ""
		}
		if !known {
			lost = append(lost, kv.Key)
		}
	}
	return lost
}

// spmSpec is the tokenizer.json of a SentencePiece vocabulary, as transformers
// converts one; nil for one with settings that it leaves out.
func (v *Vocab) spmSpec() *bpe.Spec {
	switch {
	case v.Kind == Unigram && v.EscapeWhitespaces:
		return v.unigramSpec()
	case v.RemoveExtraWhitespaces || !v.EscapeWhitespaces || len(v.Charsmap) > 0:
		return nil
	}
	spec := &bpe.Spec{Decoder: fallbackDecoder(v.AddSpacePrefix)}
	switch {
	case v.AddSpacePrefix && v.Legacy:
		spec.Normalizer = &bpe.NormalizerSequence{Type: "Sequence", Normalizers: []bpe.Normalizer{
			&bpe.Prepend{Type: "Prepend", Prepend: Space}, spaceNormalizer(),
		}}
	case v.AddSpacePrefix:
		spec.PreTokenizer = &bpe.Metaspace{Type: "Metaspace", Replacement: Space, PrependScheme: "first"}
	default:
		spec.Normalizer = spaceNormalizer()
	}
	spec.Model = bpe.Model{Vocab: bpe.Vocabulary{}, FuseUnk: true, ByteFallback: v.ByteFallback}
	v.addPieces(spec)
	v.allPieces(spec)
	spec.Model.Merges = v.spmMerges()
	return spec
}

// allPieces enters all pieces in the vocabulary, as SentencePiece has them.
func (v *Vocab) allPieces(spec *bpe.Spec) {
	for i, p := range v.Pieces {
		if !p.isPad(i) {
			spec.Model.Vocab[p.Text] = int32(i)
		}
		if p.Type == Unknown {
			spec.Model.Unk = p.Text
		}
	}
}

// unigramSpec is what transformers' SpmConverter makes of a model of that type. It
// differs from SentencePiece in how it applies the rules of normalization: to clusters
// of characters. Places without a piece have one here, because a token's id is its
// place.
func (v *Vocab) unigramSpec() *bpe.Spec {
	spec := &bpe.Spec{Model: bpe.Model{Type: bpe.Unigram, Vocab: bpe.Vocabulary{}, ByteFallback: v.ByteFallback}}
	v.addPieces(spec)
	v.allPieces(spec)
	for i, p := range v.Pieces {
		spec.Model.Vocab[p.Text] = int32(i)
		spec.Model.Scores = append(spec.Model.Scores, float64(p.Score))
	}
	n := &bpe.NormalizerSequence{Type: "Sequence", Normalizers: []bpe.Normalizer{}}
	if len(v.Charsmap) > 0 {
		n.Normalizers = append(n.Normalizers, &bpe.Precompiled{Type: "Precompiled", Charsmap: v.Charsmap})
	}
	if v.RemoveExtraWhitespaces {
		n.Normalizers = append(n.Normalizers, &bpe.StripText{Type: "Strip", Right: true}, &bpe.Replace{Type: "Replace", Pattern: bpe.Regex(" {2,}"), Content: Space})
	}
	m := &bpe.Metaspace{Type: "Metaspace", Replacement: Space, PrependScheme: "never", Split: true}
	switch {
	case v.AddSpacePrefix && v.Legacy:
		m.PrependScheme = "always"
	case v.AddSpacePrefix:
		m.PrependScheme = "first"
	}
	spec.Normalizer, spec.PreTokenizer, spec.Decoder = n, m, m
	if v.ByteFallback {
		spec.Decoder = &bpe.DecoderSequence{Type: "Sequence", Decoders: []bpe.Decoder{&bpe.PlainDecoder{Type: "ByteFallback"}, m}}
	}
	return spec
}

// spmMerges makes merges of the scores of pieces as transformers'
// generate_merges does: every two pieces that make a third, those that make the one
// of the highest score first, and of those the ones with the longest parts.
func (v *Vocab) spmMerges() [][2]string {
	ids := make(map[string]int32, len(v.Pieces))
	for i, p := range v.Pieces {
		if !p.isPad(i) {
			ids[p.Text] = int32(i)
		}
	}
	type pair struct {
		left, right string
		score       float32
		lens        [2]int
	}
	var all []pair
	for i, p := range v.Pieces {
		if p.isPad(i) {
			continue
		}
		first, chars, total := len(all), 0, utf8.RuneCountInString(p.Text)
		for k := range p.Text {
			if k > 0 {
				left, right := p.Text[:k], p.Text[k:]
				_, okLeft := ids[left]
				_, okRight := ids[right]
				if okLeft && okRight {
					all = append(all, pair{left, right, p.Score, [2]int{chars, total - chars}})
				}
			}
			chars++
		}
		slices.SortStableFunc(all[first:], func(a, b pair) int {
			return cmp.Or(cmp.Compare(ids[a.left], ids[b.left]), cmp.Compare(ids[a.right], ids[b.right]))
		})
	}
	slices.SortStableFunc(all, func(a, b pair) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.lens[0], a.lens[0]), cmp.Compare(b.lens[1], a.lens[1]))
	})
	merges := make([][2]string, len(all))
	for i, p := range all {
		merges[i] = [2]string{p.left, p.right}
	}
	return merges
}

func spaceNormalizer() bpe.Normalizer {
	return &bpe.Replace{Type: "Replace", Pattern: bpe.String(" "), Content: Space}
}

// fallbackDecoder is the decoder of a vocabulary with byte fallback. It takes the
// space away that was put in front of a text.
func fallbackDecoder(prefix bool) bpe.Decoder {
	d := &bpe.DecoderSequence{Type: "Sequence", Decoders: []bpe.Decoder{
		&bpe.Replace{Type: "Replace", Pattern: bpe.String(Space), Content: " "},
		&bpe.PlainDecoder{Type: "ByteFallback"}, &bpe.PlainDecoder{Type: "Fuse"},
	}}
	if prefix {
		d.Decoders = append(d.Decoders, &bpe.StripToken{Type: "Strip", Content: " ", Start: 1})
	}
	return d
}
