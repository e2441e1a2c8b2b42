package factors

import (
	"cmp"
	"slices"

	"github.com/seed18967229/nibble/internal/lowrank"
)

// Cut returns the pair of a decomposition at a rank, which is at most its own, with a scale
// of 1. The factors share the singular values: B is U·√S, A is √S·Vᵀ.
func Cut(f *lowrank.Factors, rank int) *Pair {
	rank = min(rank, f.Rank)
	cut := f.Cut(rank)
	return &Pair{Out: len(f.B) / f.Rank, In: len(f.A) / f.Rank, Rank: rank, B: cut.B, A: cut.A, Scale: 1}
}

// A Budget says what rank each module gets. What is not set is no limit.
type Budget struct {
	// Rank is the highest rank of a module.
	Rank int

	// Energy is the share of its energy that each module is to keep.
	Energy float64

	// Params is how many numbers all modules may have together. They go where they
	// take away most of the error, each for its price: out + in numbers buy the square
	// of one singular value.
	Params int64
}

// A Candidate is a module that gets a rank.
type Candidate struct {
	Out, In  int
	Spectrum Spectrum

	// Energy is that of the whole delta, of which Spectrum may have the first values
	// only; 0 stands for the sum of their squares.
	Energy float64
}

// Ranks returns the rank of each module, 0 for one whose delta is zero or that got nothing.
func (b Budget) Ranks(list []Candidate) []int {
	out := make([]int, len(list))
	for i, c := range list {
		s := c.Spectrum
		if b.Rank > 0 {
			s = s[:min(b.Rank, len(s))]
		}
		if b.Energy > 0 {
			out[i] = s.reach(b.Energy * max(c.Energy, c.Spectrum.squares(0)))
		} else {
			out[i] = s.EnergyRank(1)
		}
	}
	if b.Params > 0 {
		b.share(list, out)
	}
	return out
}

// reach returns how many values it takes for an energy, at most all that are not zero.
func (s Spectrum) reach(energy float64) int {
	sum := 0.0
	for i, v := range s {
		// What is short of it by rounding alone is enough.
		if sum >= energy*(1-1e-9) || v == 0 {
			return i
		}
		sum += v * v
	}
	return len(s)
}

// share lowers ranks until all modules together have at most b.Params numbers: the values
// are bought in the order of what they take away for each number, which for values that
// descend is the best there is, but for the last that does not fit.
func (b Budget) share(list []Candidate, ranks []int) {
	type value struct {
		module, at int
		worth      float64
	}
	var all []value
	for i, c := range list {
		for k, v := range c.Spectrum[:ranks[i]] {
			all = append(all, value{i, k, v * v / float64(c.Out+c.In)})
		}
	}
	slices.SortStableFunc(all, func(x, y value) int { return cmp.Compare(y.worth, x.worth) })
	clear(ranks)
	left := b.Params
	for _, v := range all {
		price := int64(list[v.module].Out) + int64(list[v.module].In)
		if v.at == ranks[v.module] && price <= left {
			ranks[v.module]++
			left -= price
		}
	}
}
