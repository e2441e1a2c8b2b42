package vocab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// scheme is how text is split under one or more values of tokenizer.ggml.pre, as
// llama.cpp (src/llama-vocab.cpp, v0.5.0) takes them.
type scheme struct {
	names []string
	steps []bpe.PreTokenizer // before bytes are made characters; nil if they are not known

	ignoreMerges bool // a word that is a token is not split
	addBOS       bool // unless add_bos_token says otherwise

	// nfc says that the tokenizers of that name normalize text, which llama.cpp does
	// not.
	nfc bool

	// chars says that words are characters with Space for a space, not bytes.
	chars bool
}

// splits are steps that split by one pattern after another.
func splits(patterns ...string) []bpe.PreTokenizer {
	var steps []bpe.PreTokenizer
	for _, p := range patterns {
		steps = append(steps, &bpe.Split{Type: "Split", Pattern: bpe.Regex(p), Behavior: bpe.Isolated})
	}
	return steps
}

// gpt2Steps are steps that end with GPT-2's pattern.
func gpt2Steps(steps ...bpe.PreTokenizer) []bpe.PreTokenizer {
	return append(steps, &bpe.ByteLevel{Type: "ByteLevel", TrimOffsets: true, UseRegex: true})
}

func digits(individual bool) bpe.PreTokenizer {
	return &bpe.Digits{Type: "Digits", Individual: individual}
}

const (
	cjkPattern     = `[一-龥぀-ゟ゠-ヿ]+`
	cjkPattern2    = `[一-龥ࠀ-一가-퟿]+`
	number3Pattern = `\p{N}{1,3}`
	bloomPattern   = ` ?[^(\s|.,!?…。，、।۔،)]+`
	letterPattern  = `\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+`
)

