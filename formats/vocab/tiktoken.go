package vocab

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/tensor"
)

// tiktokenLine is the first line of a tiktoken file, which tokenizer.model may be
// too: a token in base 64 and its rank, which is its id.
var tiktokenLine = regexp.MustCompile(`^[A-Za-z0-9+/]+={0,2} [0-9]+\r?\n`)

// maxTikToken bounds a token, which is looked at from each place in it. The longest
// one of Llama 3 has 128 bytes.
const maxTikToken = 512

// ranks are the patterns and the special tokens that go with a tiktoken file, which
// has neither: the code of the model they are from knows them.
type ranks struct {
	tokens   int // in the file
	name     string
	pattern  string
	nfc      bool
	special  func(d *dirReader) []string // behind the file's tokens
	at       map[string]int32            // or with ids of their own
	bos, eos string
	front    bool // bos is put in front of a text
}

func knownRanks() []ranks {
	const end = "<|endoftext|>"
	return []ranks{
		{tokens: 128000, name: "Llama 3", pattern: bpe.Llama3Pattern, special: llama3Tokens, bos: "<|begin_of_text|>", eos: "<|end_of_text|>", front: true},
		{tokens: 151643, name: "Qwen", pattern: bpe.Qwen2Pattern, nfc: true, eos: end, special: func(*dirReader) []string {
			return append([]string{end, "<|im_start|>", "<|im_end|>"}, numbered("<|extra_%d|>", 0, 205)...)
		}},
		{tokens: 100256, name: "cl100k_base", pattern: bpe.Llama3Pattern, eos: end, at: map[string]int32{
			end: 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276,
		}},
		{tokens: 199998, name: "o200k_base", pattern: bpe.GPT4oPattern, eos: end, at: map[string]int32{end: 199999, "<|endofprompt|>": 200018}},
		{tokens: 50256, name: "r50k_base", pattern: bpe.GPT2Pattern, bos: end, eos: end, at: map[string]int32{end: 50256}},
	}
}

func numbered(format string, from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// llama3Tokens are the 256 special tokens of Llama 3, and of Llama 3.1 and later,
// which is told by the scaling of its rotary embeddings.
func llama3Tokens(d *dirReader) []string {
	const reserved = "<|reserved_special_token_%d|>"
	names := func(s ...string) []string { return s }
	rope := object(d.model["rope_scaling"])
	if cmp.Or(str(rope["rope_type"]), str(rope["type"])) == "llama3" {
		return slices.Concat(names("<|begin_of_text|>", "<|end_of_text|>"), numbered(reserved, 0, 2),
			names("<|finetune_right_pad_id|>"), numbered(reserved, 2, 3),
			names("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"), numbered(reserved, 3, 248))
	}
	return slices.Concat(names("<|begin_of_text|>", "<|end_of_text|>"), numbered(reserved, 0, 4),
		names("<|start_header_id|>", "<|end_header_id|>"), numbered(reserved, 4, 5), names("<|eot_id|>"), numbered(reserved, 5, 251))
}

// tikToken returns the path of a tiktoken file of the directory, "" for none:
// tokenizer.model if it is one, else the first *.tiktoken or tiktoken.model.
func (d *dirReader) tikToken() string {
	names := []string{"tokenizer.model", "tiktoken.model"}
	more, _ := filepath.Glob(filepath.Join(d.dir, "*.tiktoken"))
	for _, path := range more {
		names = append(names, filepath.Base(path))
	}
	for _, name := range names {
		if exists(d.dir, name) && isTikToken(filepath.Join(d.dir, name)) {
			return filepath.Join(d.dir, name)
		}
	}
	return ""
}

func isTikToken(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, 2*maxTikToken)
	n, err := io.ReadFull(f, b)
	return (err == nil || errors.Is(err, io.ErrUnexpectedEOF)) && tiktokenLine.Match(b[:n])
}

