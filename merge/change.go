package merge

// A Change is what is done to one base tensor: a sum with deltas, or what is
// none, such as other values in place of its own. Like a Delta it is pure.
type Change interface {
	// Target names the base tensor.
	Target() string

	// Apply changes whole rows of the target, w, the first of which is row.
	Apply(w []float32, row int64) error
}

// Sum returns the change that adds deltas, all of one target, in that order.
func Sum(deltas ...Delta) Change { return &sum{deltas} }

type sum struct{ deltas []Delta }

// Target implements Change.
func (s *sum) Target() string { return s.deltas[0].Target() }

// Apply implements Change.
func (s *sum) Apply(w []float32, row int64) error {
	for _, d := range s.deltas {
		if err := d.AddRows(w, row, 1); err != nil {
			return err
		}
	}
	return nil
}

// Sums returns the sums of deltas, one for each target, in the order in which
// they come first.
func Sums(deltas []Delta) []Change {
	var order []string
	by := make(map[string][]Delta)
	for _, d := range deltas {
		t := d.Target()
		if by[t] == nil {
			order = append(order, t)
		}
		by[t] = append(by[t], d)
	}
	out := make([]Change, len(order))
	for i, t := range order {
		out[i] = Sum(by[t]...)
	}
	return out
}
