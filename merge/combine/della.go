package combine

import (
	"fmt"
	"math"

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
		order, spare := make([]uint64, cols), make([]uint64, cols)
		for ; len(w) > 0; w, row = w[cols:], row+1 {
			for i, x := range w[:cols] {
				order[i] = uint64(math.Float32bits(x)&(1<<31-1))<<32 | uint64(i)
			}
			sortUpper(order, spare)
			for rank, o := range order {
				i := int64(o & math.MaxUint32)
				stays := v.Density
				if cols > 1 {
					stays += v.Epsilon * (2*float64(rank)/float64(cols-1) - 1)
				}
				w[i] = masked(w[i], below(v.chance.at(row*int64(cols)+i), limit(stays)))
				if v.rescale == RescaleDensity {
					w[i] /= float32(stays)
				}
			}
		}
	}, nil
}

// sortUpper sorts by the upper 32 bits and keeps the order of what is equal there: byte by byte,
// by way of spare, which is as long.
func sortUpper(x, spare []uint64) {
	for shift := 32; shift < 64; shift += 8 {
		var at [256]int
		for _, v := range x {
			at[v>>shift&255]++
		}
		sum := 0
		for i, n := range at {
			at[i], sum = sum, sum+n
		}
		for _, v := range x {
			b := v >> shift & 255
			spare[at[b]] = v
			at[b]++
		}
		x, spare = spare, x
	}
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
