package unigram

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

// pieces of a text, with "?" for what is unknown.
func split(l *Lattice, pieces []Piece, text string) string {
	var out []string
	start := 0
	for _, p := range Split(l, text) {
		s := text[start:p.End]
		if p.ID == Unknown {
			s = "?" + s
		}
		out = append(out, s)
		start = int(p.End)
	}
	return strings.Join(out, "|")
}

func TestSplit(t *testing.T) {
	pieces := []Piece{{"a", -3, 0}, {"b", -3, 1}, {"ab", -5, 2}, {"abc", -30, 3}, {"é", -1, 4}, {"", 0, 5}, {"日本", -2, 6}}
	l := New(pieces, -30, false).NewLattice()
	for text, want := range map[string]string{
		"": "", "a": "a", "ab": "ab", "abab": "ab|ab", "abc": "abc", "ba": "b|a", "éé": "é|é", "x": "?x", "xay": "?x|a|?y",
		"日本日": "日本|?日", "日": "?日", "\xff": "?\xff", "\xe6\x97": "?\xe6\x97",
	} {
		require.Equal(t, want, split(l, pieces, text), "%q", text)
		var again []Part
		again = append(again, Split(l, []byte(text))...)
		require.Equal(t, again, append([]Part(nil), Split(l, text)...))
	}
}

// best is the most probable way by trying all of them.
func best(m *Model, text string) float64 {
	if text == "" {
		return 0
	}
	found, score := false, 0.0
	try := func(n int, s float64) {
		if rest := s + best(m, text[n:]); !found || rest > score {
			found, score = true, rest
		}
	}
	alone := false
	for _, p := range m.pieces {
		if p.Text != "" && strings.HasPrefix(text, p.Text) {
			try(len(p.Text), p.Score)
			alone = alone || len(p.Text) == 1
		}
	}
	if !alone {
		try(1, m.unknown)
	}
	return score
}

func TestSplitIsTheBest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var pieces []Piece
		seen := map[string]bool{}
		for range 8 {
			var s strings.Builder
			for range 1 + r.IntN(4) {
				s.WriteByte("abc"[r.IntN(3)])
			}
			if !seen[s.String()] {
				seen[s.String()] = true
				pieces = append(pieces, Piece{s.String(), -float64(r.IntN(64)), int32(len(pieces))})
			}
		}
		m := New(pieces, -64, false)
		l := m.NewLattice()
		for range 20 {
			var s strings.Builder
			for range r.IntN(9) {
				s.WriteByte("abc"[r.IntN(3)])
			}
			score, start := 0.0, 0
			for _, p := range Split(l, s.String()) {
				if p.ID == Unknown {
					score += m.unknown
				} else {
					require.Equal(t, pieces[p.ID].Text, s.String()[start:p.End])
					score += pieces[p.ID].Score
				}
				start = int(p.End)
			}
			require.Equal(t, s.Len(), start)
			require.Equal(t, best(m, s.String()), score, "%q %v", s.String(), pieces)
		}
	}
}

// Many texts, more than the table begins with, and what they are not.
func TestTrie(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ids := map[string]int32{}
	var pieces []Piece
	for range 5000 {
		b := make([]byte, 1+r.IntN(6))
		for i := range b {
			b[i] = byte(r.IntN(40)) + 'A'
		}
		if _, ok := ids[string(b)]; !ok {
			ids[string(b)] = int32(len(pieces))
			pieces = append(pieces, Piece{string(b), -1, int32(len(pieces))})
		}
	}
	m := New(pieces, -1, false)
	for text, id := range ids {
		at := m.trie.first[text[0]]
		for i := 1; i < len(text); i++ {
			require.NotZero(t, at)
			at = m.trie.next(at, text[i])
		}
		require.Equal(t, id, m.trie.value[at], text)
		require.Zero(t, m.trie.next(at, '!'))
	}
}