// openTikToken makes the tokenizer of a tiktoken file: what transformers'
// TikTokenConverter makes of it, with the patterns and the special tokens that are
// known of its number of tokens. Special tokens that the other files list count for
// more than those.
func (d *dirReader) openTikToken(path string, c *class) (*bpe.Spec, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	model, err := parseTikToken(data)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	n := len(model.Vocab)
	all := knownRanks()
	at := slices.IndexFunc(all, func(r ranks) bool { return r.tokens == n })
	r := ranks{pattern: bpe.Llama3Pattern}
	if at >= 0 {
		r = all[at]
		d.note("%s has %d tokens: it is split and its special tokens are as in %s", filepath.Base(path), n, r.name)
	} else {
		d.note("%s has %d tokens, as none that is known: it is split by the pattern of Llama 3, as transformers does", filepath.Base(path), n)
	}
	spec := &bpe.Spec{Model: model, Decoder: byteDecoder()}
	spec.PreTokenizer = &bpe.PreTokenizerSequence{Type: "Sequence", PreTokenizers: append(splits(r.pattern), &bpe.ByteLevel{Type: "ByteLevel", TrimOffsets: true})}
	if r.nfc {
		spec.Normalizer = &bpe.Plain{Type: "NFC"}
	}
	c.bos, c.eos = cmp.Or(c.bos, r.bos), cmp.Or(c.eos, r.eos)
	if err := d.tikTokens(spec, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, ok := spec.Find(r.bos); ok && r.front {
		spec.PostProcessor = template(spec, r.bos, "")
	}
	return spec, nil
}

// tikTokens adds the special tokens: those that additional_special_tokens lists, in
// its order, or the known ones. added_tokens_decoder is read later and knows its own.
func (d *dirReader) tikTokens(spec *bpe.Spec, r ranks) error {
	if d.config["added_tokens_decoder"] != nil {
		return nil
	}
	var listed []string
	for _, v := range list(d.config["additional_special_tokens"]) {
		if t, err := parseToken(v); err == nil && t.text != "" {
			listed = append(listed, t.text)
		}
	}
	if listed == nil && r.special != nil {
		listed = r.special(d)
	}
	for _, text := range listed {
		if _, err := spec.Add(bpe.Added{Content: text, Special: true}); err != nil {
			return err
		}
	}
	if len(listed) > 0 {
		return nil
	}
	for text, id := range r.at {
		spec.Model.Vocab[text] = id // where Add finds it
	}
	for _, text := range slices.SortedFunc(maps.Keys(r.at), func(a, b string) int { return cmp.Compare(r.at[a], r.at[b]) }) {
		if _, err := spec.Add(bpe.Added{Content: text, Special: true}); err != nil {
			return err
		}
	}
	return nil
}

// parseTikToken reads the tokens. What is joined first is what makes the token of
// the lowest rank, whatever two tokens it is made of.
func parseTikToken(data []byte) (m bpe.Model, err error) {
	ids := map[string]int32{}
	byID := map[int32]string{}
	line := 0
	for text := range strings.Lines(string(data)) {
		line++
		text = strings.TrimRight(text, "\r\n")
		if text == "" {
			continue
		}
		bad := func(format string, args ...any) (bpe.Model, error) {
			return m, fmt.Errorf("%d: %w: %s", line, tensor.ErrMalformed, fmt.Sprintf(format, args...))
		}
		token, rank, ok := strings.Cut(text, " ")
		bytes, err := base64.StdEncoding.DecodeString(token)
		id, err2 := strconv.ParseUint(rank, 10, 31)
		switch {
		case !ok || err != nil || err2 != nil || len(bytes) == 0:
			return bad("want a token in base 64 and its rank, found %.40q", text)
		case id >= maxPieces:
			return bad("rank %d; at most %d", id, maxPieces-1)
		case len(bytes) > maxTikToken:
			return m, fmt.Errorf("%d: %w: a token of %d bytes; at most %d", line, tensor.ErrUnsupported, len(bytes), maxTikToken)
		}
		if other, ok := ids[string(bytes)]; ok {
			return bad("the token of rank %d is that of rank %d too", other, id)
		}
		if _, ok := byID[int32(id)]; ok {
			return bad("a second token of rank %d", id)
		}
		ids[string(bytes)] = int32(id)
		byID[int32(id)] = string(bytes)
	}
	m = bpe.Model{Vocab: make(bpe.Vocabulary, len(ids)), IgnoreMerges: true}
	order := make([]int32, 0, len(byID))
	for id, text := range byID {
		m.Vocab[bpe.Chars(text)] = id
		order = append(order, id)
	}
	slices.Sort(order)
	for _, id := range order {
		m.Merges = append(m.Merges, waysTo(byID[id], ids)...)
	}
	return m, nil
}

// waysTo returns the pairs of tokens that make a token, in the order of their ranks.
func waysTo(token string, ids map[string]int32) [][2]string {
	var ways [][2]string
	for i := 1; i < len(token); i++ {
		_, left := ids[token[:i]]
		_, right := ids[token[i:]]
		if left && right {
			ways = append(ways, [2]string{token[:i], token[i:]})
		}
	}
	slices.SortFunc(ways, func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(ids[a[0]], ids[b[0]]), cmp.Compare(ids[a[1]], ids[b[1]]))
	})
	for i, w := range ways {
		ways[i] = [2]string{bpe.Chars(w[0]), bpe.Chars(w[1])}
	}
	return ways
}
