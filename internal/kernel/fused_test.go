package kernel

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A fused multiply-add is the exact result, rounded.
func TestFused(t *testing.T) {
	rng := rand.New(rand.NewPCG(51, 52))
	number := func() float32 {
		// Exponents that are near each other, so that roundings meet.
		return math.Float32frombits(rng.Uint32()&0x807fffff | uint32(115+rng.IntN(20))<<23)
	}
	exact := func(a, b, c float32) float32 {
		x := new(big.Float).SetPrec(600).Mul(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
		r, _ := x.Add(x, big.NewFloat(float64(c))).Float32()
		return r
	}
	check := func(a, b, c float32) {
		require.Equal(t, exact(a, b, c), fusedGo(a, b, c), "%g * %g + %g", a, b, c)
		require.Equal(t, bitsOf(fusedGo(a, b, c)), bitsOf(fused(a, b, c)), "%g * %g + %g", a, b, c)
	}
	for range 200000 {
		a, b := number(), number()
		check(a, b, number())
		// Sums that lie all but halfway between two numbers.
		check(1+0x1p-12, 1+0x1p-12, number()*0x1p-30)
		check(a, b, -float32(a*b))
		check(a, b*0x1p-24, a*float32(rng.IntN(1<<12)))
	}
	for _, x := range [][3]float32{{0, 1, 0}, {1e-30, 1e-30, 1e-45}, {1e-38, 0.5, 1e-45}, {3e38, 2, -3e38}, {-1e-45, 1e-45, 0x1p-126}} {
		check(x[0], x[1], x[2])
	}
	inf := float32(math.Inf(1))
	require.Equal(t, inf, fused(inf, 1, 1))
	require.True(t, math.IsNaN(float64(fused(inf, 1, -inf))))
}

// The product has the same bits in every variant and on every machine: those of the
// hash, which was taken from the AVX-512 variant.
func TestMulFusedIsTheSameEverywhere(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(53, 54))
		h := fnv.New64a()
		for _, s := range [][3]int{{1, 1, 1}, {3, 5, 7}, {1, 64, 200}, {20, 16, 33}, {33, 256, 40}, {17, 300, 70}, {5, 520, 31}} {
			m, k, n := s[0], s[1], s[2]
			random := func(n int) []float32 {
				x := make([]float32, n)
				for i := range x {
					x[i] = (rng.Float32() - 0.5) * float32(int(1)<<rng.IntN(12))
				}
				return x
			}
			dy, w, dx := random(m*k), Dense{random(k * n), k, n}, random(m*n)
			MulFused(dx, dy, m, w)
			for i, v := range dx {
				sum := 0.0
				for j := range k {
					sum += float64(dy[i/n*k+j]) * float64(w.Data[j*n+i%n])
				}
				require.InDelta(t, sum, v, 1e-2*(1+math.Abs(sum)))
			}
			require.NoError(t, binary.Write(h, binary.LittleEndian, dx))
		}
		require.Equal(t, uint64(0xedf6dd08f0ceafd7), h.Sum64())
	})
}