// table makes a charsmap of rules for sequences of at most two bytes.
func table(rules map[string]string) []byte {
	units := make([]uint32, 3*256)
	texts := ""
	value := func(at int, with string) {
		units[at] |= unitLeaf
		units[at^int(offset(units[at]))] = unitValue | uint32(len(texts))
		texts += with + "\x00"
	}
	second := 256 // where the children of first bytes are, 512 for the second such byte
	for from, with := range rules {
		a := int(from[0])
		if units[a] == 0 {
			units[a] = uint32(a) | uint32(a^second)<<10
			second += 256
		}
		if len(from) == 1 {
			value(a, with)
			continue
		}
		b := a ^ int(offset(units[a])) ^ int(from[1])
		units[b] = uint32(from[1]) | uint32(b^(b|0xff))<<10
		value(b, with)
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(4*len(units)))
	for _, u := range units {
		out = binary.LittleEndian.AppendUint32(out, u)
	}
	return append(out, texts...)
}

func TestCharsmap(t *testing.T) {
	data := table(map[string]string{"a": "b", "ab": "cd", "\xc3\xa9": ""})
	c, err := ParseCharsmap(data)
	require.NoError(t, err)
	require.Equal(t, data, c.Raw())
	for s, want := range map[string]struct {
		with string
		n    int
		more bool
	}{
		"": {"", 0, true}, "a": {"b", 1, true}, "ac": {"b", 1, false}, "ab": {"cd", 2, true}, "abx": {"cd", 2, false},
		"x": {"", 0, false}, "\xc3": {"", 0, true}, "é": {"", 2, true}, "\x00": {"", 0, false}, "a\x00": {"b", 1, false},
	} {
		with, n, more := c.Longest(s)
		require.Equal(t, want, struct {
			with string
			n    int
			more bool
		}{with, n, more}, "%q", s)
	}
	with, ok := c.Shortest("ab")
	require.True(t, ok)
	require.Equal(t, "b", with)
	with, ok = c.Shortest("é")
	require.True(t, ok)
	require.Empty(t, with)
	_, ok = c.Shortest("b")
	require.False(t, ok)
	require.True(t, c.Plain('x'))
	require.False(t, c.Plain('a'))
	require.False(t, c.Plain(0))
	require.False(t, c.Plain(0xc3))
}

func TestCharsmapErrors(t *testing.T) {
	good := table(map[string]string{"a": "b"})
	for name, b := range map[string][]byte{
		"nothing": nil, "three bytes": {1, 2, 3}, "no table": {0, 0, 0, 0, 0}, "odd table": {5, 0, 0, 0, 1, 2, 3, 4, 5, 0},
		"too large": {255, 255, 255, 252, 1, 2, 3, 4, 0}, "no texts": good[:4+3*1024], "no NUL": good[:len(good)-1],
		"not UTF-8": append(good[:len(good):len(good)], 0xff, 0),
	} {
		_, err := ParseCharsmap(b)
		require.ErrorIs(t, err, tensor.ErrMalformed, name)
	}
	_, err := ParseCharsmap(table(map[string]string{"a": strings.Repeat("b", 257)}))
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}

func FuzzCharsmap(f *testing.F) {
	f.Add(table(map[string]string{"a": "b", "ab": "cd", "\xc3\xa9": ""}), "abé")
	f.Add([]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0}, "\xff\xfea")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		c, err := ParseCharsmap(data)
		if err != nil {
			require.True(t, errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported))
			return
		}
		for i := range text {
			_, n, more := c.Longest(text[i:])
			require.True(t, n >= 0 && n <= len(text)-i)
			_, some := c.Shortest(text[i:])
			require.Equal(t, n > 0, some)
			if !more { // what follows does not matter
				_, m, _ := c.Longest(text[i:] + "abc\xff")
				require.Equal(t, n, m)
			}
			if i+1 < len(text) && text[i+1] < 0x80 && text[i+1] != 0 && c.Plain(text[i]) {
				require.Zero(t, n)
			}
		}
	})
}
