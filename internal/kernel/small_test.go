package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// dot64 returns a dot product and the sum of the magnitudes of its terms.
func dot64(x, y []float32) (sum, size float64) {
	for i, v := range x {
		p := float64(v) * float64(y[i])
		sum, size = sum+p, size+math.Abs(p)
	}
	return sum, size
}

func normals(rng *rand.Rand, x []float32) []float32 {
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

func TestDotsVariants(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	eachVariant(t, func(t *testing.T) {
		for _, k := range []int{0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129} {
			for m := range 8 {
				for n := range 10 {
					ldx, ldw, ldy := k+rng.IntN(3), k+rng.IntN(3), n+rng.IntN(3)
					if m == 0 || n == 0 {
						use.dots(nil, ldy, nil, ldx, m, nil, ldw, n, k)
						continue
					}
					guarded(t, []int{4 * ((m-1)*ldy + n), 4 * ((m-1)*ldx + k), 4 * ((n-1)*ldw + k)}, func(b [][]byte) {
						y, x, w := floatsOf(b[0]), normals(rng, floatsOf(b[1])), normals(rng, floatsOf(b[2]))
						normals(rng, y)
						old := append([]float32(nil), y...)
						use.dots(y, ldy, x, ldx, m, w, ldw, n, k)
						for i := range y {
							r, c := i/ldy, i%ldy
							if c >= n {
								require.Equal(t, old[i], y[i], "what is beside the product stays")
								continue
							}
							sum, size := dot64(x[r*ldx:][:k], w[c*ldw:])
							require.InDelta(t, float64(old[i])+sum, y[i], (size+math.Abs(float64(old[i])))*float64(k+2)*0x1p-24)
						}
					})
				}
			}
		}
		require.Panics(t, func() { use.dots(make([]float32, 4), 2, make([]float32, 128), 64, 2, make([]float32, 127), 64, 2, 64) })
	})
}

func TestDot4Variants(t *testing.T) {
	rng := rand.New(rand.NewPCG(33, 34))
	eachVariant(t, func(t *testing.T) {
		for _, block := range []int{2, 32, 64, 96, 128, 4096} {
			for _, blocks := range []int{1, 2, 5, 70} {
				cols := block * blocks
				if cols > 24576 {
					continue
				}
				for _, n := range []int{1, 2, 7} {
					for m := range 8 {
						ldy := n + rng.IntN(3)
						guarded(t, []int{4 * (max(0, m-1)*ldy + n), 4 * m * cols, n * cols / 2, 4 * n * blocks}, func(b [][]byte) {
							y, x := normals(rng, floatsOf(b[0])), normals(rng, floatsOf(b[1]))
							fillBytes(rng, b[2])
							absmax := normals(rng, floatsOf(b[3]))
							w := make([]float32, n*cols)
							decode4Go(w, b[2], &nf4Values, absmax, block)
							old := append([]float32(nil), y...)
							Dot4(y, ldy, x, m, cols, b[2], &nf4Values, absmax, block, n)
							for i := range y {
								r, c := i/ldy, i%ldy
								if c >= n || m == 0 {
									require.Equal(t, old[i], y[i])
									continue
								}
								sum, size := dot64(x[r*cols:][:cols], w[c*cols:])
								require.InDelta(t, float64(old[i])+sum, y[i], (size+math.Abs(float64(old[i])))*float64(cols+2)*0x1p-24)
							}
						})
					}
				}
			}
		}
		dot := func(y, x, codes, absmax int) {
			Dot4(make([]float32, y), 2, make([]float32, x), 2, 64, make([]byte, codes), &nf4Values, make([]float32, absmax), 64, 2)
		}
		dot(4, 128, 64, 2)
		require.Panics(t, func() { dot(3, 128, 64, 2) })
		require.Panics(t, func() { dot(4, 127, 64, 2) })
		require.Panics(t, func() { dot(4, 128, 63, 2) })
		require.Panics(t, func() { dot(4, 128, 64, 1) })
	})
}

// coded is a matrix of 4-bit codes.
type coded struct {
	rows, cols, block int
	codes             []byte
	absmax            []float32
}

func newCoded(rng *rand.Rand, rows, cols, block int) coded {
	c := coded{rows, cols, block, make([]byte, rows*cols/2), make([]float32, rows*cols/block)}
	fillBytes(rng, c.codes)
	for i := range c.absmax {
		c.absmax[i] = rng.Float32()
	}
	return c
}

func (c coded) Dims() (rows, cols int) { return c.rows, c.cols }

func (c coded) at(row, col int) ([]byte, []float32) {
	i := row*c.cols + col
	return c.codes[i/2:], c.absmax[i/c.block:]
}

func (c coded) DecodeRows(dst []float32, row int) error {
	codes, absmax := c.at(row, 0)
	Decode4(dst, codes, &nf4Values, absmax, c.block)
	return nil
}

func (c coded) TileStep() int { return c.block }

func (c coded) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	for i := range rows {
		codes, absmax := c.at(row+i, col)
		Decode4(dst[i*ld:][:cols], codes, &nf4Values, absmax, c.block)
	}
	return nil
}

