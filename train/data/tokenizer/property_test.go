package tokenizer_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// whole is the algorithm as SentencePiece states it, on the whole text at once:
// no words, no queue, no cache; what unused pieces were made of is noted on the
// way. It knows no added tokens.
func whole(v *vocab.Vocab, text string) []int32 {
	space := " "
	if v.EscapeWhitespaces {
		space = vocab.Space
	}
	if v.RemoveExtraWhitespaces {
		for strings.Contains(text, "  ") {
			text = strings.ReplaceAll(text, "  ", " ")
		}
		text = strings.TrimLeft(text, " ")
	}
	var norm strings.Builder
	if v.AddSpacePrefix && text != "" {
		norm.WriteString(space)
	}
	for _, r := range text { // an invalid byte is one U+FFFD
		if r == ' ' {
			norm.WriteString(space)
		} else {
			norm.WriteRune(r)
		}
	}
	text = norm.String()
	if v.RemoveExtraWhitespaces {
		for strings.HasSuffix(text, space) {
			text = strings.TrimSuffix(text, space)
		}
	}

	ids := map[string]int32{}
	unk := vocab.None
	var bytes [256]int32
	fixed := map[string]bool{}
	for i, p := range v.Pieces {
		switch p.Type {
		case vocab.Normal, vocab.Unused, vocab.UserDefined:
			ids[p.Text] = int32(i)
			fixed[p.Text] = p.Type == vocab.UserDefined
		case vocab.Unknown:
			unk = int32(i)
		case vocab.Byte:
			b, _ := p.Byte()
			bytes[b] = int32(i)
		}
	}
	var symbols []string
	for text != "" {
		_, n := utf8.DecodeRuneInString(text)
		one := text[:n]
		for k := len(text); k > 0; k-- {
			if fixed[text[:k]] {
				one = text[:k]
				break
			}
		}
		symbols = append(symbols, one)
		text = text[len(one):]
	}
	made := map[string][2]string{}
	note := func(l, r string) (int32, bool) {
		id, ok := ids[l+r]
		if !ok || fixed[l] || fixed[r] {
			return 0, false
		}
		if v.Pieces[id].Type == vocab.Unused {
			made[l+r] = [2]string{l, r}
		}
		return id, true
	}
	for {
		best, score := -1, float32(0)
		for i := range len(symbols) - 1 {
			if id, ok := note(symbols[i], symbols[i+1]); ok && (best < 0 || v.Pieces[id].Score > score) {
				best, score = i, v.Pieces[id].Score
			}
		}
		if best < 0 {
			break
		}
		symbols = slices.Replace(symbols, best, best+2, symbols[best]+symbols[best+1])
	}
	var out []int32
	var emit func(s string)
	emit = func(s string) {
		id, ok := ids[s]
		parts, unused := made[s]
		switch {
		case ok && v.Pieces[id].Type != vocab.Unused:
			out = append(out, id)
		case unused:
			emit(parts[0])
			emit(parts[1])
		case v.ByteFallback:
			for _, b := range []byte(s) {
				out = append(out, bytes[b])
			}
		case len(out) == 0 || out[len(out)-1] != unk:
			out = append(out, unk)
		}
	}
	for _, s := range symbols {
		emit(s)
	}
	return out
}

// randomVocab is made of few characters, so that everything can join and scores
// are often equal.
func randomVocab(r *rand.Rand) *vocab.Vocab {
	v := &vocab.Vocab{
		Kind: vocab.SPM, BOS: vocab.None, EOS: vocab.None, UNK: vocab.None, SEP: vocab.None, PAD: vocab.None,
		AddSpacePrefix: r.IntN(2) == 0, RemoveExtraWhitespaces: r.IntN(3) == 0, EscapeWhitespaces: r.IntN(3) > 0,
		ByteFallback: r.IntN(2) == 0, UnknownSurface: " ⁇ ",
	}
	v.Pieces = []vocab.Piece{{Text: "<unk>", Type: vocab.Unknown}}
	if v.ByteFallback {
		for b := range 256 {
			v.Pieces = append(v.Pieces, vocab.Piece{Text: fmt.Sprintf("<0x%02X>", b), Type: vocab.Byte})
		}
	}
	alphabet := []string{"a", "b", "c", "é", "日", vocab.Space, " "}
	seen := map[string]bool{}
	for range 3 + r.IntN(40) {
		var text string
		for range 1 + r.IntN(4) {
			text += alphabet[r.IntN(len(alphabet))]
		}
		if seen[text] {
			continue
		}
		seen[text] = true
		p := vocab.Piece{Text: text, Score: -float32(r.IntN(8)), Type: vocab.Normal}
		switch r.IntN(10) {
		case 0:
			p.Type = vocab.Unused
		case 1:
			if !v.RemoveExtraWhitespaces {
				p.Type = vocab.UserDefined
			}
		}
		v.Pieces = append(v.Pieces, p)
	}
	return v
}

