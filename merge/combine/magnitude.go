package combine

// smallest drops all but the largest elements: the pruning of TIES and of PEFT's
// magnitude_prune.
func smallest(v *vector) (mask, error) {
	c := &count{n: shareOf(v.Density, v.shape.Elems()), leading: leading{order: descending}}
	if err := lead(v.shape, v.rows, []*count{c}); err != nil {
		return nil, err
	}
	large, factor, cols := c.leading, v.factor(), v.shape.Cols()
	return func(w []float32, row int64) {
		for i, x := range w {
			w[i] = factor * masked(x, large.has(x, row*cols+int64(i)))
		}
	}, nil
}
