package tokenizer_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// small is a vocabulary without byte fallback: "▁a" is joined, "x" is unknown.
func small(more ...vocab.Piece) *vocab.Vocab {
	v := &vocab.Vocab{
		Kind: vocab.SPM, BOS: 1, EOS: 2, UNK: 0, SEP: vocab.None, PAD: vocab.None,
		AddSpacePrefix: true, EscapeWhitespaces: true, UnknownSurface: " ⁇ ",
	}
	v.Pieces = append([]vocab.Piece{
		{Text: "<unk>", Type: vocab.Unknown}, {Text: "<s>", Type: vocab.Control}, {Text: "</s>", Type: vocab.Control},
		{Text: "▁", Score: -4, Type: vocab.Normal}, {Text: "a", Score: -4, Type: vocab.Normal}, {Text: "▁a", Score: -1, Type: vocab.Normal},
	}, more...)
	return v
}

// pieces returns the texts of tokens, separated by "|".
func pieces(tok *tokenizer.Tokenizer, ids []int32) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, tok.Piece(id))
	}
	return strings.Join(texts, "|")
}

func TestNewErrors(t *testing.T) {
	v := small()
	v.BOS = 9
	_, err := tokenizer.New(v)
	require.ErrorIs(t, err, tensor.ErrMalformed)

	v = small(
		vocab.Piece{Text: "aa", Type: vocab.Normal},
		vocab.Piece{Text: "aaa", Type: vocab.Unused})
	_, err = tokenizer.New(v)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, `piece 7: unsupported input: unused piece "aaa" can be made of others in 2 ways`)

	v = small(vocab.Piece{Text: "a a", Type: vocab.UserDefined})
	v.RemoveExtraWhitespaces = true
	_, err = tokenizer.New(v)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, `"a a"`)
}

func TestOptions(t *testing.T) {
	added := []vocab.Piece{
		{Text: "<u>", Type: vocab.UserDefined, Added: true},
		{Text: "<u><u>", Type: vocab.UserDefined, Added: true},
		{Text: "<c>", Type: vocab.Control, Added: true, LStrip: true, RStrip: true},
		{Text: "<r>", Type: vocab.UserDefined, Added: true, RStrip: true},
	}
	special := tokenizer.Options{ParseSpecial: true}
	for _, c := range []struct {
		text   string
		o      tokenizer.Options
		legacy bool
		want   string
	}{
		{"", tokenizer.Options{}, false, ""},
		{"", tokenizer.Options{BOS: true, EOS: true}, false, "<s>|</s>"},
		{"a", tokenizer.Options{BOS: true, EOS: true}, false, "<s>|▁a|</s>"},
		{"a", tokenizer.Options{EOS: true}, false, "▁a|</s>"},
		{"xx a y", tokenizer.Options{}, false, "▁|<unk>|▁a|▁|<unk>"},
		{"xx<u>xx", tokenizer.Options{}, false, "▁|<unk>|<u>|<unk>"},
		{"a<u>a", tokenizer.Options{}, false, "▁a|<u>|a"},
		{"a<u>a", tokenizer.Options{}, true, "▁a|<u>|▁a"},
		{"a<u> a", tokenizer.Options{}, true, "▁a|<u>|▁|▁a"},
		{"<u>a", tokenizer.Options{}, false, "<u>|a"},
		{"a<u><u><u>a<u", tokenizer.Options{}, false, "▁a|<u><u>|<u>|a|<unk>"},
		{"<s>a</s>", tokenizer.Options{}, false, "▁|<unk>|a|<unk>"},
		{"<s>a</s>", special, false, "<s>|a|</s>"},
		{"<s>a</s>", special, true, "<s>|▁a|</s>"},
		{"<s>a", tokenizer.Options{ParseSpecial: true, BOS: true}, false, "<s>|<s>|a"},
		{"x<unk>x", special, false, "▁|<unk>|<unk>|<unk>"},
		{"a \n <c> \u3000 a <u> a", special, false, "▁a|<c>|a|▁|<u>|▁a"},
		{"a <c> a", tokenizer.Options{}, false, "▁a|▁|<unk>|▁a"},
		{" <c><c> ", special, false, "<c>|<c>"},
		{"a<r> \u3000\na<r>a", tokenizer.Options{}, false, "▁a|<r>|a|<r>|a"},
		{"a<r> a<r> ", tokenizer.Options{}, true, "▁a|<r>|▁a|<r>"},
	} {
		v := small(added...)
		v.Legacy = c.legacy
		tok, err := tokenizer.New(v)
		require.NoError(t, err)
		require.Equal(t, c.want, pieces(tok, tok.EncodeWith(c.text, c.o)), "%q %+v", c.text, c)
	}

	v := small()
	v.BOS, v.EOS = vocab.None, vocab.None
	tok, err := tokenizer.New(v)
	require.NoError(t, err)
	require.Equal(t, "▁a", pieces(tok, tok.EncodeWith("a", tokenizer.Options{BOS: true, EOS: true})))
	require.Same(t, v, tok.Vocab())
	require.Empty(t, tok.Piece(-1))
	require.Empty(t, tok.Piece(6))
}

