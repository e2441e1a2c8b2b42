package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// iq4Values are those of IQ4_NL.
var iq4Values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// nearest16 is the rule as ggml has it.
func nearest16(x float32) int {
	if x <= iq4Values[0] {
		return 0
	}
	i := 0
	for i < 15 && !(x < iq4Values[i+1]) {
		i++
	}
	if i == 15 || x-iq4Values[i] < iq4Values[i+1]-x {
		return i
	}
	return i + 1
}

// requireFits compares with the plain loops on one block.
func requireFits(t testing.TB, x, weights *[32]float32, inverse *[16]float32) {
	table := NewTable16(iq4Values)
	var want, got Sums16
	fit16Go(&want, table, inverse, x, weights)
	table.Fit(&got, inverse, x, weights)
	for i := range inverse {
		// Which NaN, is of no account.
		if want.Mixed[i] == want.Mixed[i] || got.Mixed[i] == got.Mixed[i] {
			require.Equal(t, bitsOf(want.Mixed[i]), bitsOf(got.Mixed[i]), "%v", inverse[i])
		}
		if want.Square[i] == want.Square[i] || got.Square[i] == got.Square[i] {
			require.Equal(t, bitsOf(want.Square[i]), bitsOf(got.Square[i]), "%v", inverse[i])
		}
	}
	for _, id := range inverse {
		var want, got [16]byte
		nibbles16Go(&want, table, id, x)
		table.Nibbles(&got, id, x)
		require.Equal(t, want, got, "%v times %v", x, id)
	}
}

func TestTable16(t *testing.T) {
	table := NewTable16(iq4Values)
	for i := range 1 << 12 { // every middle and its neighbours
		x := float32(i-1<<11) / 8
		for _, v := range []float32{math.Nextafter32(x, -1000), x, math.Nextafter32(x, 1000)} {
			require.Equal(t, nearest16(v), table.rank(v), "%v", v)
		}
	}
	inf := float32(math.Inf(1))
	for x, want := range map[float32]int{inf: 15, -inf: 0, float32(math.NaN()): 15, 1e30: 15, -1e30: 0, 1e-40: 8, -1e-40: 8} {
		require.Equal(t, want, nearest16(x), "%v", x)
		require.Equal(t, want, table.rank(x), "%v", x)
	}
}

func TestFit16Variants(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(16, 1))
		for range 400 {
			guarded(t, []int{128, 128, 64}, func(b [][]byte) {
				x, weights, inverse := (*[32]float32)(floatsOf(b[0])), (*[32]float32)(floatsOf(b[1])), (*[16]float32)(floatsOf(b[2]))
				valuesOf32(rng, x[:])
				valuesOf32(rng, weights[:])
				top := furthest(x[:])
				for i := range inverse {
					inverse[i] = float32(i-134) / top
					switch rng.IntN(8) {
					case 0:
						inverse[i] = math.Float32frombits(rng.Uint32())
					case 1: // of x that is a multiple of a half, so are the products
						inverse[i] = float32(math.Ldexp(1, rng.IntN(9)-4))
					}
				}
				requireFits(t, x, weights, inverse)
			})
		}
	})
}

// FuzzFit16 checks that all variants find the same sums and numbers.
func FuzzFit16(f *testing.F) {
	f.Add(make([]byte, 320))
	rng := rand.New(rand.NewPCG(16, 2))
	seed := make([]byte, 320)
	fillBytes(rng, seed)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var x [80]float32
		decodeF32Plain(x[:min(len(x), len(b)/4)], b)
		for _, v := range variants() {
			with(t, v)
			requireFits(t, (*[32]float32)(x[:]), (*[32]float32)(x[32:]), (*[16]float32)(x[64:]))
		}
	})
}

func BenchmarkFit16(b *testing.B) {
	var x, weights [32]float32
	var inverse [16]float32
	var s Sums16
	for i := range x {
		x[i], weights[i] = float32(i-15), 1
	}
	for i := range inverse {
		inverse[i] = float32(i-134) / 16
	}
	table := NewTable16(iq4Values)
	benchVariants(b, 128, 32, func() { table.Fit(&s, &inverse, &x, &weights) })
}
