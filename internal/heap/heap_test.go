package heap

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

type number int

func (n number) Before(m number) bool { return n < m }

func TestQueue(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 60 {
		var q Queue[number]
		var want []number
		for range n {
			x := number(rng.IntN(n))
			q.Push(x)
			want = append(want, x)
			if rng.IntN(3) == 0 {
				first := slices.Min(want)
				require.Equal(t, first, q.Pop())
				i := slices.Index(want, first)
				want = slices.Delete(want, i, i+1)
			}
		}
		slices.Sort(want)
		var got []number
		for len(q) > 0 {
			got = append(got, q.Pop())
		}
		require.Equal(t, want, got)
	}
}
