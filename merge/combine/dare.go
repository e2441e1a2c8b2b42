package combine

// atRandom drops elements at random (Yu et al., "Language Models are Super Mario", 2023).
func atRandom(v *vector) (mask, error) {
	return v.masked(func(_ float32, at int64) bool { return v.chance(at) < v.Density }), nil
}
