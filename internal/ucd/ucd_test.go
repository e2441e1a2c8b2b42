package ucd

import (
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// Categories that Go's older Unicode knows are the same, but for a few that
// Unicode has changed since.
func TestCategories(t *testing.T) {
	assigned := []*unicode.RangeTable{unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs}
	changed, newer := 0, 0
	for r := rune(0); r <= unicode.MaxRune; r++ {
		name := Category(r)
		switch known := unicode.In(r, assigned...); {
		case name == "Cn" && known:
			t.Fatalf("%U is not assigned", r)
		case name == "Cn", unicode.Is(unicode.Categories[name], r):
		case known:
			changed++
		default:
			newer++
		}
	}
	require.Less(t, changed, 20)
	require.Less(t, newer, 8000)
	require.Equal(t, "Lo", Category(0x2ebf0)) // of Unicode 15.1
	require.Equal(t, "Lu", Category(0xa7cb))  // of Unicode 16
	require.Equal(t, "Cn", Category(0x11de0)) // of Unicode 17
}

func TestClasses(t *testing.T) {
	c := Load()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		name := Category(r)
		var want Class
		for class, is := range map[Class]bool{
			Space: unicode.Is(unicode.White_Space, r), Newline: r == '\n' || r == '\r',
			Letter: name[0] == 'L', Mark: name[0] == 'M', Number: name[0] == 'N',
		} {
			if is {
				want |= class
			}
		}
		if got := c.Of(r); got != want {
			t.Fatalf("%U: %b, want %b", r, got, want)
		}
	}
}

func count(pairs []rune) (n int) {
	for i := 0; i < len(pairs); i += 2 {
		n += int(pairs[i+1]-pairs[i]) + 1
	}
	return n
}

// The numbers are what Oniguruma matches (testdata/gen/unicode_tables.py).
func TestRanges(t *testing.T) {
	for name, n := range map[string]int{"L": 141028, "N": 1911, "M": 2501, "P": 855, "S": 8514, "Lu": 1858, "Nd": 760, "Z": 19} {
		require.Equal(t, n, count(Ranges(name)), name)
	}
	require.Equal(t, 144671, count(Word()))
	require.Equal(t, 25, count(White()))
	require.Equal(t, 99030, count(Script("Han")))
	require.Equal(t, 381, count(Script("Hiragana")))
	require.Nil(t, Ranges("X"))
	require.Nil(t, Ranges(""))
	require.Nil(t, Script("Nowhere"))
	require.Equal(t, []rune{1, 4, 6, 9}, Union([]rune{6, 9, 3, 4, 1, 2, 2, 2, 7, 8}))
}
