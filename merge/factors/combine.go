package factors

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/lowrank"
	"github.com/seed18967229/nibble/tensor"
)

// A Part is one adapter's share of a module that is combined.
type Part struct {
	*Pair
	Weight float64
}

// Options are what a method may be told.
type Options struct {
	// Rank is the highest of the result; 0 is that of the largest part.
	Rank int

	// Density is the share of the numbers that pruning keeps.
	Density float64

	// Seed decides which numbers are dropped at random. Module is a number of the module's
	// own, so that no two get the same.
	Seed, Module uint64

	// Frequency has the sign that most have win in place of that of the sum.
	Frequency bool
}

// A Method makes one pair of those that several adapters have for a module. The scale of
// the result is 1.
type Method struct {
	Name string

	// About says in a few words what it does.
	About string

	// Exact says that the result is the sum of the deltas times their weights.
	Exact bool

	// SameRank says that all parts must have one rank; Prunes that it needs a density.
	SameRank, Prunes bool

	// Ranked says that the result is cut to Options.Rank.
	Ranked bool

	Combine func(parts []Part, o Options) (*Pair, error)
}

// Methods returns every method there is, the one to take without a reason for another
// first. Those of PEFT are its add_weighted_adapter's: but for cat and svd they work on A
// and on B apart from each other, so that their products have cross terms.
func Methods() []Method {
	return []Method{
		{Name: "cat", About: "the exact sum; ranks add up", Exact: true, Combine: cat},
		{Name: "svd", About: "the sum, cut to --rank", Ranked: true, Combine: svd},
		{Name: "linear", About: "the exact sum at the lowest rank that holds it", Exact: true, Combine: linear},
		{Name: "peft-linear", About: "PEFT's linear: factors are summed, which adds cross terms", SameRank: true, Combine: perFactor(keepAll, weighted)},
		{Name: "peft-ties", About: "PEFT's ties, on the factors", SameRank: true, Prunes: true, Combine: perFactor(pruneSmall, elect)},
		{Name: "peft-dare_linear", About: "PEFT's dare_linear, on the factors", SameRank: true, Prunes: true, Combine: perFactor(dropRandom, weighted)},
		{Name: "peft-dare_ties", About: "PEFT's dare_ties, on the factors", SameRank: true, Prunes: true, Combine: perFactor(dropRandom, elect)},
		{Name: "peft-magnitude_prune", About: "PEFT's magnitude_prune, on the factors", SameRank: true, Prunes: true, Combine: perFactor(pruneSmall, weighted)},
	}
}

// ByName returns a method, or an error that lists them.
func ByName(name string) (*Method, error) {
	var names []string
	for _, m := range Methods() {
		if m.Name == name {
			return &m, nil
		}
		names = append(names, m.Name)
	}
	return nil, hint.Add(fmt.Errorf("no method %q for combining adapters", name), "there are: %s", strings.Join(names, ", "))
}

// Apart returns the norm of the sum of the parts' deltas times their weights, and the norm of
// the difference to it of what the method made of them over that.
func (m *Method) Apart(parts []Part, made *Pair) (norm, apart float64, err error) {
	sum, err := cat(parts, Options{})
	if err != nil {
		return 0, 0, err
	}
	norm = sum.Norm()
	if m.Exact || norm == 0 {
		return norm, 0, nil
	}
	diff, err := cat([]Part{{sum, 1}, {made, -1}}, Options{})
	if err != nil {
		return 0, 0, err
	}
	return norm, diff.Norm() / norm, nil
}

// checkParts returns an error if the parts are of weights of different shapes.
func checkParts(parts []Part) error {
	for _, p := range parts[1:] {
		if p.Out != parts[0].Out || p.In != parts[0].In {
			return hint.Add(fmt.Errorf("%w: one is for a layer of %d to %d, another of %d to %d", tensor.ErrMalformed, parts[0].In, parts[0].Out, p.In, p.Out),
				"were the adapters trained on the same model?")
		}
	}
	return nil
}

// cat puts the factors side by side: [w₁s₁B₁, w₂s₂B₂ ...] · [A₁; A₂ ...]. The weight and
// the scale go to both sides by their root, which keeps the factors in balance.
func cat(parts []Part, _ Options) (*Pair, error) {
	if err := checkParts(parts); err != nil {
		return nil, err
	}
	out := &Pair{Out: parts[0].Out, In: parts[0].In, Scale: 1}
	for _, p := range parts {
		out.Rank += p.Rank
	}
	out.B, out.A = make([]float32, out.Out*out.Rank), make([]float32, 0, out.Rank*out.In)
	at := 0
	for _, p := range parts {
		left, right := split(p.Weight * p.Scale)
		for i := range p.Out {
			for j, v := range p.B[i*p.Rank:][:p.Rank] {
				out.B[i*out.Rank+at+j] = v * left
			}
		}
		for _, v := range p.A {
			out.A = append(out.A, v*right)
		}
		at += p.Rank
	}
	return out, nil
}

