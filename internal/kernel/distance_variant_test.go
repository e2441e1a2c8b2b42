package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDistanceVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 62))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{4 * n, 4 * n}, func(b [][]byte) {
				x, y := floatsOf(b[0]), floatsOf(b[1])
				var want Distance
				var lanes [2][8]float64
				whole := n &^ 7
				for i := range x {
					x[i] = float32(rng.NormFloat64() * math.Pow(2, float64(rng.IntN(60)-30)))
					y[i] = x[i] * float32(1+0.1*rng.NormFloat64())
					u, v := float64(x[i]), float64(x[i])-float64(y[i])
					want.TopX, want.TopY = max(want.TopX, float32(math.Abs(u))), max(want.TopY, float32(math.Abs(float64(y[i]))))
					want.TopError = max(want.TopError, float64(v*v))
					if i < whole {
						lanes[0][i%8] += float64(u * u)
						lanes[1][i%8] += float64(v * v)
					}
				}
				sum := func(l [8]float64) float64 {
					return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
				}
				want.Square, want.Error = sum(lanes[0]), sum(lanes[1])
				for i := whole; i < n; i++ {
					u, v := float64(x[i]), float64(x[i])-float64(y[i])
					want.Square += float64(u * u)
					want.Error += float64(v * v)
				}
				require.Equal(t, want, DistanceOf(x, y), n)
				if n == 0 {
					return
				}
				// What is not finite shows, wherever it is.
				at := rng.IntN(n)
				x[at] = float32(math.Inf(-1))
				require.True(t, math.IsInf(float64(DistanceOf(x, y).TopX), 1))
				x[at], y[at] = 0, float32(math.NaN())
				d := DistanceOf(x, y)
				require.True(t, d.TopY != d.TopY)
			})
		}
		require.Panics(t, func() { DistanceOf(make([]float32, 9), make([]float32, 8)) })
	})
}

func BenchmarkDistance(b *testing.B) {
	x, y := make([]float32, 64), make([]float32, 64)
	for i := range x {
		x[i], y[i] = float32(i), float32(i)+0.5
	}
	b.SetBytes(64)
	for b.Loop() {
		DistanceOf(x, y)
	}
}
