package bpe_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

func TestEncodeSpecial(t *testing.T) {
	g := readGolden(t)
	tok := open(t, g.file(t, pipeline{Model: "qwen2"}))
	text := "<|im_start|>x<tool_call>"
	all := tok.Encode(text, true)
	require.Equal(t, []int32{501, 87, 503}, all)
	plain := tok.Encode(text, false)
	require.Greater(t, len(plain), 8)
	require.Equal(t, int32(503), plain[len(plain)-1]) // not special: found everywhere
	require.Equal(t, text, tok.Decode(plain, true))
	require.Equal(t, "x<tool_call>", tok.Decode(all, true))
	require.Equal(t, "x", tok.Decode([]int32{-1, 87, 1 << 30}, false))
}

// Bytes that are no text count as U+FFFD, each for itself.
func TestNotUTF8(t *testing.T) {
	g := readGolden(t)
	for _, name := range []string{"gpt2", "llama"} {
		tok := open(t, g.file(t, pipeline{Model: name}))
		for _, text := range []string{"\xff", "a\xe2\x96 b", "\xc3\x28", "é\xf0\x9f\x98", "\xed\xa0\x80"} {
			var sound strings.Builder
			for _, r := range text {
				sound.WriteRune(r)
			}
			ids, ends := tok.EncodeOffsets(text, true)
			require.Equal(t, tok.Encode(sound.String(), true), ids, "%q", text)
			require.Equal(t, ids, tok.Encode(text, true))
			require.Equal(t, len(text), ends[len(ends)-1])
			require.True(t, slices.IsSorted(ends))
		}
	}
}

func TestOffsets(t *testing.T) {
	g := readGolden(t)
	byName := map[string]pipeline{}
	for _, p := range g.Pipelines {
		byName[p.Name] = p
	}
	for _, c := range []struct {
		pipeline, text string
		want           []int
	}{
		{"bytes alone", "日a", []int{3, 3, 3, 4}},                       // the bytes of one character
		{"NFC", "e\u0301a", []int{3, 3, 4}},                            // é is two bytes, of both characters
		{"NFD", "éa", []int{2, 2, 2, 3}},                               // and the other way
		{"prefix space", "a", []int{1}},                                // " a"
		{"prefix space", "日", []int{0, 3, 3, 3}},                       // " " and three bytes
		{"added", "x <LEFT>  y<RIGHT>  z", []int{1, 8, 9, 11, 20, 21}}, // white space belongs to tokens
		{"template", "ab", []int{1, 2}},
		{"whitespace split", "a  b", []int{1, 4}},
	} {
		tok := open(t, g.file(t, byName[c.pipeline]))
		ids, ends := tok.EncodeOffsets(c.text, true)
		require.Equal(t, c.want, ends, "%s %q: %v", c.pipeline, c.text, ids)
	}
}

func TestStream(t *testing.T) {
	g := readGolden(t)
	r := rand.New(rand.NewPCG(7, 7))
	for _, p := range g.Pipelines {
		tok := open(t, g.file(t, p))
		lists := make([][]int32, 0, len(p.Rows)+30)
		for _, row := range p.Rows {
			lists = append(lists, row.IDs)
		}
		ids := slices.Sorted(maps.Values(tok.Spec().Model.Vocab))
		for range 30 {
			var list []int32
			for range r.IntN(12) {
				list = append(list, ids[r.IntN(len(ids))])
			}
			lists = append(lists, list)
		}
		for _, list := range lists {
			for _, skip := range []bool{false, true} {
				s := tok.NewStream(skip)
				var text strings.Builder
				for _, id := range list {
					part := s.Next(id)
					require.True(t, utf8.ValidString(part))
					text.WriteString(part)
				}
				text.WriteString(s.Flush())
				require.Equal(t, tok.Decode(list, skip), text.String(), "%s %v", p.Name, list)
			}
		}
	}

	tok := open(t, g.file(t, pipeline{Model: "gpt2"}))
	s := tok.NewStream(true)
	var parts []string
	for _, id := range tok.Encode("a 日!", true) {
		parts = append(parts, s.Next(id))
	}
	require.Equal(t, []string{"a", " ", "", "", "日", "!"}, parts)
}