// split returns two numbers with that product and, but for the sign, of one size.
func split(w float64) (left, right float32) {
	root := math.Sqrt(math.Abs(w))
	return float32(root), float32(math.Copysign(root, w))
}

// linear is cat without the ranks that add nothing.
func linear(parts []Part, o Options) (*Pair, error) {
	sum, err := cat(parts, o)
	if err != nil {
		return nil, err
	}
	f := sum.Decompose()
	return Cut(f, max(1, Spectrum(f.Values).EnergyRank(1))), nil
}

// svd is linear, cut.
func svd(parts []Part, o Options) (*Pair, error) {
	rank := o.Rank
	if rank == 0 {
		rank = slices.MaxFunc(parts, func(a, b Part) int { return cmp.Compare(a.Rank, b.Rank) }).Rank
	}
	out, err := linear(parts, o)
	if err != nil || out.Rank <= rank {
		return out, err
	}
	return Cut(&lowrank.Factors{Rank: out.Rank, B: out.B, A: out.A, Values: make([]float64, out.Rank)}, rank), nil
}

// A prune returns the numbers of one adapter's factor that are kept, the others zero.
type prune func(x []float32, o Options, stream uint64) []float32

// A combination adds up what adapters have for one factor, times their weights.
type combination func(list [][]float32, weights []float64, o Options) []float32

// perFactor is PEFT's way: A and B are combined apart from each other, with the roots of
// the weights, the sign of a negative one on A alone.
func perFactor(keep prune, combine combination) func([]Part, Options) (*Pair, error) {
	return func(parts []Part, o Options) (*Pair, error) {
		if err := checkParts(parts); err != nil {
			return nil, err
		}
		out := &Pair{Out: parts[0].Out, In: parts[0].In, Rank: parts[0].Rank, Scale: 1}
		var as, bs [][]float32
		var forA, forB []float64
		for i, p := range parts {
			if p.Rank != out.Rank {
				return nil, hint.Add(fmt.Errorf("%w: ranks %d and %d", tensor.ErrUnsupported, out.Rank, p.Rank), "cat and svd combine adapters of different ranks")
			}
			w := p.Weight * p.Scale
			root := math.Sqrt(math.Abs(w))
			forA, forB = append(forA, math.Copysign(root, w)), append(forB, root)
			as, bs = append(as, keep(p.A, o, 2*uint64(i))), append(bs, keep(p.B, o, 2*uint64(i)+1))
		}
		out.A, out.B = combine(as, forA, o), combine(bs, forB, o)
		return out, nil
	}
}

func keepAll(x []float32, _ Options, _ uint64) []float32 { return x }

// pruneSmall keeps the largest magnitudes: the whole part of density times their number.
func pruneSmall(x []float32, o Options, _ uint64) []float32 {
	n := int(o.Density * float64(len(x)))
	if n >= len(x) {
		return x
	}
	order := make([]int32, len(x))
	for i := range order {
		order[i] = int32(i)
	}
	size := func(i int32) float64 { return math.Abs(float64(x[i])) }
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(size(b), size(a)) })
	out := make([]float32, len(x))
	for _, i := range order[:n] {
		out[i] = x[i]
	}
	return out
}

// dropRandom keeps each number with the probability density, and makes up for the others
// by dividing. What is kept depends on the seed and the place alone.
func dropRandom(x []float32, o Options, stream uint64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		if uniform(o.Seed, o.Module, stream, uint64(i)) < o.Density {
			out[i] = float32(float64(v) / o.Density)
		}
	}
	return out
}

// uniform is a number in [0, 1) that depends on its arguments alone (SplitMix64).
func uniform(keys ...uint64) float64 {
	var z uint64
	for _, k := range keys {
		z += k + 0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
	}
	return float64(z>>11) / (1 << 53)
}

// weighted is the sum times the weights.
func weighted(list [][]float32, weights []float64, _ Options) []float32 {
	out := make([]float32, len(list[0]))
	for i := range out {
		var sum float64
		for j, x := range list {
			sum += weights[j] * float64(x[i])
		}
		out[i] = float32(sum)
	}
	return out
}

// elect is the sum of those that have the sign that wins, over how many there are: TIES
// (2306.01708), where PEFT takes the sign before the weights are applied, and calls it
// positive in a draw.
func elect(list [][]float32, weights []float64, o Options) []float32 {
	out := make([]float32, len(list[0]))
	for i := range out {
		var vote float64
		for _, x := range list {
			v := float64(x[i])
			if o.Frequency && v != 0 {
				v = math.Copysign(1, v)
			}
			vote += v
		}
		var sum, n float64
		for j, x := range list {
			if v := float64(x[i]); v > 0 && vote >= 0 || v < 0 && vote < 0 {
				sum, n = sum+weights[j]*v, n+1
			}
		}
		out[i] = float32(sum / max(1, n))
	}
	return out
}