func TestOffsets(t *testing.T) {
	tok, err := tokenizer.New(small(vocab.Piece{Text: "<u>", Type: vocab.UserDefined, Added: true}))
	require.NoError(t, err)
	for text, want := range map[string][]int{
		"":           {},
		"a":          {1},          // ▁a
		"x":          {0, 1},       // ▁ <unk>
		"a xéx\xffa": {1, 2, 7, 8}, // ▁a ▁ <unk> a
		"a<u>xx<u>":  {1, 4, 6, 9}, // ▁a <u> <unk> <u>
		" a":         {0, 2},       // ▁ ▁a
		"aa a":       {1, 2, 4},    // ▁a a ▁a
	} {
		ids, ends := tok.EncodeOffsets(text)
		require.Equal(t, tok.Encode(text), ids)
		require.Equal(t, want, ends, "%q: %s", text, pieces(tok, ids))
	}

	// All bytes of a character end where it does.
	ids, ends := open(t, "stories260K").EncodeOffsets("a日b")
	require.Len(t, ids, 5)
	require.Equal(t, []int{1, 4, 4, 4, 5}, ends)
}

func TestDecoder(t *testing.T) {
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			tok, g := open(t, name), readGolden(t, name)
			all := make([][]int32, 0, len(g.Texts)+len(g.Decode))
			for _, c := range g.Texts {
				all = append(all, c.IDs)
			}
			for _, c := range g.Decode {
				all = append(all, c.IDs)
			}
			for _, ids := range all {
				d := tok.NewDecoder()
				var got strings.Builder
				for _, id := range ids {
					s := d.Next(id)
					require.True(t, utf8.ValidString(s))
					got.WriteString(s)
				}
				got.WriteString(d.Flush())
				require.Equal(t, tok.Decode(ids), got.String())
			}
		})
	}

	tok := open(t, "stories260K")
	d := tok.NewDecoder()
	var parts []string
	for _, id := range tok.Encode("a 日!") {
		parts = append(parts, d.Next(id))
	}
	require.Equal(t, []string{"a", " ", "", "", "日", "!"}, parts)
	require.Empty(t, d.Flush())

	// A text that goes on keeps the space that a new one would lose.
	prompt := tok.EncodeWith("Once upon a", tokenizer.Options{BOS: true})
	d = tok.NewDecoder()
	for _, id := range prompt {
		d.Next(id)
	}
	next := tok.Encode("time")
	require.Equal(t, " time", d.Next(next[0]))
	require.Equal(t, "time", tok.NewDecoder().Next(next[0]))

	require.Equal(t, " ⁇  ⁇ ", tok.Decode([]int32{-1, 512}))
}

func TestConcurrentUse(t *testing.T) {
	tok := open(t, "mistral-v3")
	g := readGolden(t, "mistral-v3")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, c := range g.Texts {
				if ids := tok.Encode(c.Text + string(c.Base64)); len(ids) != len(c.IDs) {
					t.Errorf("%q: %v", c.Text, ids)
				}
			}
		})
	}
	wg.Wait()
}

// More words than are remembered.
func TestManyWords(t *testing.T) {
	tok := open(t, "stories260K")
	var b strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&b, "%x ", i)
	}
	want := tok.Encode(b.String())
	require.Equal(t, want, tok.Encode(b.String()))
	require.Equal(t, b.String(), tok.Decode(want))
}

// A run in which everything can be joined costs no more than a sort.
func TestLongRun(t *testing.T) {
	tok := open(t, "mistral-v3")
	for _, s := range []string{" ", "=", "ab", "\u2014"} {
		text := strings.Repeat(s, 300_000/len(s))
		ids, ends := tok.EncodeOffsets(text)
		require.Equal(t, tok.Encode(text), ids)
		require.Equal(t, len(text), ends[len(ends)-1])
		require.Equal(t, text, tok.Decode(ids))
	}
}

func TestEncodeReaderErrors(t *testing.T) {
	tok := open(t, "mistral-v3")
	broken := errors.New("broken")
	require.ErrorIs(t, tok.EncodeReader(iotest.ErrReader(broken), func([]int32) error { return nil }), broken)
	require.ErrorIs(t, tok.EncodeReader(strings.NewReader("a b c"), func([]int32) error { return broken }), broken)

	calls := 0
	require.NoError(t, tok.EncodeReader(strings.NewReader(""), func([]int32) error { calls++; return nil }))
	require.Zero(t, calls)

	err := tok.EncodeReader(strings.NewReader("x "+strings.Repeat(" ", 17<<20)), func([]int32) error { return nil })
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "without the end of a word")

	// What an error left is not in the next text.
	require.Equal(t, tok.Encode("x"), tok.Encode("x"))
	require.Equal(t, "x", tok.Decode(tok.Encode("x")))
}

func english(b testing.TB) string {
	data, err := os.ReadFile("../testdata/shakespeare.txt")
	require.NoError(b, err)
	return string(data)
}

func BenchmarkEncode(b *testing.B) {
	text := english(b)
	for _, name := range []string{"stories260K", "mistral-v3"} {
		tok := open(b, name)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text)
			}
		})
		b.Run(name+"/offsets", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.EncodeOffsets(text)
			}
		})
	}
}

func BenchmarkEncodeRandom(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	var s strings.Builder
	for s.Len() < 100_000 {
		s.WriteRune(rune(0x4e00 + r.IntN(3000)))
	}
	tok := open(b, "mistral-v3")
	b.SetBytes(int64(s.Len()))
	for b.Loop() {
		tok.Encode(s.String())
	}
}

func BenchmarkEncodeRun(b *testing.B) {
	tok := open(b, "mistral-v3")
	text := strings.Repeat("=", 1<<20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}

func BenchmarkDecode(b *testing.B) {
	text := english(b)
	tok := open(b, "mistral-v3")
	ids := tok.Encode(text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Decode(ids)
	}
}

func BenchmarkNew(b *testing.B) {
	v := openVocab(b, "mistral-v3")
	for b.Loop() {
		_, err := tokenizer.New(v)
		require.NoError(b, err)
	}
}
