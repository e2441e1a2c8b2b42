package combine

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
)

// byRank drops elements at random, small ones rather than large (Deep et al., "DELLA-Merging",
// 2024): in each row the probability to stay grows with the rank of the magnitude, from
// density - epsilon to density + epsilon.
func byRank(v *vector) (mask, error) {
	if v.Density <= 0 {
		return func(w []float32, _ int64) { clear(w) }, nil
	}
	cols := int(v.shape.Cols())
	return func(w []float32, row int64) {
		order := make([]uint64, cols)
		for ; len(w) > 0; w, row = w[cols:], row+1 {
			for i, x := range w[:cols] {
				order[i] = uint64(math.Float32bits(x)&^(1<<31))<<32 | uint64(i)
			}
			slices.Sort(order)
			for rank, o := range order {
				i := int64(o & math.MaxUint32)
				stays := v.Density
				if cols > 1 {
					stays += v.Epsilon * (2*float64(rank)/float64(cols-1) - 1)
				}
				switch {
				case v.chance(row*int64(cols)+i) >= stays:
					w[i] = 0
				case v.rescale == RescaleDensity:
					w[i] /= float32(stays)
				}
			}
		}
	}, nil
}

// spreads returns an error if a probability would not be one.
func spreads(each []Each) error {
	for _, e := range each {
		if e.Density > 0 && e.Density < 1 && (e.Density+e.Epsilon >= 1 || e.Density-e.Epsilon <= 0) {
			return hint.Add(fmt.Errorf("density %v and epsilon %v: the probabilities must lie between 0 and 1", e.Density, e.Epsilon),
				"choose an epsilon below %.4g", min(e.Density, 1-e.Density))
		}
	}
	return nil
}
