package vocab

import (
	"slices"
	"testing"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// small returns a tokenizer of the scheme with almost no vocabulary.
func (s *scheme) small() *bpe.Spec {
	spec := &bpe.Spec{PreTokenizer: s.preTokenizer(), Decoder: byteDecoder()}
	spec.Model = bpe.Model{Vocab: bpe.Vocabulary{"a": 0, "b": 1, "ab": 2}, Merges: [][2]string{{"a", "b"}}, IgnoreMerges: s.ignoreMerges}
	if s.chars {
		spec.Model.ByteFallback = true
		spec.Normalizer = spaceNormalizer()
	}
	return spec
}

// Every scheme is found again in a tokenizer.json that has its steps, or another one
// by which text is split in the same way.
func TestSchemesAreFound(t *testing.T) {
	var seen []string
	for _, s := range schemes() {
		for _, name := range s.names {
			require.NotContains(t, seen, name)
			seen = append(seen, name)
		}
		if s.steps == nil {
			continue
		}
		text, err := s.small().Marshal()
		require.NoError(t, err)
		spec, _, err := bpe.Parse(text)
		require.NoError(t, err)
		tok, err := bpe.New(spec)
		require.NoError(t, err, s.names)
		pre, note, err := detectPre(tok)
		require.NoError(t, err)
		require.Contains(t, note, "by the patterns")
		found, ok := schemeOf(pre)
		require.True(t, ok)
		require.Equal(t, s.steps, found.steps)
		require.Equal(t, []bool{s.chars, s.ignoreMerges}, []bool{found.chars, found.ignoreMerges})
		if !s.chars && s.names[0] != "deepseek-r1-qwen" {
			require.Equal(t, s.names[0], pre)
		}
	}
}

func TestHashesAreOfKnownSchemes(t *testing.T) {
	require.Len(t, preHashes, 95)
	names := preNames()
	other := map[string]bool{} // tokenizers of other models than BPE
	for digest, pre := range preHashes {
		require.Len(t, digest, 64)
		if _, ok := schemeOf(pre); !ok {
			other[pre] = true
			continue
		}
		require.Contains(t, names, pre)
	}
	require.Equal(t, map[string]bool{"bert-bge-large": true, "jina-v2-en": true}, other)
	require.True(t, slices.IsSorted(names))
}

func TestUnknownPre(t *testing.T) {
	s := scheme{steps: splits(`\w+`)}
	tok, err := bpe.New(s.small())
	require.NoError(t, err)
	_, _, err = detectPre(tok)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, preDigest(tok))
	require.Contains(t, hint.Of(err), "--pre")
	require.Contains(t, hint.Of(err), "llama-bpe")

	// What changes the words is no sign of a scheme.
	for name, change := range map[string]func(*bpe.Spec){
		"lower case":   func(spec *bpe.Spec) { spec.Normalizer = &bpe.Plain{Type: "Lowercase"} },
		"a suffix":     func(spec *bpe.Spec) { spec.Model.Suffix = "b" },
		"merges count": func(spec *bpe.Spec) { spec.Model.IgnoreMerges = true },
		"nothing":      func(spec *bpe.Spec) { spec.PreTokenizer = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := schemeOf("qwen2")
			spec := s.small()
			change(spec)
			tok, err := bpe.New(spec)
			require.NoError(t, err)
			_, _, err = detectPre(tok)
			require.ErrorIs(t, err, tensor.ErrUnsupported)
		})
	}

	require.NoError(t, CheckPre(""))
	require.NoError(t, CheckPre("tekken"))
	err = CheckPre("tekkn")
	require.ErrorContains(t, err, `"tekkn"`)
	require.Contains(t, hint.Of(err), "tekken")
}
