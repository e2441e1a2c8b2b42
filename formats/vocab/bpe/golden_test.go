package bpe_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/stretchr/testify/require"
)

type object = map[string]json.RawMessage

// golden is testdata/pipelines.json.gz.
type golden struct {
	Models    map[string]object
	Texts     []string
	Pipelines []pipeline
}

type pipeline struct {
	Name, Model string
	Parts       object
	Rows        []row
}

// row is what the library made of one text.
type row struct {
	IDs, Processed   []int32
	Decoded, Skipped string
}

func (r *row) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&r.IDs, &r.Processed, &r.Decoded, &r.Skipped})
}

func readGolden(t testing.TB) golden {
	t.Helper()
	packed, err := os.ReadFile("testdata/pipelines.json.gz")
	require.NoError(t, err)
	z, err := gzip.NewReader(bytes.NewReader(packed))
	require.NoError(t, err)
	data, err := io.ReadAll(z)
	require.NoError(t, err)
	var g golden
	require.NoError(t, json.Unmarshal(data, &g))
	require.Greater(t, len(g.Texts), 50)
	require.Greater(t, len(g.Pipelines), 60)
	for _, name := range []string{"gpt2", "llama3", "qwen2"} {
		data, err := os.ReadFile("../../../testdata/tokenizers/" + name + "/tokenizer.json")
		require.NoError(t, err)
		var o object
		require.NoError(t, json.Unmarshal(data, &o))
		g.Models[name] = o
	}
	return g
}

// file is the tokenizer.json of a pipeline.
func (g golden) file(t testing.TB, p pipeline) []byte {
	t.Helper()
	file := maps.Clone(g.Models[p.Model])
	for name, part := range p.Parts {
		if name == "model" {
			var model, change object
			require.NoError(t, json.Unmarshal(file["model"], &model))
			require.NoError(t, json.Unmarshal(part, &change))
			maps.Copy(model, change)
			var err error
			part, err = json.Marshal(model)
			require.NoError(t, err)
		}
		file[name] = part
	}
	data, err := json.Marshal(file)
	require.NoError(t, err)
	return data
}

func open(t testing.TB, data []byte) *bpe.Tokenizer {
	t.Helper()
	spec, _, err := bpe.Parse(data)
	require.NoError(t, err)
	tok, err := bpe.New(spec)
	require.NoError(t, err)
	return tok
}

func TestPipelines(t *testing.T) {
	g := readGolden(t)
	for _, p := range g.Pipelines {
		t.Run(p.Name, func(t *testing.T) {
			tok := open(t, g.file(t, p))
			for i, text := range g.Texts {
				want := p.Rows[i]
				ids := tok.Encode(text, true)
				require.Equal(t, want.IDs, ids, "%q", text)
				require.Equal(t, want.Processed, tok.Process(ids), "%q", text)
				require.Equal(t, want.Decoded, tok.Decode(ids, false), "%q %v", text, ids)
				require.Equal(t, want.Skipped, tok.Decode(ids, true), "%q %v", text, ids)

				again, ends := tok.EncodeOffsets(text, true)
				require.Equal(t, ids, again, "%q", text)
				require.Len(t, ends, len(ids))
				require.True(t, slices.IsSorted(ends), "%q: %v", text, ends)
				for _, end := range ends {
					require.True(t, end >= 0 && end <= len(text) && (end == len(text) || utf8.RuneStart(text[end])), "%q: %v", text, ends)
				}
			}
		})
	}
}

// A tokenizer.json that is written says what the one that was read says.
func TestMarshal(t *testing.T) {
	g := readGolden(t)
	for _, p := range g.Pipelines {
		t.Run(p.Name, func(t *testing.T) {
			spec, _, err := bpe.Parse(g.file(t, p))
			require.NoError(t, err)
			data, err := spec.Marshal()
			require.NoError(t, err)
			again, mismatched, err := bpe.Parse(data)
			require.NoError(t, err)
			require.Empty(t, mismatched)
			require.Equal(t, spec.Model, again.Model)
			require.ElementsMatch(t, spec.Added, again.Added)
			require.Equal(t, spec.Normalizer, again.Normalizer)
			require.Equal(t, spec.PreTokenizer, again.PreTokenizer)
			require.Equal(t, spec.PostProcessor, again.PostProcessor)
			require.Equal(t, spec.Decoder, again.Decoder)
		})
	}
}
