package tensortest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// TestTiles checks that tiles have the bits that whole rows have, write nothing
// beside them, and are refused where there are none; and that what is a tensor.Dotter
// multiplies by what it decodes.
func TestTiles(t *testing.T, rows tensor.Rows, shape tensor.Shape) {
	t.Helper()
	tiles, ok := rows.(tensor.Tiles)
	require.True(t, ok, "%T has no tiles", rows)
	all := make([]float32, shape.Elems())
	require.NoError(t, rows.ReadRows(all, 0))
	h, w, step := int(shape.Rows()), int(shape.Cols()), tiles.TileStep()
	rng := rand.New(rand.NewPCG(17, uint64(w)))
	const mark = float32(-12345)
	for range 20 {
		if h == 0 || w == 0 {
			break
		}
		row, col := rng.IntN(h), rng.IntN((w+step-1)/step)*step
		n, cols := 1+rng.IntN(h-row), min(w-col, (1+rng.IntN(w))*step)
		ld := cols + rng.IntN(3)
		dst := make([]float32, n*ld)
		for i := range dst {
			dst[i] = mark
		}
		require.NoError(t, tiles.ReadTile(dst[:(n-1)*ld+cols], ld, int64(row), n, col, cols))
		for i := range n {
			for j := range ld {
				want := mark
				if j < cols {
					want = all[(row+i)*w+col+j]
				}
				if got := dst[i*ld+j]; math.Float32bits(want) != math.Float32bits(got) {
					require.Equal(t, want, got, "row %d, column %d of %v", row+i, col+j, shape)
				}
			}
		}
	}
	if d, ok := rows.(tensor.Dotter); ok {
		testDots(t, d, all, h, w)
	}
	dst := make([]float32, (h+1)*(w+step))
	require.NoError(t, tiles.ReadTile(nil, 0, 0, 0, 0, 0))
	require.Error(t, tiles.ReadTile(dst, w, 0, h+1, 0, w), "rows beyond the last")
	require.Error(t, tiles.ReadTile(dst, w, -1, 1, 0, w), "a row before the first")
	if h > 0 {
		require.Error(t, tiles.ReadTile(dst, w+step, 0, h, 0, w+step), "columns beyond the last")
	}
	if h > 1 && w > 0 {
		require.Error(t, tiles.ReadTile(dst, w-1, 0, h, 0, w), "rows that overlap")
		require.Error(t, tiles.ReadTile(dst[:h*w-1], w, 0, h, 0, w), "too few floats")
	}
	if step > 1 && w > step {
		_ = tiles.ReadTile(dst, w, 0, min(1, h), 1, step) // an error or the right values: no panic
	}
}

func testDots(t *testing.T, d tensor.Dotter, all []float32, h, w int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(18, uint64(w)))
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	for m := 1; m <= 5 && h > 0 && w > 0; m++ {
		row := rng.IntN(h)
		n := 1 + rng.IntN(h-row)
		x, y := make([]float32, m*w), make([]float32, m*(n+1))
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		for i := range y {
			y[i] = 3
		}
		require.NoError(t, d.DotRows(y[:m*(n+1)-1], n+1, x, m, row, n))
		for i, got := range y {
			j := i % (n + 1)
			if j == n {
				require.Equal(t, float32(3), got, "beside the product")
				continue
			}
			sum, largest, size := 3.0, 0.0, 3.0
			for k, v := range all[(row+j)*w:][:w] {
				p := float64(x[i/(n+1)*w+k]) * float64(v)
				sum, size, largest = sum+p, size+math.Abs(p), max(largest, math.Abs(float64(v)))
			}
			if !finite(sum) {
				require.False(t, finite(float64(got)), "a sum that is not finite: %v", got)
				continue
			}
			if size > 1e30 {
				continue
			}
			// Where a value is the difference of two, they count.
			bound := (size + 64*largest) * float64(w+2) * 0x1p-24
			require.InDelta(t, sum, got, bound, "row %d of x, row %d", i/(n+1), row+j)
		}
	}
	if w == 0 {
		return
	}
	require.Error(t, d.DotRows(make([]float32, h+1), h+1, make([]float32, w), 1, 0, h+1), "rows beyond the last")
	require.Error(t, d.DotRows(make([]float32, 1), 1, make([]float32, w), 1, -1, 1), "a row before the first")
}
