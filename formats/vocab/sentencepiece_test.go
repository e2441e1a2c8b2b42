package vocab

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

func stories(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/stories260K.tokenizer.model")
	require.NoError(t, err)
	return data
}

func TestParseSentencePiece(t *testing.T) {
	v, err := ParseSentencePiece(stories(t))
	require.NoError(t, err)
	require.Len(t, v.Pieces, 512)
	require.Equal(t, []Piece{
		{Text: "<unk>", Type: Unknown}, {Text: "<s>", Type: Control}, {Text: "</s>", Type: Control}, {Text: "<0x00>", Type: Byte},
	}, v.Pieces[:4])
	require.Equal(t, Piece{Text: "▁t", Score: float32(math.Copysign(0, -1)), Type: Normal}, v.Pieces[259])
	require.Equal(t, Piece{Text: "he", Score: -1, Type: Normal}, v.Pieces[260])
	b, ok := v.Pieces[3+0x0a].Byte()
	require.True(t, ok)
	require.Equal(t, byte('\n'), b)
	_, ok = v.Pieces[260].Byte()
	require.False(t, ok)

	v.Pieces = nil
	require.Equal(t, &Vocab{
		Kind: SPM, BOS: 1, EOS: 2, UNK: 0, SEP: None, PAD: None, AddBOS: true, AddSpacePrefix: true,
		EscapeWhitespaces: true, ByteFallback: true, Normalizer: "identity", UnknownSurface: " ⁇ ",
	}, v)
}

// Byte for byte what SentencePiece's own code writes.
func TestMarshalSentencePiece(t *testing.T) {
	v, err := ParseSentencePiece(stories(t))
	require.NoError(t, err)
	data, err := MarshalSentencePiece(v)
	require.NoError(t, err)
	want, err := os.ReadFile("testdata/rewritten.model")
	require.NoError(t, err)
	require.Equal(t, want, data)
	again, err := ParseSentencePiece(data)
	require.NoError(t, err)
	require.Equal(t, v, again)
}

func TestMarshalAddedTokens(t *testing.T) {
	v, err := ParseSentencePiece(stories(t))
	require.NoError(t, err)
	v.Pieces = append(v.Pieces,
		Piece{Text: "a  b", Score: -1000, Type: UserDefined, Added: true},
		Piece{Text: "<pad x>", Score: -1000, Type: Control, Added: true},
		Piece{Text: "[PAD514]", Score: -10000, Type: Unused})
	v.PAD = 513
	v.AddSpacePrefix, v.RemoveExtraWhitespaces, v.EscapeWhitespaces = false, true, false
	v.UnknownSurface = "?"
	data, err := MarshalSentencePiece(v)
	require.NoError(t, err)
	again, err := ParseSentencePiece(data)
	require.NoError(t, err)
	v.Pieces[512].Added, v.Pieces[513].Added = false, false // only the JSON files say so
	require.Equal(t, v, again)
}

func TestMarshalErrors(t *testing.T) {
	v, err := ParseSentencePiece(stories(t))
	require.NoError(t, err)
	v.Pieces[0].Type, v.UNK = Control, None
	_, err = MarshalSentencePiece(v)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	_, err = v.Files()
	require.ErrorIs(t, err, tensor.ErrUnsupported)

	v.Kind = "gpt2"
	_, err = MarshalSentencePiece(v)
	require.ErrorIs(t, err, tensor.ErrUnsupported)

	v.Kind = SPM
	v.Pieces = append(v.Pieces, Piece{Text: "<x>", Type: UserDefined, Added: true, LStrip: true})
	_, err = MarshalSentencePiece(v)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}

// message builds a model of single pieces and settings.
type message []byte

func (m message) piece(text string, score float32, typ uint64) message {
	p := appendText(nil, pieceText, text)
	p = protowire.AppendFixed32(protowire.AppendTag(p, pieceScore, protowire.Fixed32Type), math.Float32bits(score))
	return appendMessage(m, modelPieces, appendVarint(p, pieceType, typ))
}

func (m message) trainer(b []byte) message    { return appendMessage(m, modelTrainer, b) }
func (m message) normalizer(b []byte) message { return appendMessage(m, modelNormalizer, b) }

