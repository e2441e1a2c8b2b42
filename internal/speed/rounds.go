package speed

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/seed18967229/nibble/internal/kernel"
)

// A Case is a piece of work to be timed.
type Case struct {
	// Variant names the loops of internal/kernel to use; "" is those in use.
	Variant string

	// Threads is how many processors Go may use; 0 is all that it may use now.
	Threads int

	// Work is what one call of Run does, in the unit that rates are wanted in.
	Work float64

	// Run does the work. It is repeated until the time can be measured, with
	// the same operands.
	Run func() error

	// Most bounds the number of rounds that the case takes part in, for what is
	// slow; 0 does not. One that takes part in a single round does not run before.
	Most int
}

// Rates are those of a case in each of its rounds, in Work a second.
type Rates []float64

// Median returns the middle one, 0 if there is none.
func (r Rates) Median() float64 {
	if len(r) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(r))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Best returns the highest.
func (r Rates) Best() float64 {
	best := 0.0
	for _, x := range r {
		best = max(best, x)
	}
	return best
}

// Over returns the ratios of two cases' rates round by round, as far as both go.
func (r Rates) Over(s Rates) Rates {
	out := make(Rates, min(len(r), len(s)))
	for i := range out {
		out[i] = r[i] / s[i]
	}
	return out
}

// shortest is what one timing takes at least.
const shortest = 20 * time.Millisecond

// Rounds runs the cases in turn, as many times as asked, and returns the rates of
// each. A case runs once before it is timed for the first time. done is called after
// each timing. Nothing else may use internal/kernel meanwhile.
func Rounds(ctx context.Context, cases []Case, rounds int, done func()) ([]Rates, error) {
	rates := make([]Rates, len(cases))
	repeat := make([]int, len(cases))
	for round := range rounds {
		for i, c := range cases {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if c.Most > 0 && round >= c.Most {
				continue
			}
			err := c.with(func() error {
				if c.Most == 1 {
					repeat[i] = 1
				} else if repeat[i] == 0 {
					once, err := timed(c.Run, 1)
					if err != nil {
						return err
					}
					repeat[i] = int(math.Ceil(float64(shortest) / float64(max(once, 1))))
				}
				took, err := timed(c.Run, repeat[i])
				rates[i] = append(rates[i], c.Work*float64(repeat[i])/took.Seconds())
				return err
			})
			if err != nil {
				return nil, err
			}
			done()
		}
	}
	return rates, nil
}

// Timings returns how often Rounds calls done.
func Timings(cases []Case, rounds int) int {
	n := 0
	for _, c := range cases {
		if c.Most > 0 {
			n += min(rounds, c.Most)
		} else {
			n += rounds
		}
	}
	return n
}

// with runs f with the case's loops and processors.
func (c Case) with(f func() error) error {
	if c.Threads > 0 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.Threads))
	}
	if c.Variant == "" {
		return f()
	}
	if !slices.Contains(kernel.Variants(), c.Variant) {
		return fmt.Errorf("no loops named %q on this machine", c.Variant)
	}
	return kernel.With(c.Variant, f)
}

func timed(f func() error, n int) (time.Duration, error) {
	start := time.Now()
	for range n {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return max(time.Since(start), 1), nil
}

// Share calls f(from, to) for parts of n, four for each processor that Go may use, at
// once; all but the last are multiples of step. Whoever is done takes the next part, as
// the loops of internal/kernel do, so that a processor that is busy otherwise holds up
// no more than it must.
func Share(n, step int, f func(from, to int) error) error {
	parts := 1
	if workers := runtime.GOMAXPROCS(0); workers > 1 {
		parts = 4 * workers
	}
	part := ((n+step-1)/step + parts - 1) / parts * step
	return kernel.Each(parts, math.MaxInt64, func(i int) error {
		if from, to := min(n, i*part), min(n, (i+1)*part); from < to {
			return f(from, to)
		}
		return nil
	})
}

// MultiplyAdds returns the case of multiply-adds that wait for nothing, by the loops of
// that name on so many processors: the most that a product of matrices can reach.
// Work is in floating-point operations.
func MultiplyAdds(variant string, threads int) Case {
	const steps, pieces = 1 << 14, 8
	var once float64
	_ = kernel.With(variant, func() error { once = kernel.MultiplyAdd(1); return nil })
	return Case{Variant: variant, Threads: threads, Work: once * steps * pieces * float64(threads), Run: func() error {
		return Share(pieces*threads, 1, func(from, to int) error {
			kernel.MultiplyAdd(steps * (to - from))
			return nil
		})
	}}
}
