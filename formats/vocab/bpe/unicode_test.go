package bpe

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// digest is the digest of what f makes of every character of the planes that
// Unicode has assigned any in, but for private use.
func digest(f func(s string) string) string {
	h := sha256.New()
	for r := range rune(0xE0200) {
		if r >= 0xD800 && r < 0xE000 || r >= 0x32400 && r < 0xE0000 {
			continue
		}
		if r > 0 {
			h.Write([]byte{0})
		}
		h.Write([]byte(f(string(r))))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestUnicode(t *testing.T) {
	data, err := os.ReadFile("testdata/unicode.json")
	require.NoError(t, err)
	var want map[string]string
	require.NoError(t, json.Unmarshal(data, &want))

	got := map[string]string{}
	for _, name := range []string{"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"} {
		make, err := plainNormalizer(name)
		require.NoError(t, err)
		n := make()
		got[name] = digest(func(s string) string { return n(piece{s: s}).s })
		if name == "NFC" {
			got["ordered"] = digest(func(s string) string {
				return n(piece{s: "\u0301" + s + "a\u0327" + s + "\u0316\u0301"}).s
			})
		}
	}
	bert := (&BertNormalizer{CleanText: true, Chinese: true, Lowercase: true}).maker()()
	got["BertNormalizer"] = digest(func(s string) string {
		tracked := bert(piece{s: "A" + s + "É", track: true})
		plain := bert(piece{s: "A" + s + "É"})
		require.Equal(t, tracked.s, plain.s)
		return plain.s
	})
	for name, p := range map[string]PreTokenizer{
		"BertPreTokenizer": &Whitespaces{Type: "BertPreTokenizer"},
		"Digits":           &Digits{Individual: true}, "Punctuation": &Punctuation{Behavior: Isolated},
		"Whitespace": &Whitespaces{Type: "Whitespace"}, "WhitespaceSplit": &Whitespaces{Type: "WhitespaceSplit"},
		"ByteLevel": &PreTokenizerSequence{PreTokenizers: []PreTokenizer{&ByteLevel{UseRegex: true}, &Whitespaces{Type: "WhitespaceSplit"}}},
	} {
		makers, _, err := compileSteps(p)
		require.NoError(t, err)
		var words []string
		first := sink(func(p piece) { words = append(words, p.s) })
		for i := len(makers) - 1; i >= 0; i-- {
			step, next := makers[i](), first
			first = func(p piece) { step(p, next) }
		}
		got[name] = digest(func(s string) string {
			words = words[:0]
			first(piece{s: "a" + s + "b1" + s})
			return strings.Join(words, "|")
		})
	}
	require.Equal(t, want, got)
}

// A form is the same for what is in it already, and is found whatever surrounds
// the text, for runs of marks of any length.
func TestNormalizationForms(t *testing.T) {
	text := "q\u0307\u0323" + strings.Repeat("\u0301\u0316\u0898", 100) + "e\u0301각\u1100\u1161\u11a8ﬁ\u212b"
	for name, f := range forms {
		once := f.normalize(piece{s: text}).s
		require.Equal(t, once, f.normalize(piece{s: once}).s, name)
		around := f.normalize(piece{s: "xyz" + text + "xyz" + text + "\n"}).s
		require.Equal(t, "xyz"+once+"xyz"+once+"\n", around, name)
	}
	require.Equal(t, "e\u0301", forms["NFD"].normalize(piece{s: "é"}).s)
	require.Equal(t, "fi", forms["NFKC"].normalize(piece{s: "ﬁ"}).s)
}

func TestNormalizedEnds(t *testing.T) {
	p := forms["NFC"].normalize(piece{s: "ae\u0301b", track: true})
	require.Equal(t, "aéb", p.s)
	require.Equal(t, []int{1, 4, 4, 5}, p.ends)
	p = forms["NFD"].normalize(piece{s: "aéb", track: true})
	require.Equal(t, []int{1, 3, 3, 3, 4}, p.ends)
	p = valid("a\xffé\xc3", true)
	require.Equal(t, "a\uFFFDé\uFFFD", p.s)
	require.Equal(t, []int{1, 2, 2, 2, 4, 4, 5, 5, 5}, p.ends)
}

// U+FFFD stands for what Rust's from_utf8_lossy has it for.
func TestLossy(t *testing.T) {
	for b, want := range map[string]string{
		"a": "a", "\xff": "�", "\xffa": "�a", "\xe2\x96": "�", "\xe2\x96a": "�a", "\xe2\x96\xe2": "��", "\xf0\x9f\x98a": "�a",
		"\xf0\x80\x80": "���", "\xed\xa0\x80": "���", "\xc0\x80": "��", "\xe0\x80\xaf": "���", "\xf4\x90\x80\x80": "����", "é\xc3": "é�",
	} {
		require.Equal(t, want, lossy([]byte(b)), "%q", b)
	}
}
