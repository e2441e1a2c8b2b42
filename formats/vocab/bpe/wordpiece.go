package bpe

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func parseWordPiece(text jsontext.Value) (m Model, err error) {
	file := struct {
		Unk      string         `json:"unk_token"`
		Prefix   string         `json:"continuing_subword_prefix"`
		MaxChars int64          `json:"max_input_chars_per_word"`
		Vocab    jsontext.Value `json:"vocab"`
	}{Unk: "[UNK]", Prefix: "##", MaxChars: 100}
	if err := json.Unmarshal(text, &file); err != nil {
		return m, jsonError(err)
	}
	m = Model{Type: WordPiece, Unk: file.Unk, Prefix: file.Prefix, MaxChars: file.MaxChars}
	if m.Vocab, err = ParseVocab(file.Vocab); err != nil {
		return m, wrap("vocab", err)
	}
	return m, nil
}

func (m *Model) wordPieceFile() any {
	return struct {
		Type     string     `json:"type"`
		Unk      string     `json:"unk_token"`
		Prefix   string     `json:"continuing_subword_prefix"`
		MaxChars int64      `json:"max_input_chars_per_word"`
		Vocab    Vocabulary `json:"vocab"`
	}{WordPiece, m.Unk, m.Prefix, m.MaxChars, m.Vocab}
}

func (m *model) checkWordPiece() error {
	if m.unk < 0 {
		return malformed("WordPiece without an unk_token")
	}
	for text := range m.vocab {
		m.longest = max(m.longest, len(text))
	}
	return nil
}

// pieces splits a word into the longest token at its beginning, the longest one
// with the prefix behind it, and so on; a word that cannot be is unknown.
func (w *word) pieces(s string) {
	if s == "" {
		return
	}
	m := w.m
	if int64(utf8.RuneCountInString(s)) > m.spec.MaxChars {
		w.add(m.unk, len(s))
		return
	}
	prefix := ""
	for start := 0; start < len(s); prefix = m.spec.Prefix {
		end := min(len(s), start+m.longest)
		for end < len(s) && !utf8.RuneStart(s[end]) {
			end--
		}
		found := false
		for end > start && !found {
			var id int32
			if id, found = m.vocab[prefix+s[start:end]]; found {
				w.add(id, end)
				break
			}
			_, n := utf8.DecodeLastRuneInString(s[start:end])
			end -= n
		}
		if !found {
			w.symbols = w.symbols[:0]
			w.add(m.unk, len(s))
			return
		}
		start = end
	}
}

// decode is what the decoder of WordPiece makes of one token.
func (d *Prefixes) decode(first bool, token string) string {
	if !first {
		rest, ok := strings.CutPrefix(token, d.Prefix)
		if token = rest; !ok {
			token = " " + token
		}
	}
	if d.Cleanup {
		for _, r := range [][2]string{
			{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"},
			{" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
		} {
			token = strings.ReplaceAll(token, r[0], r[1])
		}
	}
	return token
}

// bertStep passes on the words between white space, and each punctuation alone.
func bertStep(p piece, to sink) {
	start := 0
	flush := func(end int) {
		if start < end {
			to(p.slice(start, end))
		}
	}
	for i := 0; i < len(p.s); {
		r, n := rune(p.s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(p.s[i:])
		}
		space := unicode.IsSpace(r)
		if !space && (isLetterOrDigit(r) || !inRanges(punctuation, r)) {
			i += n
			continue
		}
		flush(i)
		start = i
		if i += n; !space {
			flush(i)
		}
		start = i
	}
	flush(len(p.s))
}

// isLetterOrDigit reports whether a character is one of ASCII's.
func isLetterOrDigit(r rune) bool {
	return r|0x20 >= 'a' && r|0x20 <= 'z' || r >= '0' && r <= '9'
}

// maker returns the normalizer of BERT's tokenizers. Nothing that is done to characters of ASCII
// depends on those beside them: they are looked up in a table.
func (n *BertNormalizer) maker() normalizerMaker {
	var ascii [utf8.RuneSelf]string
	for i := range ascii {
		ascii[i] = n.change(piece{s: string(rune(i))}).s
	}
	return always(func(p piece) piece {
		if p.track {
			return n.change(p)
		}
		var b strings.Builder
		b.Grow(len(p.s))
		for i := 0; i < len(p.s); {
			if p.s[i] < utf8.RuneSelf {
				if c := ascii[p.s[i]]; len(c) == 1 {
					b.WriteByte(c[0])
				} else {
					b.WriteString(c)
				}
				i++
				continue
			}
			end := i
			for end < len(p.s) && p.s[end] >= utf8.RuneSelf {
				end++
			}
			b.WriteString(n.change(piece{s: p.s[i:end]}).s)
			i = end
		}
		p.s = b.String()
		return p
	})
}

// change does it step by step.
func (n *BertNormalizer) change(p piece) piece {
	if n.CleanText {
		p = mapChars(p, func(r rune) (string, bool) {
			switch {
			case r == '\t', r == '\n', r == '\r':
				return " ", true
			case inRanges(bertControls, r):
				return "", false
			case unicode.IsSpace(r):
				return " ", true
			}
			return string(r), true
		})
	}
	if n.Chinese {
		p = mapChars(p, func(r rune) (string, bool) {
			if r >= chinese[0] && inRanges(chinese, r) {
				return " " + string(r) + " ", true
			}
			return string(r), true
		})
	}
	if n.StripAccents != nil && *n.StripAccents || n.StripAccents == nil && n.Lowercase {
		p = mapChars(forms["NFD"].normalize(p), func(r rune) (string, bool) { return string(r), r < bertMarks[0] || !inRanges(bertMarks, r) })
	}
	if n.Lowercase {
		p = mapChars(p, func(r rune) (string, bool) { return toLower(r), true })
	}
	return p
}

// chinese are the blocks that BERT takes for Chinese characters.
var chinese = []rune{
	0x3400, 0x4dbf, 0x4e00, 0x9fff, 0xf900, 0xfaff, 0x20000, 0x2a6df, 0x2a700, 0x2b73f, 0x2b740, 0x2b81f, 0x2b920, 0x2ceaf, 0x2f800, 0x2fa1f,
}
