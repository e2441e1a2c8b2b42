package tokenizer_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// models are the tokenizers of testdata.
var models = []string{"stories260K", "mistral-v3", "squeeze", "bare", "spaces", "unused"}

func open(t testing.TB, name string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.New(openVocab(t, name))
	require.NoError(t, err)
	return tok
}

func openVocab(t testing.TB, name string) *vocab.Vocab {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name + ".model")
	if os.IsNotExist(err) {
		packed, err := os.ReadFile("testdata/" + name + ".model.gz")
		require.NoError(t, err)
		r, err := gzip.NewReader(bytes.NewReader(packed))
		require.NoError(t, err)
		data, err = io.ReadAll(r)
		require.NoError(t, err)
		v, err := vocab.ParseSentencePiece(data)
		require.NoError(t, err)
		return v
	}
	require.NoError(t, err)
	v, err := vocab.ParseSentencePiece(data)
	require.NoError(t, err)
	return v
}

// golden is what SentencePiece and transformers made of one model's texts.
type golden struct {
	Texts []struct {
		Text         string
		Base64       []byte
		IDs          []int32
		Decoded      *string
		Transformers []int32
	}
	Decode []struct {
		IDs  []int32
		Text string
	}
	Ends []struct {
		Text string
		Ends [][2]int
	}
}

func readGolden(t testing.TB, name string) golden {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name + ".json")
	require.NoError(t, err)
	var g golden
	require.NoError(t, json.Unmarshal(data, &g))
	require.Greater(t, len(g.Texts), 300)
	require.Greater(t, len(g.Decode), 60)
	require.Len(t, g.Ends, 40)
	return g
}

func TestSentencePiece(t *testing.T) {
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			tok, g := open(t, name), readGolden(t, name)
			for _, c := range g.Texts {
				text := c.Text + string(c.Base64)
				require.Equal(t, c.IDs, tok.Encode(text), "%q", text)
				decoded := text
				if c.Decoded != nil {
					decoded = *c.Decoded
				}
				require.Equal(t, decoded, tok.Decode(c.IDs), "%q", text)
			}
			for _, c := range g.Decode {
				require.Equal(t, c.Text, tok.Decode(c.IDs), "%v", c.IDs)
			}
			// Where spaces are dropped, or a user-defined piece has some,
			// SentencePiece counts them to another token.
			if name != "stories260K" && name != "mistral-v3" {
				return
			}
			for _, c := range g.Ends {
				ids, ends := tok.EncodeOffsets(c.Text)
				require.Equal(t, tok.Encode(c.Text), ids, "%q", c.Text)
				require.Len(t, ends, len(ids))
				for _, want := range c.Ends {
					require.Equal(t, want[1], ends[want[0]], "%q: token %d", c.Text, want[0])
				}
			}
		})
	}
}

// transformers differs where it finds special tokens in the text, and puts no
// space in front of one; in nothing else.
func TestTransformers(t *testing.T) {
	for _, name := range []string{"stories260K", "mistral-v3"} {
		t.Run(name, func(t *testing.T) {
			v, g := openVocab(t, name), readGolden(t, name)
			special := map[string]bool{}
			for i, p := range v.Pieces {
				if p.Type == vocab.Control || p.Type == vocab.Unknown || p.Type == vocab.UserDefined {
					special[p.Text] = true
					v.Pieces[i].Added = true // as tokenizer_config.json has it
				}
			}
			tok, err := tokenizer.New(v)
			require.NoError(t, err)
			different := 0
			for _, c := range g.Texts {
				if c.Transformers == nil {
					continue
				}
				different++
				switch {
				case strings.HasPrefix(c.Text, " "), strings.HasPrefix(c.Text, vocab.Space):
					// Without that space of ours they are the same.
					bare := *tok.Vocab()
					bare.AddSpacePrefix = false
					other, err := tokenizer.New(&bare)
					require.NoError(t, err)
					require.Equal(t, c.Transformers, other.EncodeWith(c.Text, tokenizer.Options{ParseSpecial: true}), "%q", c.Text)
				default:
					found := false
					for text := range special {
						found = found || strings.Contains(c.Text, text)
					}
					require.True(t, found, "%q", c.Text)
					require.Equal(t, c.Transformers, tok.EncodeWith(c.Text, tokenizer.Options{ParseSpecial: true}), "%q", c.Text)
				}
			}
			require.Greater(t, different, 20)
		})
	}
}
