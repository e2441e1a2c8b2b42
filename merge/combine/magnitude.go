package combine

// smallest drops all but the largest elements: the pruning of TIES and of PEFT's
// magnitude_prune.
func smallest(v *vector) (mask, error) {
	c := &count{n: shareOf(v.Density, v.shape.Elems()), leading: leading{descending: true}}
	if err := lead(v.shape, v.rows, []*count{c}); err != nil {
		return nil, err
	}
	return v.masked(c.has), nil
}
