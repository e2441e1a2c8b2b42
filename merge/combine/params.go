package combine

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
)

// Params are what a method is told, for one tensor.
type Params struct {
	// Each has those that every input has its own of.
	Each []Each

	// Lambda multiplies the combination.
	Lambda float64

	// T is how far from the first of two to the second.
	T float64

	// Normalize divides by the sum of the weights.
	Normalize bool

	// Rescale makes up for what was dropped.
	Rescale Rescale

	// Frequency has the sign that most have win in place of that of the sum.
	Frequency bool

	// FilterWise has every row its own ratio.
	FilterWise bool

	// Seed decides what is dropped at random.
	Seed uint64

	// Rank is what the combination is cut to.
	Rank int

	// uniform, if set, is drawn in place of the generator.
	uniform func(input int, target string) uniform
}

// Each are the parameters that every input has its own of.
type Each struct {
	// Weight multiplies the input.
	Weight float64

	// Density is the share of the elements that stay.
	Density float64

	// Gamma is the share of the elements, the largest, that is dropped.
	Gamma float64

	// Epsilon is how far from Density the probabilities of a row spread.
	Epsilon float64
}

// Rescale says how what stays of a vector makes up for what was dropped.
type Rescale uint8

const (
	// NoRescale leaves it.
	NoRescale Rescale = iota
	// RescaleL1 gives it the L1 norm of the whole, as mergekit does.
	RescaleL1
	// RescaleDensity divides it by the probability with which it was kept, so that its
	// expectation is the whole: as the papers and PEFT do.
	RescaleDensity
)

// A Parameter is one of those that a method may be told.
type Parameter struct {
	// Name is mergekit's; PEFT's for what mergekit does not have.
	Name string

	// Each says that every input has its own.
	Each bool

	// About says in a few words what it does, and its default.
	About string

	set func(p *Params, input int, value any) error
}

// Set sets the parameter, of one input if it is of each. The value is a float64, a bool or a
// string.
func (q *Parameter) Set(p *Params, input int, value any) error {
	if err := q.set(p, input, value); err != nil {
		return fmt.Errorf("%s: %w", q.Name, err)
	}
	return nil
}

// idle is a parameter that is often set in mergekit's configurations.
const idle = "int8_mask"

// Parameters returns all there are.
func Parameters() []Parameter {
	each := func(name, about string, check func(float64) error, field func(e *Each) *float64) Parameter {
		return Parameter{name, true, about, func(p *Params, i int, v any) error { return number(field(&p.Each[i]), v, check) }}
	}
	whole := func(name, about string, check func(float64) error, field func(p *Params) *float64) Parameter {
		return Parameter{name, false, about, func(p *Params, _ int, v any) error { return number(field(p), v, check) }}
	}
	yes := func(name, about string, field func(p *Params) *bool) Parameter {
		return Parameter{name, false, about, func(p *Params, _ int, v any) error {
			return choose(field(p), v, choice[bool]{true, true}, choice[bool]{false, false})
		}}
	}
	return []Parameter{
		each("weight", "what the adapter or model is multiplied by (default 1)", anyFinite, func(e *Each) *float64 { return &e.Weight }),
		each("density", "share of the elements that stay (default 1)", share, func(e *Each) *float64 { return &e.Density }),
		each("gamma", "share of the elements, the largest, that is dropped (default 0.01)", share, func(e *Each) *float64 { return &e.Gamma }),
		each("epsilon", "how far the probabilities of a row spread from the density (default 0.15)", share, func(e *Each) *float64 { return &e.Epsilon }),
		whole("lambda", "what the combination is multiplied by (default 1)", anyFinite, func(p *Params) *float64 { return &p.Lambda }),
		whole("t", "how far from the first of two to the second, 0 to 1", share, func(p *Params) *float64 { return &p.T }),
		yes("normalize", "divide by the sum of the weights", func(p *Params) *bool { return &p.Normalize }),
		{"rescale", false, "what makes up for what was dropped: l1 or true (the norm), density (the share that stays), none or false",
			func(p *Params, _ int, v any) error {
				return choose(&p.Rescale, v, choice[Rescale]{"l1", RescaleL1}, choice[Rescale]{"density", RescaleDensity}, choice[Rescale]{"none", NoRescale},
					choice[Rescale]{true, RescaleL1}, choice[Rescale]{false, NoRescale})
			}},
		{"majority_sign_method", false, "whose sign wins: total (that of the sum) or frequency (that of most)",
			func(p *Params, _ int, v any) error {
				return choose(&p.Frequency, v, choice[bool]{"total", false}, choice[bool]{"frequency", true})
			}},
		yes("filter_wise", "a ratio for every row", func(p *Params) *bool { return &p.FilterWise }),
		{"seed", false, "which elements are dropped at random (default 0)", func(p *Params, _ int, v any) error {
			return whole64(v, 1<<53, func(n uint64) { p.Seed = n })
		}},
		{"rank", false, "what the combination is cut to (default the largest rank there is)", func(p *Params, _ int, v any) error {
			return whole64(v, 1<<20, func(n uint64) { p.Rank = int(n) })
		}},
		{idle, false, "mergekit saves memory by it; here it changes nothing", func(p *Params, _ int, v any) error {
			var none bool
			return choose(&none, v, choice[bool]{true, true}, choice[bool]{false, false})
		}},
	}
}

// ParameterByName returns a parameter, nil if there is none of that name.
func ParameterByName(name string) *Parameter {
	all := Parameters()
	if i := slices.IndexFunc(all, func(q Parameter) bool { return q.Name == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

func anyFinite(v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("%v is not a finite number", v)
	}
	return nil
}

func share(v float64) error {
	if !(v >= 0 && v <= 1) {
		return fmt.Errorf("%v, want 0 to 1", v)
	}
	return nil
}

func number(to *float64, value any, check func(float64) error) error {
	v, ok := value.(float64)
	if !ok {
		return fmt.Errorf("%v is not a number", value)
	}
	if err := check(v); err != nil {
		return err
	}
	*to = v
	return nil
}

func whole64(value any, limit float64, set func(uint64)) error {
	v, ok := value.(float64)
	if !ok || !(v >= 0 && v <= limit) || v != math.Trunc(v) {
		return fmt.Errorf("%v, want a whole number from 0 to %.0f", value, limit)
	}
	set(uint64(v))
	return nil
}

type choice[T any] struct {
	word  any
	means T
}

func choose[T any](to *T, value any, choices ...choice[T]) error {
	var words []string
	for _, c := range choices {
		if c.word == value {
			*to = c.means
			return nil
		}
		words = append(words, fmt.Sprint(c.word))
	}
	return hint.Add(fmt.Errorf("%v is none of those there are", value), "there are: %s", strings.Join(words, ", "))
}