// schemes are all that llama.cpp knows, those that are more common first: that is
// the order in which one is looked for that fits a tokenizer.json.
func schemes() []scheme {
	llama3 := splits(bpe.Llama3Pattern)
	qwen2 := splits(bpe.Qwen2Pattern)
	deepSeek3 := splits(number3Pattern, cjkPattern, bpe.DeepSeek3Pattern)
	gpt4o := splits(bpe.GPT4oPattern)
	falcon := append(gpt2Steps(&bpe.Punctuation{Type: "Punctuation", Behavior: bpe.Contiguous}), digits(false))
	return []scheme{
		{names: []string{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"}, steps: llama3, ignoreMerges: true, addBOS: true},
		{names: []string{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, steps: llama3},
		{names: []string{"qwen2"}, steps: qwen2, nfc: true},
		{names: []string{"deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"}, steps: qwen2},
		{names: []string{"qwen35"}, steps: splits(bpe.Qwen35Pattern), nfc: true},
		{names: []string{
			"gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert", "exaone4",
			"jina-v1-en", "jina-v2-code", "roberta-bpe", "mpt", "olmo", "jais", "trillion", "granite-docling",
		}, steps: gpt2Steps()},
		{names: []string{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}, steps: gpt2Steps(digits(true))},
		{names: []string{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, steps: gpt4o},
		{names: []string{"granite-embed-multi-97m"}, steps: gpt4o, ignoreMerges: true},
		{names: []string{"tekken"}, steps: splits(bpe.TekkenPattern), ignoreMerges: true, addBOS: true},
		{names: []string{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, steps: deepSeek3},
		{names: []string{"deepseek-llm"}, steps: append(splits("[\r\n]", letterPattern, `\s?[!-/:-~！-／：-～‘-‟　-。]+`, `\s+$`, cjkPattern2), digits(false))},
		{names: []string{"deepseek-coder"}, steps: append(splits("[\r\n]", `\s?\p{L}+`, `\s?\p{P}+`, cjkPattern2), digits(true))},
		{names: []string{"falcon"}, steps: append(falcon, splits("[0-9][0-9][0-9]")...)},
		{names: []string{"poro-chat", "bloom", "gpt3-finnish"}, steps: splits(bloomPattern)},
		{names: []string{"viking"}, steps: splits(bloomPattern, `\p{N}`)},
		{names: []string{"bailingmoe", "bailingmoe2", "llada-moe"}, steps: splits(
			`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`)},
		{names: []string{"seed-coder"}, steps: splits(`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`)},
		{names: []string{"jais-2"}, steps: splits(`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`)},
		{names: []string{"tiny_aya", "cohere2moe"}, steps: splits(`\d{1,3}(?=(?:\d{3})*\b)`, bpe.GPT4oPattern)},
		{names: []string{"superbpe"}, steps: splits(`\p{N}+`, `(?=(\d{3})+(?!\d))`)},
		{names: []string{"ufakzeka"}, steps: splits(`[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`)},
		{names: []string{"laguna"}, steps: append(splits(`[^\n]+|[\n]+`), qwen2...)},
		{names: []string{"exaone-moe"}, steps: splits(`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`)},
		{names: []string{"minicpm5"}, steps: splits(number3Pattern, `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`), ignoreMerges: true},
		{names: []string{"youtu"}, steps: splits(`[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+`,
			strings.Replace(bpe.GPT4oPattern, `\p{N}{1,3}`, `\p{N}`, 1)), ignoreMerges: true},
		{names: []string{"spark2_5"}, steps: splits(number3Pattern, cjkPattern, "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\r\n]|\\s+(?!\\S)|\\s+", `\p{N}`)},
		{names: []string{"afmoe"}, steps: splits(
			`\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))`, // groups of three, counted from the right
			`[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+`, bpe.DeepSeek3Pattern)},
		{names: []string{"chameleon"}, steps: append(splits(
			`<sentinel:[0-9]+>`, `(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z`, `([\t\n]|    |  )`, `\p{N}`, "[\\p{P}!-/:-@\\[-`{-~]"), gpt2Steps()...), addBOS: true},
		{names: []string{"default", ""}, steps: splits(`[\p{P}\$\+<=>\^~\|]+`, bpe.GPT2Pattern, `\p{N}+`, `[0-9][0-9][0-9]`)},
		{names: []string{"gemma4", "granite-embed-multi-311m"}, addBOS: true, chars: true,
			steps: []bpe.PreTokenizer{&bpe.Split{Type: "Split", Pattern: bpe.String(" "), Behavior: bpe.MergedWithPrevious}}},
		{names: []string{"sarvam-moe"}, chars: true,
			steps: []bpe.PreTokenizer{&bpe.Split{Type: "Split", Pattern: bpe.String(" "), Behavior: bpe.MergedWithPrevious}}},
		{names: []string{"kimi-k2", "whitespace"}}, // without merges, and of another model
	}
}

// schemeOf returns the scheme of a name.
func schemeOf(pre string) (scheme, bool) {
	for _, s := range schemes() {
		if slices.Contains(s.names, pre) {
			return s, true
		}
	}
	return scheme{}, false
}

// preNames returns every name that llama.cpp knows, in order.
func preNames() []string {
	names := map[string]bool{}
	for _, s := range schemes() {
		for _, name := range s.names {
			if name != "" {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// CheckPre returns an error unless llama.cpp knows the name.
func CheckPre(pre string) error {
	if pre == "" {
		return nil
	}
	if _, ok := schemeOf(pre); ok {
		return nil
	}
	return hint.Add(fmt.Errorf("unknown pre-tokenizer %q", pre), "llama.cpp knows %s", strings.Join(preNames(), ", "))
}

// detectPre returns the name under which llama.cpp splits text as a tokenizer
// does: by the digest of the tokens of checkText, as its converter, else by what the
// tokenizer's own files say, with a note.
func detectPre(tok *bpe.Tokenizer) (pre, note string, err error) {
	digest := preDigest(tok)
	if pre, ok := preHashes[digest]; ok {
		return pre, "", nil
	}
	spec := tok.Spec()
	for _, s := range schemes() {
		if s.fits(spec) {
			return s.names[0], fmt.Sprintf("tokenizer.ggml.pre is %q by the patterns in the tokenizer's files: its digest %s... is not among those that llama.cpp's converter knows", s.names[0], digest[:12]), nil
		}
	}
	return "", "", hint.Add(fmt.Errorf("%w: the pre-tokenizer is none that llama.cpp is known to have (digest %s)", tensor.ErrUnsupported, digest),
		"say with --pre which one it is: llama-bpe, qwen2, gpt-2, tekken, smollm, gpt-4o, deepseek-llm or another that llama.cpp knows")
}

// preDigest is chkhsh of the converter.
func preDigest(tok *bpe.Tokenizer) string {
	list := []byte{'['}
	for i, id := range tok.Process(tok.Encode(checkText, true)) {
		if i > 0 {
			list = append(list, ", "...)
		}
		list = strconv.AppendInt(list, int64(id), 10)
	}
	sum := sha256.Sum256(append(list, ']'))
	return hex.EncodeToString(sum[:])
}

// fits reports whether the scheme does what the parts of a tokenizer.json do.
func (s *scheme) fits(spec *bpe.Spec) bool {
	if s.steps == nil || s.ignoreMerges != spec.Model.IgnoreMerges || spec.Model.Prefix != "" || spec.Model.Suffix != "" {
		return false
	}
	like := slices.Equal(signature(spec.PreTokenizer), signature(s.preTokenizer()))
	if s.chars {
		r, ok := spec.Normalizer.(*bpe.Replace)
		return ok && r.Content == Space && r.Pattern.String != nil && *r.Pattern.String == " " && spec.Model.ByteFallback && (like || spec.PreTokenizer == nil)
	}
	return like && plainText(spec.Normalizer)
}

// plainText reports whether a normalizer does nothing, or what llama.cpp is used to
// leave out.
func plainText(n bpe.Normalizer) bool {
	switch n := n.(type) {
	case nil:
		return true
	case *bpe.Plain:
		return n.Type == "NFC"
	case *bpe.NormalizerSequence:
		return !slices.ContainsFunc(n.Normalizers, func(sub bpe.Normalizer) bool { return !plainText(sub) })
	}
	return false
}

// signature describes the steps of a pre-tokenizer, those that have the same effect
// in the same way.
func signature(t bpe.PreTokenizer) []string {
	switch t := t.(type) {
	case nil:
		return nil
	case *bpe.PreTokenizerSequence:
		var all []string
		for _, sub := range t.PreTokenizers {
			all = append(all, signature(sub)...)
		}
		return all
	case *bpe.ByteLevel:
		return []string{fmt.Sprintf("bytes %t %t", t.UseRegex, t.AddPrefixSpace)}
	case *bpe.Split:
		// What a pattern that matches everything does not match is nothing.
		if t.Pattern.Regex != nil && (t.Behavior == bpe.Isolated && !t.Invert || t.Behavior == bpe.Removed && t.Invert) {
			return []string{"split " + strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(*t.Pattern.Regex)}
		}
		if t.Pattern.String != nil {
			return []string{fmt.Sprintf("text %s %s %t", *t.Pattern.String, t.Behavior, t.Invert)}
		}
		return []string{fmt.Sprintf("split %s %s %t", *t.Pattern.Regex, t.Behavior, t.Invert)}
	case *bpe.Digits:
		return []string{fmt.Sprintf("digits %t", t.Individual)}
	case *bpe.Punctuation:
		return []string{fmt.Sprintf("punctuation %s", t.Behavior)}
	}
	return []string{fmt.Sprintf("%T", t)}
}

// preTokenizer returns the steps as a tokenizer.json has them.
func (s *scheme) preTokenizer() bpe.PreTokenizer {
	steps := slices.Clone(s.steps)
	bytes := func(t bpe.PreTokenizer) bool { _, ok := t.(*bpe.ByteLevel); return ok }
	if !s.chars && !slices.ContainsFunc(steps, bytes) {
		steps = append(steps, &bpe.ByteLevel{Type: "ByteLevel", TrimOffsets: true})
	}
	if len(steps) == 1 {
		return steps[0]
	}
	return &bpe.PreTokenizerSequence{Type: "Sequence", PreTokenizers: steps}
}