// Parts of a text make the tokens of the whole where Cut says so.
func TestCut(t *testing.T) {
	g := readGolden(t)
	r := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "the", " ", "  ", "\n", "\n", "\r\n", "\t", "1", "é", "e\u0301", "日", "'s", "!", "/", "...", "\u00a0", "Ж", "<LEFT>", "<RIGHT>", "<BOTH>", "word", "X"}
	texts := g.Texts
	for range 300 {
		var b strings.Builder
		for range 30 {
			b.WriteString(alphabet[r.IntN(len(alphabet))])
		}
		texts = append(texts, b.String())
	}
	pipelines := g.Pipelines
	for _, pattern := range []string{
		bpe.Qwen35Pattern, bpe.GPT4oPattern, bpe.TekkenPattern, bpe.DeepSeek3Pattern, "[\r\n]", `[^\n]+|[\n]+`, `\s?\p{L}+`, `\s+$`,
	} {
		part := fmt.Sprintf(`{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": %q}, "behavior": "Isolated", "invert": false},
			{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}`, pattern)
		pipelines = append(pipelines, pipeline{Name: pattern, Model: "gpt2", Parts: object{"pre_tokenizer": []byte(part)}})
	}
	cut := map[string]int{}
	for _, p := range pipelines {
		tok := open(t, g.file(t, p))
		for _, text := range texts {
			for rest := text; ; {
				at := tok.Cut(rest)
				if at == 0 {
					break
				}
				cut[p.Name]++
				parts := append(tok.Encode(text[:at], true), tok.Encode(text[at:], true)...)
				require.Equal(t, tok.Encode(text, true), parts, "%s: %q | %q", p.Name, text[:at], text[at:])
				rest = text[:at-1]
			}
		}
	}
	for _, name := range []string{"gpt2", "llama3", "qwen2", "falcon", "starcoder", "added", "lower and strip", bpe.Qwen35Pattern, bpe.GPT4oPattern, bpe.DeepSeek3Pattern} {
		require.Greater(t, cut[name], 50, name)
	}
	for _, name := range []string{"llama", "gemma", "strip left", "prefix space", "metaspace first", `\s?\p{L}+`, `\s+$`} {
		require.Zero(t, cut[name], name)
	}
}

func TestBytes(t *testing.T) {
	var all []byte
	for b := range 256 {
		all = append(all, byte(b))
	}
	chars := bpe.Chars(string(all))
	require.Equal(t, 256, utf8.RuneCountInString(chars))
	require.Equal(t, "Ġ", bpe.Chars(" "))
	require.Equal(t, "Ċ", bpe.Chars("\n"))
	back, ok := bpe.Bytes(chars)
	require.True(t, ok)
	require.Equal(t, string(all), back)
	_, ok = bpe.Bytes("a b")
	require.False(t, ok)
}

func TestConcurrentUse(t *testing.T) {
	g := readGolden(t)
	p := g.Pipelines[2]
	tok := open(t, g.file(t, p))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i, text := range g.Texts {
				if !slices.Equal(p.Rows[i].IDs, tok.Encode(text, true)) {
					t.Errorf("%q", text)
				}
			}
		})
	}
	wg.Wait()
}

// Long words, long texts and many marks cost no more than a sort.
func TestLongTexts(t *testing.T) {
	g := readGolden(t)
	for _, name := range []string{"gpt2", "qwen2", "llama", "unk"} {
		tok := open(t, g.file(t, pipeline{Model: name}))
		for _, s := range []string{"a", " ", "ab", "\n", "1", "=", "the ", "日", "e\u0301", "\u0301\u0316", "<|endoftext|>", "\xff"} {
			text := strings.Repeat(s, 200_000/len(s))
			ids, ends := tok.EncodeOffsets(text, true)
			require.Equal(t, ids, tok.Encode(text, true))
			require.Equal(t, len(text), ends[len(ends)-1])
		}
	}
}