func TestParseSentencePieceSettings(t *testing.T) {
	bpe := appendVarint(nil, trainerModelType, modelTypeBPE)
	base := slices.Clip(message{}.trainer(bpe).piece("<unk>", 0, 2).piece("<s>", 0, 3).piece("</s>", 0, 3).piece("[pad]", 0, 3).piece("x", -1, 1))

	t.Run("defaults", func(t *testing.T) {
		v, err := ParseSentencePiece(base)
		require.NoError(t, err)
		require.True(t, v.AddSpacePrefix && v.RemoveExtraWhitespaces && v.EscapeWhitespaces)
		require.False(t, v.ByteFallback)
		require.Equal(t, []int32{0, 1, 2, None}, []int32{v.UNK, v.BOS, v.EOS, v.PAD})
	})
	t.Run("named", func(t *testing.T) {
		// Settings of two messages are merged, as protocol buffers are.
		names := appendText(appendText(nil, trainerBOSPiece, "</s>"), trainerPADPiece, "[pad]")
		names = appendText(names, trainerEOSPiece, "x") // not a control piece
		v, err := ParseSentencePiece(base.trainer(names).trainer(appendText(nil, trainerUNKSurface, "?")))
		require.NoError(t, err)
		require.Equal(t, []int32{0, 2, None, 3}, []int32{v.UNK, v.BOS, v.EOS, v.PAD})
		require.Equal(t, "?", v.UnknownSurface)
	})
	t.Run("no bos", func(t *testing.T) {
		v, err := ParseSentencePiece(message{}.trainer(bpe).piece("<unk>", 0, 2))
		require.NoError(t, err)
		require.False(t, v.AddBOS)
	})
	t.Run("unknown fields", func(t *testing.T) {
		more := appendVarint(base, 250, 3)
		more = protowire.AppendFixed64(protowire.AppendTag(more, 251, protowire.Fixed64Type), 3)
		more = protowire.AppendGroup(protowire.AppendTag(more, 252, protowire.StartGroupType), 252, appendVarint(nil, 1, 1))
		v, err := ParseSentencePiece(more)
		require.NoError(t, err)
		require.Len(t, v.Pieces, 5)
	})

	long := strings.Repeat("\x0b", 20000)
	for name, c := range map[string]struct {
		data []byte
		is   error
		says string
	}{
		"empty":           {nil, tensor.ErrMalformed, "0 pieces"},
		"text":            {[]byte("hello, this is not a model"), tensor.ErrMalformed, ""},
		"tiktoken":        {[]byte("IQ== 0\nIg== 1\n"), tensor.ErrUnsupported, "tiktoken"},
		"word":            {base.trainer(appendVarint(nil, trainerModelType, 3)), tensor.ErrUnsupported, "word"},
		"type 9":          {base.trainer(appendVarint(nil, trainerModelType, 9)), tensor.ErrUnsupported, "type 9"},
		"suffix":          {base.trainer(appendVarint(nil, trainerSuffix, 1)), tensor.ErrUnsupported, "suffix"},
		"charsmap":        {base.normalizer(appendText(nil, normalizerCharsmap, "abc")), tensor.ErrMalformed, "precompiled_charsmap of 3 bytes"},
		"denormalizer":    {appendMessage(base, modelDenormalizer, appendText(nil, normalizerCharsmap, "\x04\x00\x00\x00abcd\x00")), tensor.ErrUnsupported, "denormalizer_spec"},
		"no pieces":       {message{}.trainer(bpe), tensor.ErrMalformed, "0 pieces"},
		"no unknown":      {message{}.trainer(bpe).piece("x", 0, 1), tensor.ErrMalformed, "neither an unknown piece"},
		"no text":         {base.piece("", 0, 1), tensor.ErrMalformed, "piece 5: malformed input: no text"},
		"not UTF-8":       {base.piece("\xc3", 0, 1), tensor.ErrMalformed, "is not UTF-8"},
		"NaN":             {base.piece("y", float32(math.NaN()), 1), tensor.ErrMalformed, "no number as score"},
		"type 7":          {base.piece("y", 0, 7), tensor.ErrMalformed, "has type 7"},
		"type 257":        {base.piece("y", 0, 257), tensor.ErrMalformed, "has type 255"},
		"twice":           {base.piece("x", 0, 1), tensor.ErrMalformed, "is already piece 4"},
		"byte":            {base.piece("<0x00>", 0, 6), tensor.ErrMalformed, "1 byte pieces without byte fallback"},
		"fallback":        {base.trainer(appendVarint(nil, trainerByteFallback, 1)), tensor.ErrMalformed, "0 byte pieces"},
		"piece as number": {appendVarint(base, modelPieces, 1), tensor.ErrMalformed, "wire type 0; want 2"},
		"text as number":  {appendMessage(base, modelPieces, appendVarint(nil, pieceText, 1)), tensor.ErrMalformed, "wire type 0; want 2"},
		"score as bytes":  {appendMessage(base, modelPieces, appendText(nil, pieceScore, "1")), tensor.ErrMalformed, "wire type 2; want 5"},
		"type as bytes":   {appendMessage(base, modelPieces, appendText(nil, pieceType, "1")), tensor.ErrMalformed, "wire type 2; want 0"},
		"trainer":         {appendVarint(base, modelTrainer, 1), tensor.ErrMalformed, "trainer_spec"},
		"normalizer":      {appendVarint(base, modelNormalizer, 1), tensor.ErrMalformed, "normalizer_spec"},
		"truncated":       {base[:len(base)-3], tensor.ErrMalformed, "field 1"},
		"deep groups":     {append(base, long...), tensor.ErrMalformed, ""},
		"long length":     {append(base, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f), tensor.ErrMalformed, "field 1"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := ParseSentencePiece(c.data)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Nil(t, v)
		})
	}
}

func TestTruncatedSentencePiece(t *testing.T) {
	data := stories(t)
	for n := range data {
		if _, err := ParseSentencePiece(data[:n]); err == nil {
			require.GreaterOrEqual(t, n, len(data)-30, "%d of %d bytes parse", n, len(data))
		}
	}
}

func FuzzParseSentencePiece(f *testing.F) {
	f.Add(stories(f))
	f.Add([]byte(message{}.trainer(appendVarint(nil, trainerModelType, modelTypeBPE)).piece("<unk>", 0, 2).piece("x▁", 3, 4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseSentencePiece(data)
		if err != nil {
			require.Nil(t, v)
			return
		}
		out, err := MarshalSentencePiece(v)
		if err != nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			return
		}
		again, err := ParseSentencePiece(out)
		require.NoError(t, err)
		for _, s := range specials() {
			if *s.id(v) == None {
				*s.id(again) = None // it went by the default name
			}
		}
		again.AddBOS = v.AddBOS
		require.Equal(t, v, again)
	})
}
