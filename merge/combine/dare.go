package combine

// atRandom drops elements at random (Yu et al., "Language Models are Super Mario", 2023).
func atRandom(v *vector) (mask, error) {
	chance, stays, factor, cols := v.chance, limit(v.Density), v.factor(), v.shape.Cols()
	return func(w []float32, row int64) {
		for i, x := range w {
			w[i] = factor * masked(x, below(chance.at(row*cols+int64(i)), stays))
		}
	}, nil
}