// file with one part put in the place of GPT-2's.
func with(part, text string) string {
	parts := map[string]string{
		"version": `"1.0"`, "added_tokens": "[]", "normalizer": "null", "pre_tokenizer": "null", "post_processor": "null", "decoder": "null",
		"model": `{"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}`,
	}
	parts[part] = text
	var members []string
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		members = append(members, fmt.Sprintf("%q: %s", name, parts[name]))
	}
	return "{" + strings.Join(members, ", ") + "}"
}

func TestErrors(t *testing.T) {
	deep := strings.Repeat(`{"type": "Sequence", "normalizers": [`, 2000) + strings.Repeat(`]}`, 2000)
	many := `{"type": "Sequence", "normalizers": [` + strings.Repeat(`{"type": "NFC"}, `, 100) + `{"type": "NFC"}]}`
	for name, c := range map[string]struct {
		file string
		is   error
		says string
	}{
		"empty":               {"", tensor.ErrMalformed, ""},
		"not an object":       {"[]", tensor.ErrMalformed, ""},
		"cut off":             {with("model", `{}`)[:40], tensor.ErrMalformed, ""},
		"version":             {with("version", `"2.0"`), tensor.ErrUnsupported, `version "2.0"`},
		"no model":            {"{}", tensor.ErrMalformed, "model: "},
		"model type":          {with("model", `{"type": "Word", "vocab": []}`), tensor.ErrUnsupported, `type "Word"`},
		"unigram, empty":      {with("model", `{"type": "Unigram", "unk_id": 0, "vocab": []}`), tensor.ErrMalformed, "vocab: there is none"},
		"unigram, no unk":     {with("model", `{"type": "Unigram", "vocab": [["a", 0]]}`), tensor.ErrUnsupported, "no unk_id"},
		"unigram, unk":        {with("model", `{"type": "Unigram", "unk_id": 1, "vocab": [["a", 0]]}`), tensor.ErrMalformed, "unk_id 1 in a vocabulary of 1"},
		"unigram, twice":      {with("model", `{"type": "Unigram", "unk_id": 0, "vocab": [["a", 0], ["a", 1]]}`), tensor.ErrMalformed, `token "a" is both 0 and 1`},
		"unigram, no score":   {with("model", `{"type": "Unigram", "unk_id": 0, "vocab": [["a"]]}`), tensor.ErrMalformed, "token 0 is not a text and a score"},
		"word piece, no unk":  {with("model", `{"type": "WordPiece", "vocab": {"a": 0}}`), tensor.ErrMalformed, `unk_token "[UNK]" is not in the vocabulary`},
		"delimiter":           {with("pre_tokenizer", `{"type": "CharDelimiterSplit", "delimiter": "ab"}`), tensor.ErrMalformed, `delimiter "ab"`},
		"dropout":             {with("model", `{"type": "BPE", "dropout": 0.1, "vocab": {}, "merges": []}`), tensor.ErrUnsupported, "dropout of 0.1"},
		"no vocab":            {with("model", `{"type": "BPE", "merges": []}`), tensor.ErrMalformed, "model: vocab"},
		"vocab is a list":     {with("model", `{"type": "BPE", "vocab": ["a"], "merges": []}`), tensor.ErrMalformed, "model: vocab"},
		"id is a string":      {with("model", `{"type": "BPE", "vocab": {"a": "0"}, "merges": []}`), tensor.ErrMalformed, "model: vocab"},
		"id below 0":          {with("model", `{"type": "BPE", "vocab": {"a": -1}, "merges": []}`), tensor.ErrMalformed, `"a" has the id -1`},
		"id too big":          {with("model", `{"type": "BPE", "vocab": {"a": 99999999}, "merges": []}`), tensor.ErrMalformed, `"a" has the id 99999999`},
		"two of an id":        {with("model", `{"type": "BPE", "vocab": {"a": 1, "b": 1}, "merges": []}`), tensor.ErrMalformed, `tokens "a" and "b" both have the id 1`},
		"twice":               {with("model", `{"type": "BPE", "vocab": {"a": 1, "a": 2}, "merges": []}`), tensor.ErrMalformed, "model"},
		"no merges":           {with("model", `{"type": "BPE", "vocab": {"a": 1}}`), tensor.ErrMalformed, "model: merges"},
		"merge of one":        {with("model", `{"type": "BPE", "vocab": {"a": 1}, "merges": ["a"]}`), tensor.ErrMalformed, `merge 0 is "a"`},
		"merge of three":      {with("model", `{"type": "BPE", "vocab": {"a": 1}, "merges": [["a", "a", "a"]]}`), tensor.ErrMalformed, "merge 0 has 3 parts"},
		"merge of a number":   {with("model", `{"type": "BPE", "vocab": {"a": 1}, "merges": [1]}`), tensor.ErrMalformed, "merge 0"},
		"merge left":          {with("model", `{"type": "BPE", "vocab": {"b": 1}, "merges": ["a b"]}`), tensor.ErrMalformed, "the first is not in the vocabulary"},
		"merge right":         {with("model", `{"type": "BPE", "vocab": {"a": 1}, "merges": ["a b"]}`), tensor.ErrMalformed, "the second is not in the vocabulary"},
		"merge result":        {with("model", `{"type": "BPE", "vocab": {"a": 1, "b": 2}, "merges": ["a b"]}`), tensor.ErrMalformed, "what they make is not in the vocabulary"},
		"merge prefix":        {with("model", `{"type": "BPE", "continuing_subword_prefix": "##", "vocab": {"a": 1}, "merges": ["a a"]}`), tensor.ErrMalformed, "shorter than the prefix"},
		"unk":                 {with("model", `{"type": "BPE", "unk_token": "<unk>", "vocab": {"a": 1}, "merges": []}`), tensor.ErrMalformed, `unk_token "<unk>"`},
		"added is an object":  {with("added_tokens", `{}`), tensor.ErrMalformed, ""},
		"added is long":       {with("added_tokens", `[{"id": 3, "content": "`+strings.Repeat("x", 5000)+`"}]`), tensor.ErrUnsupported, "added_tokens[0]: unsupported input: an added token of 5000 bytes"},
		"part is a string":    {with("normalizer", `"NFC"`), tensor.ErrMalformed, "normalizer"},
		"part without a type": {with("decoder", `{}`), tensor.ErrUnsupported, `decoder: unsupported input: a part of type ""`},
		"Precompiled":         {with("normalizer", `{"type": "Precompiled", "precompiled_charsmap": ""}`), tensor.ErrMalformed, `precompiled_charsmap of 0 bytes`},
		"in a sequence":       {with("normalizer", `{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Mystery"}]}`), tensor.ErrUnsupported, `normalizer: Sequence: unsupported input: a part of type "Mystery"`},
		"null in a sequence":  {with("decoder", `{"type": "Sequence", "decoders": [null]}`), tensor.ErrMalformed, "null in a sequence"},
		"deep":                {with("normalizer", deep), tensor.ErrUnsupported, "nested more than 8 deep"},
		"many":                {with("normalizer", many), tensor.ErrUnsupported, "more than 64 parts"},
		"CTC":                 {with("decoder", `{"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}`), tensor.ErrUnsupported, "CTC"},
		"behavior":            {with("pre_tokenizer", `{"type": "Punctuation", "behavior": "Sometimes"}`), tensor.ErrMalformed, `behavior "Sometimes"`},
		"no pattern":          {with("pre_tokenizer", `{"type": "Split", "behavior": "Isolated", "invert": false}`), tensor.ErrMalformed, "neither a text nor a regular expression"},
		"two patterns":        {with("pre_tokenizer", `{"type": "Split", "pattern": {"String": "a", "Regex": "b"}, "behavior": "Isolated"}`), tensor.ErrMalformed, "both"},
		"empty pattern":       {with("pre_tokenizer", `{"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"}`), tensor.ErrUnsupported, "empty pattern"},
		"bad pattern":         {with("pre_tokenizer", `{"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}`), tensor.ErrMalformed, "pre_tokenizer: malformed input: malformed regular expression: missing )"},
		"back-reference":      {with("pre_tokenizer", `{"type": "Split", "pattern": {"Regex": "(a)\\1"}, "behavior": "Isolated"}`), tensor.ErrUnsupported, "back-reference"},
		"long pattern":        {with("pre_tokenizer", `{"type": "Split", "pattern": {"Regex": "`+strings.Repeat("a", 1<<20)+`"}, "behavior": "Isolated"}`), tensor.ErrUnsupported, "1048576 bytes"},
		"replacement":         {with("pre_tokenizer", `{"type": "Metaspace", "replacement": "__"}`), tensor.ErrMalformed, `replacement "__"`},
		"scheme":              {with("decoder", `{"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"}`), tensor.ErrMalformed, `prepend_scheme "last"`},
		"template":            {with("post_processor", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [], "special_tokens": {}}`), tensor.ErrMalformed, `special token "x"`},
		"template of none":    {with("post_processor", `{"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}`), tensor.ErrUnsupported, "the text 0 times"},
		"template of B":       {with("post_processor", `{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}]}`), tensor.ErrMalformed, "neither text A"},
		"roberta":             {with("post_processor", `{"type": "RobertaProcessing", "sep": ["a"], "cls": ["b", 1]}`), tensor.ErrMalformed, "post_processor: RobertaProcessing"},
		"strip":               {with("decoder", `{"type": "Strip", "content": "ab", "start": 1, "stop": 0}`), tensor.ErrMalformed, "one character"},
		"strip below 0":       {with("decoder", `{"type": "Strip", "content": "a", "start": -1, "stop": 0}`), tensor.ErrMalformed, "-1"},
		"suffix":              {with("decoder", `{"type": "BPEDecoder", "suffix": ""}`), tensor.ErrUnsupported, "suffix"},
	} {
		t.Run(name, func(t *testing.T) {
			spec, _, err := bpe.Parse([]byte(c.file))
			if err == nil {
				_, err = bpe.New(spec)
			}
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Less(t, len(err.Error()), 500)
			require.NotContains(t, err.Error(), "Go ")
		})
	}
}

// An added token gets the id that the library gives it.
func TestAddedIDs(t *testing.T) {
	spec, mismatched, err := bpe.Parse([]byte(with("added_tokens", `[{"id": 7, "content": "b", "special": true}, {"id": 3, "content": "x"},
		{"id": 3, "content": "y", "lstrip": true}, {"id": 9, "content": ""}, {"id": 3, "content": "x", "special": true}]`)))
	require.NoError(t, err)
	require.Equal(t, []bpe.Added{{ID: 1, Content: "b", Special: true}, {ID: 3, Content: "x", Special: true}, {ID: 4, Content: "y", LStrip: true}}, spec.Added)
	require.Equal(t, []string{`"b": id 1, not 7`, `"y": id 4, not 3`}, mismatched)
	id, ok := spec.Find("y")
	require.True(t, ok)
	require.Equal(t, int32(4), id)
	id, ok = spec.Find("ab")
	require.True(t, ok)
	require.Equal(t, int32(2), id)
	_, ok = spec.Find("z")
	require.False(t, ok)
}

// A merge whose result leads back to its parts, and pairs given twice, end.
func TestMergesInCircles(t *testing.T) {
	tok := open(t, []byte(with("model", `{"type": "BPE", "unk_token": "u", "vocab": {"a": 0, "u": 1, "ua": 2, "uaa": 3, "uau": 4}, "merges": ["u a", "ua a", "ua u", "u a"]}`)))
	require.Equal(t, []int32{4, 0, 1, 3}, tok.Encode("uauauuaa", true))
	require.Equal(t, []int32{4, 0, 1}, tok.Encode("zauaz", true)) // z is u to the model
}

func FuzzParse(f *testing.F) {
	g := readGolden(f)
	for _, p := range g.Pipelines {
		if p.Model == "unk" {
			f.Add(g.file(f, p), g.Texts[5])
		}
	}
	for _, part := range []string{
		`{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "a|\\s+"}, "behavior": "MergedWithNext", "invert": true}, {"type": "Digits", "individual_digits": true}]}`,
		`{"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": true}`,
		`{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}`,
	} {
		f.Add([]byte(with("pre_tokenizer", part)), "a b 1")
	}
	f.Add([]byte(with("added_tokens", `[{"id": 3, "content": "<a>", "lstrip": true, "normalized": true}]`)), "a <a> b")
	f.Add([]byte(with("normalizer", `{"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": "a*"}, "content": "b"}]}`)), "aba")
	f.Add([]byte(with("model", `{"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": [["<unk>", 0], ["▁", -2], ["a", -1.5], ["ab", -2], ["▁a", -3], ["<0x62>", -9]]}`)), "ab xa b")
	f.Add([]byte(`{"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
		"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}, "model": {"type": "WordPiece", "unk_token": "u", "vocab": {"u": 0, "a": 1, "##b": 2, "e": 3, ".": 4}}}`), "ab É.\n日a")
	f.Add([]byte(with("normalizer", `{"type": "Precompiled", "precompiled_charsmap": "CAAAAAAEAAAAAAAAYQA="}`)), "ab")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		if len(file) > 1<<14 || len(text) > 200 {
			return
		}
		spec, _, err := bpe.Parse(file)
		if err != nil {
			return
		}
		tok, err := bpe.New(spec)
		if err != nil {
			return
		}
		ids, ends := tok.EncodeOffsets(text, true)
		require.Equal(t, ids, tok.Encode(text, true))
		require.True(t, slices.IsSorted(ends))
		require.True(t, utf8.ValidString(tok.Decode(tok.Process(ids), false)))
		s := tok.NewStream(true)
		var decoded strings.Builder
		for _, id := range ids {
			decoded.WriteString(s.Next(id))
		}
		require.Equal(t, tok.Decode(ids, true), decoded.String()+s.Flush())
		if at := tok.Cut(text); at > 0 {
			require.Equal(t, ids, append(tok.Encode(text[:at], true), tok.Encode(text[at:], true)...))
		}

		data, err := spec.Marshal()
		require.NoError(t, err)
		again, _, err := bpe.Parse(data)
		require.NoError(t, err)
		tok2, err := bpe.New(again)
		require.NoError(t, err)
		require.Equal(t, ids, tok2.Encode(text, true))
	})
}

// Byte-level tokenizers give every text back.
func FuzzEncode(f *testing.F) {
	g := readGolden(f)
	var toks []*bpe.Tokenizer
	for _, name := range []string{"gpt2", "llama3", "starcoder", "falcon", "bytes alone"} {
		for _, p := range g.Pipelines {
			if p.Name == name {
				toks = append(toks, open(f, g.file(f, p)))
			}
		}
	}
	for _, text := range g.Texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range toks {
			ids := tok.Encode(text, true)
			want := strings.Map(func(r rune) rune { return r }, text) // U+FFFD for what is not UTF-8
			require.Equal(t, want, tok.Decode(ids, false))
			if at := tok.Cut(text); at > 0 {
				require.Equal(t, ids, append(tok.Encode(text[:at], true), tok.Encode(text[at:], true)...))
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	g := readGolden(b)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, 1234 times; don't you see?\nÉlan vital — 日本語.\n", 500)
	for _, name := range []string{"gpt2", "llama3", "qwen2", "llama"} {
		tok := open(b, g.file(b, pipeline{Model: name}))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text, true)
			}
		})
	}
}
