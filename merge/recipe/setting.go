package recipe

import (
	"strings"
)

// A setting is the value of a parameter, which may differ from tensor to tensor.
type setting struct {
	// values are one value, or several that lie over the layers.
	values []any

	// cases, if there are any, have values for tensors whose names contain something.
	cases []filtered
}

type filtered struct {
	filter string // "" or "*" is any
	values []any
}

// at returns the value for a tensor, t being how far its layer is from the first to the last, and
// whether there is one.
func (s *setting) at(tensor string, t float64) (any, bool) {
	if s.cases == nil {
		return over(s.values, t), true
	}
	for _, c := range s.cases {
		if c.filter == "*" || strings.Contains(tensor, c.filter) {
			return over(c.values, t), true
		}
	}
	return nil, false
}

// over returns what lies at t: numbers are interpolated, of anything else the nearest before.
func over(values []any, t float64) any {
	place := t * float64(len(values)-1)
	at := min(int(place), len(values)-1)
	a, isNumber := values[at].(float64)
	b, alsoNumber := values[min(at+1, len(values)-1)].(float64)
	if !isNumber || !alsoNumber {
		return values[at]
	}
	part := place - float64(at)
	return (1-part)*a + part*b
}

// settings are those of one place in a file, by the names of the parameters.
type settings map[string]*setting

// constant returns a setting of one value.
func constant(value any) *setting { return &setting{values: []any{value}} }
