package data_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/stretchr/testify/require"
)

// Every token of the text is predicted once, whatever the length of the windows.
func TestWindows(t *testing.T) {
	text, err := os.ReadFile("testdata/shakespeare.txt")
	require.NoError(t, err)
	text = text[:20_000]
	for _, bos := range []bool{true, false} {
		tok := open(t, func(v *vocab.Vocab) { v.AddBOS = bos })
		want := tok.Encode(string(text))
		for _, size := range []int{2, 3, 100, 512, len(want), len(want) + 1, len(want) + 2, 1 << 20} {
			d, err := load(t, "x.txt", string(text), data.Options{Tokenizer: tok, MaxSeqLength: size})
			require.NoError(t, err)
			var got []int32
			if !bos {
				got = append(got, want[0])
			}
			for i, e := range all(t, d) {
				require.LessOrEqual(t, len(e.Tokens), size)
				require.True(t, len(e.Tokens) == size || i == d.Len()-1)
				if bos {
					require.Equal(t, int32(1), e.Tokens[0])
				} else {
					require.Equal(t, got[len(got)-1], e.Tokens[0])
				}
				require.Nil(t, e.Loss)
				got = append(got, e.Tokens[1:]...)
			}
			require.True(t, slices.Equal(want, got), size)
			s := d.Stats()
			require.Equal(t, []int64{0, 0}, []int64{int64(s.Truncated), s.Cut})
		}
	}

	_, err = load(t, "x.txt", "a", data.Options{Tokenizer: open(t, noBOS), MaxSeqLength: 9})
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "1 tokens are not enough")
	d, err := load(t, "x.txt", "a", data.Options{Tokenizer: stories(t), MaxSeqLength: 9})
	require.NoError(t, err)
	require.Equal(t, 1, all(t, d)[0].Labels())
}

// Windows can be changed without changing others.
func TestWindowsDoNotShare(t *testing.T) {
	d, err := load(t, "x.txt", "Once upon a time there was a girl", data.Options{Tokenizer: open(t, noBOS), MaxSeqLength: 4})
	require.NoError(t, err)
	want := all(t, d)
	for _, e := range all(t, d) {
		for i := range e.Tokens {
			e.Tokens[i] = -1
		}
		_ = append(e.Tokens, -2)
	}
	require.Equal(t, want, all(t, d))
}

func TestReadText(t *testing.T) {
	tok := stories(t)
	for _, text := range []string{"Once upon\r\na time", strings.Repeat("日é\n", 100_000)} {
		for _, bom := range []string{"", "\ufeff"} {
			ids, err := data.ReadText(write(t, "x.txt", bom+text), tok)
			require.NoError(t, err)
			require.True(t, slices.Equal(tok.Encode(text), ids))
		}
	}
	for _, name := range []string{"x.jsonl", "x"} {
		_, err := data.ReadText(write(t, name, `{"text": "Once"}`+"\n"), tok)
		require.ErrorIs(t, err, tensor.ErrUnsupported)
	}
	// Not rows, although it begins like one.
	text := "{ braces }\n"
	d, err := load(t, "x", text, data.Options{Tokenizer: tok, MaxSeqLength: 100})
	require.NoError(t, err)
	require.Equal(t, text, tok.Decode(all(t, d)[0].Tokens))
}

func TestTextWithoutWords(t *testing.T) {
	// Letters that are adjacent in pieces, without an end.
	path := write(t, "x.txt", strings.Repeat("the", 6<<20))
	_, err := data.ReadText(path, stories(t))
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, path)
}