func (c coded) PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error {
	blocks := max(1, cols/c.block)
	absmax := make([]float32, blocks*rows)
	for i := range absmax {
		_, a := c.at(row+i%rows, col+i/rows*c.block)
		absmax[i] = a[0]
	}
	codes, _ := c.at(row, col)
	ahead := ((nextRow-row)*c.cols + nextCol - col) / 2
	Pack4(dst, ld, codes, c.cols/2, &nf4Values, absmax, c.block, rows, cols, ahead)
	return nil
}

func (c coded) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	codes, absmax := c.at(row, 0)
	Dot4(y, ldy, x, m, c.cols, codes, &nf4Values, absmax, c.block, n)
	return nil
}

// tilesOnly and rowsOnly hide what else a matrix can do.
type (
	tilesOnly struct{ Tiles }
	rowsOnly  struct{ Matrix }
)

func TestSmallProducts(t *testing.T) {
	rng := rand.New(rand.NewPCG(35, 36))
	const rows, cols = 150, 2112 // not a multiple of the width of a tile
	w := newCoded(rng, rows, cols, 64)
	all := make([]float32, rows*cols)
	require.NoError(t, w.DecodeRows(all, 0))
	eachVariant(t, func(t *testing.T) {
		for _, m := range []int{1, 2, 3, 4, 7, 16} {
			x := normals(rng, make([]float32, m*cols))
			for _, add := range []bool{false, true} {
				for _, a := range []Matrix{w, tilesOnly{w}, rowsOnly{w}, Dense{all, rows, cols}} {
					y := make([]float32, m*rows)
					for i := range y {
						y[i] = 3
					}
					require.NoError(t, MulT(y, x, m, a, add))
					for i, got := range y {
						want, size := dot64(x[i/rows*cols:][:cols], all[i%rows*cols:])
						if add {
							want, size = want+3, size+3
						}
						require.InDelta(t, want, got, size*cols*0x1p-24, "%T %d", a, m)
					}
				}
			}
		}
	})
}

// The bits do not depend on how many goroutines share the rows.
func TestSmallWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(37, 38))
	const rows, cols, m = 200, 1088, 5
	w := newCoded(rng, rows, cols, 64)
	x := normals(rng, make([]float32, m*cols))
	eachVariant(t, func(t *testing.T) {
		for _, a := range []Matrix{w, tilesOnly{w}, rowsOnly{w}} {
			run := func(workers int) []float32 {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers))
				y := make([]float32, m*rows)
				require.NoError(t, MulT(y, x, m, a, false))
				return y
			}
			want := run(1)
			for range 5 {
				requireBits(t, want, run(4), fmt.Sprintf("%T", a))
			}
		}
	})
}

func BenchmarkSmall(b *testing.B) {
	const rows, cols = 4096, 4096
	rng := rand.New(rand.NewPCG(1, 2))
	w := newCoded(rng, 4*rows, cols, 64) // more than the last cache has for one
	all := normals(rng, make([]float32, rows*cols))
	for _, m := range []int{1, 2, 3, 4, 8, 16} {
		x, y := normals(rng, make([]float32, m*cols)), make([]float32, m*4*rows)
		for _, a := range []struct {
			name string
			Matrix
		}{{"nf4", w}, {"nf4tiles", tilesOnly{w}}, {"f32", Dense{all, rows, cols}}} {
			b.Run(fmt.Sprintf("%s/%d", a.name, m), func(b *testing.B) {
				r, c := a.Dims()
				size := r * c * 4
				if a.name != "f32" {
					size = r * c * 9 / 16
				}
				for _, v := range variants() {
					if v == &plain {
						continue
					}
					b.Run(v.name, func(b *testing.B) {
						with(b, v)
						b.SetBytes(int64(size))
						for b.Loop() {
							if err := MulT(y, x, m, a.Matrix, false); err != nil {
								b.Fatal(err)
							}
						}
						b.ReportMetric(2*float64(m*r*c)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
					})
				}
			})
		}
	}
}
