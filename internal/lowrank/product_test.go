package lowrank

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
)

func product(b, a []float32, rows, rank, cols int) kernel.Dense {
	w := kernel.Dense{Data: make([]float32, rows*cols), Rows: rows, Cols: cols}
	for i := range rows {
		for j := range cols {
			var sum float64
			for k := range rank {
				sum += float64(b[i*rank+k]) * float64(a[k*cols+j])
			}
			w.Data[i*cols+j] = float32(sum)
		}
	}
	return w
}

func norm(x []float32) float64 { return math.Sqrt(kernel.SumSquares(x)) }

// The whole decomposition is the product again, and a part of it is as near as the best
// matrix of that rank, which is found by another way.
func TestProduct(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, c := range []struct{ rows, rank, cols int }{{40, 8, 30}, {30, 1, 70}, {9, 12, 40}, {40, 12, 9}, {5, 5, 5}, {1, 3, 1}, {200, 33, 170}} {
		b, a := noise(rng, c.rows*c.rank), noise(rng, c.rank*c.cols)
		for i := range a { // rows of very different sizes
			a[i] *= float32(math.Pow(0.5, float64(i/c.cols%12)))
		}
		w := product(b, a, c.rows, c.rank, c.cols)
		f := Product(b, a, c.rows, c.rank, c.cols)
		require.Equal(t, c.rank, f.Rank)
		require.LessOrEqual(t, left(w, f), 3e-6*norm(w.Data), "%+v", c)
		var squares float64
		for i, s := range f.Values {
			squares += s * s
			require.True(t, i == 0 || s <= f.Values[i-1])
		}
		require.InEpsilon(t, norm(w.Data), math.Sqrt(squares), 1e-5)
		for k := 1; k < min(c.rank, c.rows, c.cols); k += 3 {
			best, err := Truncate(w, k, 1)
			require.NoError(t, err)
			got := left(w, f.Cut(k))
			require.LessOrEqual(t, got, left(w, best)*1.0001+3e-6*norm(w.Data), "%+v, %d", c, k)
			var rest float64
			for _, s := range f.Values[k:] {
				rest += s * s
			}
			require.InDelta(t, math.Sqrt(rest), got, 3e-6*norm(w.Data), "the values say what is left")
		}
	}
}

// Rows that depend on each other cost nothing, and their values are zero.
func TestProductOfDependentRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	const rows, rank, cols, own = 50, 9, 60, 4
	b, a := noise(rng, rows*rank), noise(rng, rank*cols)
	for i := own; i < rank; i++ {
		for j := range cols {
			a[i*cols+j] = a[(i-own)*cols+j] * 2
		}
	}
	w := product(b, a, rows, rank, cols)
	f := Product(b, a, rows, rank, cols)
	require.LessOrEqual(t, left(w, f), 3e-6*norm(w.Data))
	require.LessOrEqual(t, left(w, f.Cut(own)), 3e-6*norm(w.Data))
	for _, s := range f.Values[own:] {
		require.LessOrEqual(t, s, 1e-5*f.Values[0])
	}
	zero := Product(make([]float32, rows*2), a[:2*cols], rows, 2, cols)
	require.Equal(t, &Factors{Rank: 2, B: make([]float32, rows*2), A: make([]float32, 2*cols), Values: make([]float64, 2)}, zero)
}

func BenchmarkProduct(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	x, y := noise(rng, 4096*64), noise(rng, 64*11008)
	for b.Loop() {
		Product(x, y, 4096, 64, 11008)
	}
}
