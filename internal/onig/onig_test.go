package onig

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

type golden struct {
	Texts    []string
	Patterns []pattern
}

// pattern is a pattern and its matches in each text; nil if it is refused.
type pattern struct {
	Text    string
	Matches [][]int
}

func (p *pattern) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&p.Text, &p.Matches})
}

func readGolden(t testing.TB) golden {
	data, err := os.ReadFile("testdata/matches.json")
	require.NoError(t, err)
	var g golden
	require.NoError(t, json.Unmarshal(data, &g))
	require.Greater(t, len(g.Texts), 30)
	require.Greater(t, len(g.Patterns), 100)
	return g
}

// all returns the matches that are not empty.
func all(m *Matcher, text string) []int {
	m.Reset(text)
	out := []int{}
	for {
		start, end, ok := m.Next()
		if !ok {
			return out
		}
		if start < end {
			out = append(out, start, end)
		}
	}
}

func TestMatches(t *testing.T) {
	g := readGolden(t)
	for _, p := range g.Patterns {
		t.Run(p.Text, func(t *testing.T) {
			re, err := Compile(p.Text)
			if p.Matches == nil {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			m := re.Matcher()
			for i, text := range g.Texts {
				require.Equal(t, p.Matches[i], all(m, text), "%q", text)
			}
		})
	}
}

// What is remembered of failures changes no result.
func TestMemoryChangesNothing(t *testing.T) {
	g := readGolden(t)
	for _, p := range g.Patterns {
		if p.Matches == nil {
			continue
		}
		re, err := Compile(p.Text)
		require.NoError(t, err)
		m := re.Matcher()
		for i, text := range g.Texts {
			m.Reset(text)
			m.slow = -1
			got := []int{}
			for start, end, ok := m.Next(); ok; start, end, ok = m.Next() {
				if start < end {
					got = append(got, start, end)
				}
			}
			require.Equal(t, p.Matches[i], got, "%q in %q", p.Text, text)
		}
	}
}

func TestUnsupported(t *testing.T) {
	for pattern, says := range map[string]string{
		`(a)\1`: "back-reference", `(?<n>a)\k<n>`: `\k`, `\K`: `\K`, `\Ga`: `\G`, `\X`: `\X`, `(?~a)`: "group (?~", `(?(1)a|b)`: "group (?(",
		`(?<=a*)b`: "look-behind of more than 255 characters", `(?<=a{300})b`: "look-behind", `[[:alpha:]]`: "set [:alpha:]",
		`\p{Nothing}`: `property "nothing"`, `\x{D800}`: "character number", `\xe9`: "byte", `[\R]`: `\R in a set`, "a" + strings.Repeat("+*", 10): "quantifiers in a row",
	} {
		_, err := Compile(pattern)
		require.Error(t, err, pattern)
		require.ErrorContains(t, err, says)
		if pattern != `\p{Nothing}` {
			require.ErrorIs(t, err, ErrUnsupported, pattern)
		}
	}
	_, err := Compile(`(`)
	require.ErrorIs(t, err, ErrSyntax)
	_, err = Compile("\xff")
	require.ErrorIs(t, err, ErrSyntax)
}

// A pattern from a stranger's file is refused, or costs little.
func TestLimits(t *testing.T) {
	for name, pattern := range map[string]string{
		"long":             strings.Repeat("a", 1<<20),
		"deep":             strings.Repeat("(", 10_000) + strings.Repeat(")", 10_000),
		"deep sets":        strings.Repeat("[a", 10_000) + strings.Repeat("]", 10_000),
		"copies":           "a{100000}",
		"copies of copies": "(?:(?:a{100}){100}){100}",
		"many sets":        manySets(),
		"options":          strings.Repeat("(?i)", 5_000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(pattern)
			require.ErrorIs(t, err, ErrUnsupported)
			require.Less(t, len(err.Error()), 300)
		})
	}
}

func manySets() string {
	var b strings.Builder
	for r := rune('Ā'); b.Len() < maxPattern-20; r += 2 {
		fmt.Fprintf(&b, `[\p{L}%c]`, r|0x10000)
	}
	return b.String()
}

// Time grows with the text, not with its square or worse.
func TestLongTexts(t *testing.T) {
	const n = 200_000
	for _, c := range []struct{ pattern, text string }{
		{`(a|a)*b`, strings.Repeat("a", n)},
		{`(a*)*b`, strings.Repeat("a", n)},
		{`(?:a|aa)+$b`, strings.Repeat("a", n)},
		{`\s*[\r\n]+|\s`, strings.Repeat(" ", n)},
		{`\s+(?!\S)|\s`, strings.Repeat(" ", n) + "x"},
		{`a+b|a`, strings.Repeat("a", n)},
		{`(?:ab)*c|a|b`, strings.Repeat("ab", n/2)},
		{`\d{1,3}(?=(?:\d{3})*\b)`, strings.Repeat("1", n)},
		{`\d(?=(?:\d|\d\d)*x)|\d`, strings.Repeat("1", n)},
		{`(?=(\d{3})+(?!\d))`, strings.Repeat("1", n)},
		{`[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}`, strings.Repeat("a b", n/3)},
		{`[\p{Lu}\p{Lo}]*[\p{Ll}\p{Lo}]+x|[\p{Lu}\p{Lo}]+[\p{Ll}\p{Lo}]*x|.`, strings.Repeat("日", n/3)},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			re, err := Compile(c.pattern)
			require.NoError(t, err)
			m := re.Matcher()
			m.Reset(c.text)
			for _, _, ok := m.Next(); ok; _, _, ok = m.Next() {
			}
			require.Less(t, m.steps, 100*n)
		})
	}
}

func FuzzMatch(f *testing.F) {
	g := readGolden(f)
	for i, p := range g.Patterns {
		f.Add(p.Text, g.Texts[i%len(g.Texts)])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		re, err := Compile(pattern)
		if err != nil {
			require.True(t, errors.Is(err, ErrSyntax) || errors.Is(err, ErrUnsupported))
			return
		}
		if len(text) > 1000 || !utf8.ValidString(text) {
			return
		}
		m := re.Matcher()
		m.Reset(text)
		last := 0
		for start, end, ok := m.Next(); ok; start, end, ok = m.Next() {
			require.True(t, last <= start && start <= end && end <= len(text))
			require.True(t, utf8.ValidString(text[start:end]))
			last = end
		}
		require.Empty(t, m.stack)
	})
}

func BenchmarkLlama3(b *testing.B) {
	g := readGolden(b)
	re, err := Compile(g.Patterns[1].Text)
	require.NoError(b, err)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, 1234 times; don't you see?\n", 1000)
	m := re.Matcher()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m.Reset(text)
		for _, _, ok := m.Next(); ok; _, _, ok = m.Next() {
		}
	}
}
