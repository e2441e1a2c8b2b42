package budget

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrTooSmall says that even the smallest options are more than the limit.
var ErrTooSmall = errors.New("the limit is too small")

// An Option is what an item takes and what it costs.
type Option struct {
	Size int64
	Cost float64
}

// An Item is to have one of its options. Where two items are worth the same, the one
// whose name sorts first is served first.
type Item struct {
	Name    string
	Options []Option
}

// Smallest returns the least that all items take together.
func Smallest(items []Item) (n int64) {
	for _, it := range items {
		n += it.Options[smallest(it.Options)].Size
	}
	return n
}

// Choose returns the index of an option for each item. The sizes add up to limit at
// most, or the error wraps ErrTooSmall. Each item must have an option, sizes must not
// be negative, and costs must be numbers.
func Choose(items []Item, limit int64) ([]int, error) {
	for _, it := range items {
		if len(it.Options) == 0 {
			return nil, fmt.Errorf("%q has no option", it.Name)
		}
		for _, o := range it.Options {
			if o.Size < 0 || math.IsNaN(o.Cost) || math.IsInf(o.Cost, 0) {
				return nil, fmt.Errorf("%q has an option of size %d and cost %v", it.Name, o.Size, o.Cost)
			}
		}
	}
	left := limit - Smallest(items)
	if left < 0 {
		return nil, fmt.Errorf("%w: %d, and the smallest options take %d", ErrTooSmall, limit, limit-left)
	}
	chosen := make([]int, len(items))
	for i, it := range items {
		chosen[i] = smallest(it.Options)
	}
	left = climb(items, chosen, left)
	fill(items, chosen, left)
	return chosen, nil
}

// smallest returns the smallest option, of several the cheapest, and of those the first.
func smallest(options []Option) int {
	best := 0
	for i, o := range options {
		if b := options[best]; o.Size < b.Size || o.Size == b.Size && o.Cost < b.Cost {
			best = i
		}
	}
	return best
}

// A step moves an item to another option: more bytes, less cost.
type step struct {
	item, to int
	size     int64
	gain     float64
}

// rate is how much cost a byte saves.
func (s step) rate() float64 { return s.gain / float64(s.size) }

// hull returns the steps from the smallest option along the lower convex hull of
// cost over size. Each has a lower rate than the one before.
func hull(item int, options []Option) []step {
	order := make([]int, len(options))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(options[a].Size, options[b].Size), cmp.Compare(options[a].Cost, options[b].Cost))
	})
	corners := order[:1:1]
	for _, i := range order[1:] {
		if !(options[i].Cost < options[corners[len(corners)-1]].Cost) {
			continue // takes more and costs no less
		}
		for n := len(corners); n > 1; n-- {
			a, b := corners[n-2], corners[n-1]
			if between(item, options, a, b).rate() > between(item, options, b, i).rate() {
				break
			}
			corners = corners[:n-1]
		}
		corners = append(corners, i)
	}
	var out []step
	for n := range corners[1:] {
		out = append(out, between(item, options, corners[n], corners[n+1]))
	}
	return out
}

func between(item int, options []Option, a, b int) step {
	return step{item, b, options[b].Size - options[a].Size, options[a].Cost - options[b].Cost}
}

// climb takes the steps of all hulls in the order of their rates. An item whose next
// step does not fit stays where it is. It returns what is left.
func climb(items []Item, chosen []int, left int64) int64 {
	var steps []step
	for i, it := range items {
		steps = append(steps, hull(i, it.Options)...)
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(b.rate(), a.rate()), cmp.Compare(items[a.item].Name, items[b.item].Name))
	})
	stopped := make([]bool, len(items))
	for _, s := range steps {
		if stopped[s.item] {
			continue
		}
		if s.size > left {
			stopped[s.item] = true
			continue
		}
		chosen[s.item] = s.to
		left -= s.size
	}
	return left
}

// fill spends what is left: in each round, every item's option that saves most of
// those that fit is a candidate, and the candidates are taken in the order of what
// they save.
func fill(items []Item, chosen []int, left int64) {
	for taken := true; taken; {
		taken = false
		var steps []step
		for i, it := range items {
			best := step{gain: 0}
			for o := range it.Options {
				if s := between(i, it.Options, chosen[i], o); s.size <= left && s.gain > best.gain {
					best = s
				}
			}
			if best.gain > 0 {
				steps = append(steps, best)
			}
		}
		slices.SortStableFunc(steps, func(a, b step) int {
			return cmp.Or(cmp.Compare(b.gain, a.gain), cmp.Compare(items[a.item].Name, items[b.item].Name))
		})
		for _, s := range steps {
			if s.size <= left {
				chosen[s.item], taken = s.to, true
				left -= s.size
			}
		}
	}
}