func randomText(r *rand.Rand) string {
	alphabet := []string{"a", "b", "c", "é", "日", vocab.Space, " ", " ", "x", "\n", "\xff", "\xe6\x97", "ab"}
	var b strings.Builder
	for range r.IntN(30) {
		b.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

func TestWordsAreTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 7))
	tried := 0
	for tried < 1000 {
		v := randomVocab(r)
		tok, err := tokenizer.New(v)
		if err != nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			continue
		}
		tried++
		for range 10 {
			text := randomText(r)
			want := whole(v, text)
			got := tok.Encode(text)
			require.True(t, slices.Equal(want, got), "%q with %+v: want %v, got %v", text, v, want, got)
			ids, ends := tok.EncodeOffsets(text)
			require.True(t, slices.Equal(want, ids), "%q", text)
			require.Len(t, ends, len(ids))
			require.True(t, slices.IsSorted(ends), "%q: %v", text, ends)
			require.True(t, len(ends) == 0 || ends[len(ends)-1] <= len(text))
		}
	}
}

func TestWordsAreTheWholeOfRealModels(t *testing.T) {
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			tok := open(t, name)
			for _, c := range readGolden(t, name).Texts {
				if len(c.IDs) > 80 {
					continue // whole takes the square of it
				}
				text := c.Text + string(c.Base64)
				require.Equal(t, whole(tok.Vocab(), text), append([]int32(nil), tok.Encode(text)...), "%q", text)
			}
		})
	}
}

func TestReaderIsTheWhole(t *testing.T) {
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			tok := open(t, name)
			var all strings.Builder
			for _, c := range readGolden(t, name).Texts {
				all.WriteString(c.Text + string(c.Base64))
			}
			text := strings.Repeat(all.String(), 1+200_000/all.Len())
			want := tok.Encode(text)
			for kind, r := range map[string]io.Reader{
				"at once":     strings.NewReader(text),
				"by the byte": iotest.OneByteReader(strings.NewReader(text)),
				"by halves":   iotest.HalfReader(strings.NewReader(text)),
				"with EOF":    iotest.DataErrReader(strings.NewReader(text)),
			} {
				var got []int32
				require.NoError(t, tok.EncodeReader(r, func(ids []int32) error {
					got = append(got, ids...)
					return nil
				}))
				require.True(t, slices.Equal(want, got), "%s: %d and %d tokens", kind, len(want), len(got))
			}
		})
	}
}

// Text in parts of every size, with added tokens across them.
func TestReaderWithAddedTokens(t *testing.T) {
	v := openVocab(t, "stories260K")
	long := strings.Repeat("<", 70_000)
	v.Pieces = append(v.Pieces,
		vocab.Piece{Text: "<a>", Type: vocab.UserDefined, Added: true},
		vocab.Piece{Text: "<a><b>", Type: vocab.UserDefined, Added: true},
		vocab.Piece{Text: "é日", Type: vocab.UserDefined, Added: true},
		vocab.Piece{Text: "<r>", Type: vocab.UserDefined, Added: true, RStrip: true},
		vocab.Piece{Text: long, Type: vocab.UserDefined, Added: true})
	for _, v.Legacy = range []bool{false, true} {
		tok, err := tokenizer.New(v)
		require.NoError(t, err)
		r := rand.New(rand.NewPCG(5, 5))
		parts := []string{"<a>", "<b>", "<a", "<", "é", "日", "é日", "the", " ", "\xc3", "<r>", "\u3000", "\n", "\xe3", "\x80", strings.Repeat(" ", 40_000)}
		for range 5 {
			var b strings.Builder
			for b.Len() < 300_000 {
				if r.IntN(20_000) == 0 {
					b.WriteString(long)
				}
				b.WriteString(parts[r.IntN(len(parts))])
			}
			var got []int32
			require.NoError(t, tok.EncodeReader(strings.NewReader(b.String()), func(ids []int32) error {
				got = append(got, ids...)
				return nil
			}))
			require.True(t, slices.Equal(tok.Encode(b.String()), got))
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("Once upon a time", 3)
	f.Add(" \xff▁<s>é\xe2\x96 日本", 1)
	var toks []*tokenizer.Tokenizer
	for _, name := range models {
		toks = append(toks, open(f, name))
	}
	f.Fuzz(func(t *testing.T, text string, n int) {
		for _, tok := range toks {
			ids := tok.Encode(text)
			if len(text) < 200 {
				require.True(t, slices.Equal(whole(tok.Vocab(), text), ids))
			}
			var got []int32
			require.NoError(t, tok.EncodeReader(iotest.HalfReader(strings.NewReader(text)), func(ids []int32) error {
				got = append(got, ids...)
				return nil
			}))
			require.True(t, slices.Equal(ids, got))
			special := tok.EncodeWith(text, tokenizer.Options{BOS: true, EOS: true, ParseSpecial: true})
			require.GreaterOrEqual(t, len(special), 2)
			require.True(t, utf8.ValidString(tok.Decode(special)))
			if v := tok.Vocab(); v.ByteFallback && !v.RemoveExtraWhitespaces && utf8.ValidString(text) && v.EscapeWhitespaces && !strings.Contains(text, vocab.Space) && tok.Vocab().AddSpacePrefix {
				require.Equal(t, text, tok.Decode(ids))
			}
		}
	})
}
