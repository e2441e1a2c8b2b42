package lowrank

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
)

func noise(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

// withValues returns a random matrix with the given singular values.
func withValues(t *testing.T, rng *rand.Rand, rows, cols int, values []float64) kernel.Dense {
	t.Helper()
	n := len(values)
	u, v := basis{n, rows, noise(rng, n*rows)}, basis{n, cols, noise(rng, n*cols)}
	spare := make([]float32, n*max(rows, cols))
	u.orthonormalize(spare)
	v.orthonormalize(spare)
	for i, s := range values {
		for j := range cols {
			v.data[i*cols+j] *= float32(s)
		}
	}
	w := kernel.Dense{Data: make([]float32, rows*cols), Rows: rows, Cols: cols}
	kernel.AddOuter(w.Data, u.data, v.data, n, rows, cols)
	return w
}

// left returns the norm of w - B·A.
func left(w kernel.Dense, f *Factors) float64 {
	var sum float64
	for i := range w.Rows {
		for j := range w.Cols {
			d := float64(w.Data[i*w.Cols+j])
			for k := range f.Rank {
				d -= float64(f.B[i*f.Rank+k]) * float64(f.A[k*w.Cols+j])
			}
			sum += d * d
		}
	}
	return math.Sqrt(sum)
}

// What is left is within a thousandth of what the best matrix of the rank leaves,
// however slowly the singular values decay.
func TestTruncateIsNearlyTheBest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][2]int{{300, 200}, {150, 400}, {64, 64}, {96, 33}} {
		rows, cols := shape[0], shape[1]
		n := min(rows, cols)
		for name, value := range map[string]func(i int) float64{
			"root":        func(i int) float64 { return math.Pow(float64(i+1), -0.5) },
			"inverse":     func(i int) float64 { return 1 / float64(i+1) },
			"slow":        func(i int) float64 { return math.Pow(0.99, float64(i)) },
			"fast":        func(i int) float64 { return math.Pow(0.6, float64(i)) },
			"flat":        func(i int) float64 { return 1 },
			"one":         func(i int) float64 { return map[bool]float64{true: 1e3, false: 1e-2}[i == 0] },
			"low rank":    func(i int) float64 { return map[bool]float64{true: 1, false: 0}[i < 5] },
			"tiny values": func(i int) float64 { return 1e-20 * math.Pow(0.9, float64(i)) },
		} {
			values := make([]float64, n)
			for i := range values {
				values[i] = value(i)
			}
			w := withValues(t, rng, rows, cols, values)
			for _, rank := range []int{1, 8, 32} {
				f, err := Truncate(w, rank, 7)
				require.NoError(t, err)
				var best, all float64
				for i, s := range values {
					all += s * s
					if i >= rank {
						best += s * s
					}
				}
				got := left(w, f)
				require.LessOrEqual(t, got, math.Sqrt(best)*1.001+2e-6*math.Sqrt(all), "%s %dx%d rank %d", name, rows, cols, rank)
				require.GreaterOrEqual(t, got, math.Sqrt(best)*0.999-1e-6*math.Sqrt(all))
				if name != "flat" && name != "slow" {
					for i, s := range f.Values {
						require.InDelta(t, values[i], s, 0.02*values[i]+1e-6*values[0], "%s: value %d", name, i)
					}
				}
			}
		}
	}
}

// Noise is the hard case, and what quantizing leaves. Its singular values are found by
// another way: all of them, from the Gram matrix.
func TestTruncateNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const rows, cols, rank = 500, 300, 16
	w := kernel.Dense{Data: noise(rng, rows*cols), Rows: rows, Cols: cols}
	g := make([]float64, cols*cols)
	for r := range rows {
		row := w.Data[r*cols:][:cols]
		for i, x := range row {
			for j, y := range row {
				g[i*cols+j] += float64(x) * float64(y)
			}
		}
	}
	squares, _ := eigen(g, cols)
	var best, taken float64
	for i, s := range squares {
		if i < rank {
			taken += s
		} else {
			best += s
		}
	}
	f, err := Truncate(w, rank, 1)
	require.NoError(t, err)
	require.InEpsilon(t, math.Sqrt(best), left(w, f), 1e-3)
	var got float64
	for _, s := range f.Values {
		got += s * s
	}
	require.InEpsilon(t, taken, got, 0.02)
	t.Logf("left %.6f of the best, took %.4f", left(w, f)/math.Sqrt(best), got/taken)
}

// The bits do not depend on the number of processors, and the seed decides them.
func TestTruncateIsDeterministic(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	w := kernel.Dense{Data: noise(rng, 700*900), Rows: 700, Cols: 900}
	want, err := Truncate(w, 12, 3)
	require.NoError(t, err)
	for _, n := range []int{1, 2, 5} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			got, err := Truncate(w, 12, 3)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}()
	}
	other, err := Truncate(w, 12, 4)
	require.NoError(t, err)
	require.NotEqual(t, want.A, other.A)
}

func TestTruncateZeros(t *testing.T) {
	f, err := Truncate(kernel.Dense{Data: make([]float32, 40*30), Rows: 40, Cols: 30}, 4, 1)
	require.NoError(t, err)
	require.Equal(t, &Factors{Rank: 4, B: make([]float32, 40*4), A: make([]float32, 4*30), Values: make([]float64, 4)}, f)
}

func TestTruncateRefuses(t *testing.T) {
	w := kernel.Dense{Data: make([]float32, 12), Rows: 4, Cols: 3}
	for _, rank := range []int{-1, 0, 4} {
		_, err := Truncate(w, rank, 1)
		require.Error(t, err, rank)
	}
	_, err := Truncate(broken{w}, 2, 1)
	require.ErrorIs(t, err, errBroken)
}

var errBroken = errors.New("broken")

type broken struct{ kernel.Dense }

func (b broken) DecodeRows([]float32, int) error { return errBroken }

func TestOrthonormalize(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{1, 2, 3, 40} {
		b := basis{n, 1000, noise(rng, n*1000)}
		for i := range b.data { // nearly dependent
			b.data[i] = b.data[i]*1e-3 + b.data[i%1000]
		}
		b.orthonormalize(make([]float32, len(b.data)))
		g := b.gram()
		for i := range n {
			for j := range n {
				require.InDelta(t, map[bool]float64{true: 1, false: 0}[i == j], g[i*n+j], 1e-5, "%d: %d, %d", n, i, j)
			}
		}
	}
}

func TestEigen(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, n := range []int{1, 2, 17, 60} {
		g := make([]float64, n*n)
		for i := range n {
			for j := range i + 1 {
				v := rng.NormFloat64()
				g[i*n+j], g[j*n+i] = v, v
			}
		}
		values, v := eigen(append([]float64(nil), g...), n)
		for i := range n {
			if i > 0 {
				require.GreaterOrEqual(t, values[i-1], values[i])
			}
			for r := range n {
				var sum float64
				for c := range n {
					sum += g[r*n+c] * v[i*n+c]
				}
				require.InDelta(t, values[i]*v[i*n+r], sum, 1e-10)
			}
		}
	}
}

func BenchmarkTruncate(b *testing.B) {
	for _, rank := range []int{16, 64} {
		b.Run(fmt.Sprint(rank), func(b *testing.B) {
			w := kernel.Dense{Data: noise(rand.New(rand.NewPCG(1, 1)), 4096*11008), Rows: 4096, Cols: 11008}
			for b.Loop() {
				if _, err := Truncate(w, rank, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
