//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var (
	distanceAVX2   = distanceLoops{distance: distance8AVX2}
	distanceAVX512 = distanceLoops{distance: distance8AVX512}
)

// The result would be on the heap if these were one function that is given the loop.

func distance8AVX2(x, y []float32) (d Distance) {
	simd.DistanceAVX2(&d.Square, &x[0], &y[0], len(x))
	return d
}

func distance8AVX512(x, y []float32) (d Distance) {
	simd.DistanceAVX512(&d.Square, &x[0], &y[0], len(x))
	return d
}
