package ggml

import "github.com/seed18967229/nibble/tensor"

// Budget returns what the relative RMS error of normally distributed values stored as d
// is at most, about; ok is false for a type that is not of this package.
func Budget(d tensor.DType) (relRMS float64, ok bool) {
	for _, t := range types() {
		if t.dtype == d {
			return t.budget, true
		}
	}
	return 0, false
}
