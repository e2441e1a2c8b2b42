package budget

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// best tries every choice.
func best(items []Item, limit int64) (cost float64, ok bool) {
	if limit < 0 {
		return 0, false
	}
	if len(items) == 0 {
		return 0, true
	}
	for _, o := range items[0].Options {
		if rest, fits := best(items[1:], limit-o.Size); fits && (!ok || rest+o.Cost < cost) {
			cost, ok = rest+o.Cost, true
		}
	}
	return cost, ok
}

func sum(items []Item, chosen []int) (size int64, cost float64) {
	for i, it := range items {
		size, cost = size+it.Options[chosen[i]].Size, cost+it.Options[chosen[i]].Cost
	}
	return size, cost
}

// random makes items like tensors: more bytes mostly cost less, not always.
func random(r *rand.Rand) []Item {
	items := make([]Item, 1+r.IntN(6))
	for i := range items {
		items[i].Name = fmt.Sprint("t", r.IntN(4))
		scale := math.Exp(3 * r.Float64())
		for range 1 + r.IntN(5) {
			size := int64(r.IntN(40))
			items[i].Options = append(items[i].Options, Option{size, scale * math.Exp(-0.1*float64(size)) * (0.5 + r.Float64())})
		}
	}
	return items
}

func TestWithinOneStepOfTheBest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	exact := 0
	const rounds = 3000
	for range rounds {
		items := random(r)
		limit := Smallest(items) + int64(r.IntN(60)) - 3
		want, fits := best(items, limit)
		got, err := Choose(items, limit)
		if !fits {
			require.ErrorIs(t, err, ErrTooSmall)
			continue
		}
		require.NoError(t, err)
		size, cost := sum(items, got)
		require.LessOrEqual(t, size, limit)
		var bound float64
		for i, it := range items {
			for _, s := range hull(i, it.Options) {
				bound = max(bound, s.gain)
			}
		}
		require.GreaterOrEqual(t, cost, want-1e-9)
		require.LessOrEqual(t, cost, want+bound+1e-9)
		if cost <= want+1e-9 {
			exact++
		}
	}
	require.Greater(t, exact, rounds*6/10, "the filling does what it is for")
}

// With all the room there is, each item has its cheapest option; with none, its
// smallest.
func TestEnds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		items := random(r)
		got, err := Choose(items, math.MaxInt64/2)
		require.NoError(t, err)
		for i, it := range items {
			least := slices.MinFunc(it.Options, func(a, b Option) int { return int(math.Copysign(1, a.Cost-b.Cost)) })
			require.Equal(t, least.Cost, it.Options[got[i]].Cost)
		}
		got, err = Choose(items, Smallest(items))
		require.NoError(t, err)
		size, _ := sum(items, got)
		require.Equal(t, Smallest(items), size)
		_, err = Choose(items, Smallest(items)-1)
		require.ErrorIs(t, err, ErrTooSmall)
	}
}

// The order of the items does not matter as long as their names differ.
func TestOrderDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		items := random(r)
		for i := range items {
			items[i].Name = fmt.Sprint("t", i)
			for j := range items[i].Options { // of which many are worth the same
				items[i].Options[j] = Option{int64(4 * (j + 1)), float64(10 - j)}
			}
		}
		limit := Smallest(items) + int64(r.IntN(60))
		a, err := Choose(items, limit)
		require.NoError(t, err)
		turned := slices.Clone(items)
		slices.Reverse(turned)
		b, err := Choose(turned, limit)
		require.NoError(t, err)
		slices.Reverse(b)
		require.Equal(t, a, b)
	}
}

// Of equal items the one is served whose name sorts first.
func TestTiesGoByName(t *testing.T) {
	two := []Option{{4, 10}, {8, 1}}
	got, err := Choose([]Item{{"b", two}, {"a", two}}, 12)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1}, got)
}

func TestRefuses(t *testing.T) {
	for _, it := range []Item{{Name: "none"}, {"nan", []Option{{1, math.NaN()}}}, {"inf", []Option{{1, math.Inf(1)}}}, {"negative", []Option{{-1, 1}}}} {
		_, err := Choose([]Item{it}, 100)
		require.ErrorContains(t, err, it.Name)
	}
}

func BenchmarkChoose(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	items := make([]Item, 5000)
	for i := range items {
		items[i].Name = fmt.Sprint(i)
		for o := range 12 {
			items[i].Options = append(items[i].Options, Option{int64(1000 * (o + 2)), math.Exp(-float64(o)) * (0.5 + r.Float64())})
		}
	}
	for b.Loop() {
		if _, err := Choose(items, 5000*6000); err != nil {
			b.Fatal(err)
		}
	}
}
