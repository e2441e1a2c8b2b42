package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// nf4Values and fp4Values are two tables of 4-bit codes: one in order, one not.
var nf4Values = [16]float32{
	-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
}

var fp4Values = [16]float32{
	0, 0.0625 / 12.0, 8.0 / 12.0, 1, 4.0 / 12.0, 6.0 / 12.0, 2.0 / 12.0, 3.0 / 12.0,
	0, -0.0625 / 12.0, -8.0 / 12.0, -1, -4.0 / 12.0, -6.0 / 12.0, -2.0 / 12.0, -3.0 / 12.0,
}

func fill(rng *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

func requireBits(t testing.TB, want, got []float32, msg ...any) {
	t.Helper()
	for i := range want {
		if bitsOf(want[i]) != bitsOf(got[i]) {
			require.Fail(t, "bits differ", "element %d of %d: %v, want %v; %v", i, len(want), got[i], want[i], msg)
		}
	}
}

func TestDecode4Variants(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	eachVariant(t, func(t *testing.T) {
		for _, block := range []int{2, 18, 32, 48, 64, 128, 256} {
			for _, n := range lengths() {
				blocks := (n + block - 1) / block
				guarded(t, []int{4 * n, (n + 1) / 2, 4 * blocks}, func(b [][]byte) {
					fill(rng, b[1])
					absmax := floatsOf(b[2])
					for i := range absmax {
						absmax[i] = float32(math.Ldexp(rng.Float64(), rng.IntN(300)-160))
					}
					want := make([]float32, n)
					for i := range want {
						want[i] = fp4Values[b[1][i/2]>>(4-4*(i%2))&15] * absmax[i/block]
					}
					got := floatsOf(b[0])
					Decode4(got, b[1], &fp4Values, absmax, block)
					requireBits(t, want, got, block)
				})
			}
		}
		require.Panics(t, func() { Decode4(make([]float32, 65), make([]byte, 32), &nf4Values, make([]float32, 2), 64) })
		require.Panics(t, func() { Decode4(make([]float32, 65), make([]byte, 33), &nf4Values, make([]float32, 1), 64) })
	})
}

// benchVariants runs a benchmark with every variant; bytes are those that a round
// goes through and elements what it makes.
func benchVariants(b *testing.B, bytes, elements int, f func()) {
	for _, v := range variants() {
		b.Run(v.name, func(b *testing.B) {
			with(b, v)
			b.SetBytes(int64(bytes))
			for b.Loop() {
				f()
			}
			b.ReportMetric(float64(elements)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
		})
	}
}

func BenchmarkDecode4(b *testing.B) {
	for _, n := range []int{4 << 10, 128 << 10, 16 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dst, codes, absmax := make([]float32, n), make([]byte, n/2), make([]float32, n/64)
			fill(rand.New(rand.NewPCG(1, 2)), codes)
			benchVariants(b, 4*n, n, func() { Decode4(dst, codes, &nf4Values, absmax, 64) })
		})
	}
}
