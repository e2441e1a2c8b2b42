package combine

// outliers drops the largest elements and the smallest (Davari and Belilovsky, "Model
// Breadcrumbs", 2023): gamma is the share of the large ones, and of the small so many that the
// density is what stays.
func outliers(v *vector) (mask, error) {
	all := v.shape.Elems()
	stay, large := shareOf(v.Density, all), shareOf(v.Gamma, all)
	small := all - stay - large
	if small < 0 {
		large, small = large+small, 0
	}
	drop, upTo := &count{n: small}, &count{n: all - large}
	if err := lead(v.shape, v.rows, []*count{drop, upTo}); err != nil {
		return nil, err
	}
	least, most, factor, cols := drop.leading, upTo.leading, v.factor(), v.shape.Cols()
	return func(w []float32, row int64) {
		for i, x := range w {
			at := row*cols + int64(i)
			w[i] = factor * masked(x, most.has(x, at)&^least.has(x, at))
		}
	}, nil
}
