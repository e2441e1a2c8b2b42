package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// eachMicrokernel runs a test with every variant that has one.
func eachMicrokernel(t *testing.T, f func(t *testing.T, u *microkernel)) {
	eachVariant(t, func(t *testing.T) {
		if use.micro != nil {
			f(t, use.micro)
		}
	})
}

// fill gives x normal values.
func fill(rng *rand.Rand, x []float32) {
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
}

// definition is element (i, j) of A·B and the sum of the products without their
// signs, which the error of any way to sum them is in proportion to.
func definition(a strided, b []float32, ldb, bcol, i, j, k int) (sum, size float64) {
	for l := range k {
		p := float64(a.data[i*a.row+l*a.col]) * float64(b[l*ldb+j*bcol])
		sum += p
		size += math.Abs(p)
	}
	return sum, size
}

// sumError bounds the error of a sum of k products in any order, in proportion to the
// sum of their sizes: one rounding of the product and k of sums.
func sumError(k int) float64 { return float64(k+1) * 0x1p-24 }

func TestMicrokernelTiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	eachMicrokernel(t, func(t *testing.T, u *microkernel) {
		for m := 1; m <= u.rows; m++ {
			for n := 1; n <= u.cols; n++ {
				k := []int{1, 2, 3, 17}[(m+n)%4]
				width := n
				if u.padded {
					width = u.width(n)
				}
				ldc, ldb := n+m%3, width+n%3
				row, col := k+1, 1
				if m%2 == 0 {
					row, col = 2, 2*m+1
				}
				ldold := n + k%2
				sizes := []int{(m-1)*ldc + n, (m-1)*row + (k-1)*col + 1, (k-1)*ldb + width, (m-1)*ldold + n}
				for i := range sizes {
					sizes[i] *= 4
				}
				guarded(t, sizes, func(mem [][]byte) {
					c, a, b, other := floatsOf(mem[0]), strided{floatsOf(mem[1]), row, col}, floatsOf(mem[2]), floatsOf(mem[3])
					fill(rng, a.data)
					fill(rng, b)
					fill(rng, other)
					for _, old := range [][]float32{nil, c, other} {
						fill(rng, c)
						before, ld := append([]float32(nil), c...), ldc
						if len(old) > 0 && &old[0] == &other[0] {
							ld = ldold
							for i := range m {
								copy(before[i*ldc:][:n], other[i*ldold:])
							}
						}
						u.sum(c, ldc, old, ld, a, b, ldb, m, n, k, ahead{})
						checkProduct(t, before, c, ldc, a, b, ldb, 1, m, n, k, old != nil)
					}
				})
			}
		}
	})
}

// checkProduct compares c with the product of a and b, and with what was there before
// beside and, if it is added to, in it.
func checkProduct(t testing.TB, before, c []float32, ldc int, a strided, b []float32, ldb, bcol, m, n, k int, add bool) {
	t.Helper()
	for at, got := range c {
		i, j := at/ldc, at%ldc
		if j >= n || i >= m {
			require.Equal(t, before[at], got, "beside the product of %d x %d x %d: %d, %d", m, n, k, i, j)
			continue
		}
		want, size := definition(a, b, ldb, bcol, i, j, k)
		if add {
			want += float64(before[at])
			size += math.Abs(float64(before[at]))
		}
		if !(math.Abs(want-float64(got)) <= sumError(k)*size) {
			require.Failf(t, "values differ", "%d x %d x %d, add %v: %d, %d: want %v, got %v", m, n, k, add, i, j, want, got)
		}
	}
}

func TestMicrokernelPacking(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 2))
	eachMicrokernel(t, func(t *testing.T, u *microkernel) {
		for rows := 1; rows <= 33; rows++ {
			for _, cols := range []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70} {
				ldd, ld := rows+cols%3, cols+rows%3
				guarded(t, []int{4 * ((cols-1)*ldd + rows), 4 * ((rows-1)*ld + cols)}, func(mem [][]byte) {
					dst, src := floatsOf(mem[0]), floatsOf(mem[1])
					fill(rng, dst)
					fill(rng, src)
					want := append([]float32(nil), dst...)
					transposeGo(want, ldd, src, ld, rows, cols)
					u.transpose(dst, ldd, src, ld, rows, cols)
					require.Equal(t, want, dst, "transpose %d x %d", rows, cols)
				})
			}
		}
		for width := 1; width <= u.cols; width++ {
			for _, pad := range []int{width, u.width(width)} {
				for _, rows := range []int{1, 2, 5} {
					ldd, ld := pad+rows%3, width+rows%2
					guarded(t, []int{4 * ((rows-1)*ldd + pad), 4 * ((rows-1)*ld + width)}, func(mem [][]byte) {
						dst, src := floatsOf(mem[0]), floatsOf(mem[1])
						fill(rng, dst)
						fill(rng, src)
						want := append([]float32(nil), dst...)
						for r := range rows {
							clear(want[r*ldd:][:pad])
							copy(want[r*ldd:], src[r*ld:][:width])
						}
						u.copy(dst, ldd, src, ld, rows, width, pad)
						require.Equal(t, want, dst, "copy %d x %d to %d", rows, width, pad)
					})
				}
			}
		}
	})
}

// TestMicrokernelShort has slices that are too short panic before the assembly runs.
func TestMicrokernelShort(t *testing.T) {
	eachMicrokernel(t, func(t *testing.T, u *microkernel) {
		x := make([]float32, 1000)
		a := func(n int) strided { return strided{x[:n], 1, 4} }
		require.NotPanics(t, func() { u.sum(x[:32], 8, x[:32], 8, a(32), x[:64], 8, 4, 8, 8, ahead{}) })
		require.Panics(t, func() { u.sum(x[:32], 8, x[:31], 8, a(32), x[:64], 8, 4, 8, 8, ahead{}) })
		require.Panics(t, func() { u.sum(x[:31], 8, x[:32], 8, a(32), x[:64], 8, 4, 8, 8, ahead{}) })
		require.Panics(t, func() { u.sum(x[:32], 8, x[:32], 8, a(31), x[:64], 8, 4, 8, 8, ahead{}) })
		require.Panics(t, func() { u.sum(x[:32], 8, x[:32], 8, a(32), x[:63], 8, 4, 8, 8, ahead{}) })
		require.Panics(t, func() { u.transpose(x[:31], 4, x[:32], 8, 4, 8) })
		require.Panics(t, func() { u.transpose(x[:32], 4, x[:31], 8, 4, 8) })
		require.Panics(t, func() { u.copy(x[:31], 8, x[:32], 8, 4, 8, 8) })
		require.Panics(t, func() { u.copy(x[:32], 8, x[:31], 8, 4, 8, 8) })
	})
}

// gemmSizes straddle the cut-offs: tiles, two of them, steps of the sums.
var gemmSizes = []struct{ m, n, k int }{
	{1, 1, 1}, {2, 17, 5}, {6, 16, 16}, {7, 15, 33}, {13, 31, 3}, {14, 32, 64}, {15, 33, 65}, {28, 64, 255}, {29, 48, 257},
	{32, 130, 64}, {64, 64, 128}, {70, 40, 300}, {85, 300, 16}, {9, 520, 31}, {150, 7, 513}, {5, 260, 600}, {12, 0, 5}, {3, 4, 0},
}

func TestGemmOnStrided(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 3))
	eachVariant(t, func(t *testing.T) {
		for _, s := range gemmSizes {
			for _, transposed := range []bool{false, true} {
				ldc, ldb := s.n+3, s.n+5
				row, col := s.k+2, 1
				if transposed {
					row, col = 1, s.m+2
				}
				last := func(rows, ld, cols int) int { return 4 * max(0, (rows-1)*ld+cols) }
				sizes := []int{last(s.m, ldc, s.n), last(s.m, row, 1) + last(s.k, col, 1) - 4, last(s.k, ldb, s.n)}
				guarded(t, []int{max(0, sizes[0]), max(0, sizes[1]), max(0, sizes[2])}, func(mem [][]byte) {
					c, a, b := floatsOf(mem[0]), strided{floatsOf(mem[1]), row, col}, floatsOf(mem[2])
					fill(rng, c)
					fill(rng, a.data)
					fill(rng, b)
					before := append([]float32(nil), c...)
					gemm(c, ldc, a, b, ldb, s.m, s.n, s.k)
					checkProduct(t, before, c, ldc, a, b, ldb, 1, s.m, s.n, s.k, true)
				})
			}
		}
	})
}

// tiled is a Matrix with Tiles that is strict about how it is called.
type tiled struct {
	encoded
	step int
}

func (d tiled) TileStep() int { return d.step }

func (d tiled) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	if col%d.step != 0 || cols%d.step != 0 && col+cols != d.Cols || cols > ld || rows < 1 || cols < 1 {
		panic(fmt.Sprintf("tile of %d x %d at %d, %d with step %d of %d columns", rows, cols, row, col, d.step, d.Cols))
	}
	for r := range rows {
		copy(dst[r*ld:][:cols:cols], d.Data[(row+r)*d.Cols+col:][:cols])
	}
	return nil
}

// brokenTiles cannot be decoded from a row on.
type brokenTiles struct {
	tiled
	at int
}

func (b brokenTiles) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	if row+rows > b.at {
		return errBroken
	}
	return b.tiled.DecodeTile(dst, ld, row, rows, col, cols)
}

// TestProductsOfEveryVariant compares the three products with their definition, and
// requires the same bits of every encoding of a matrix.
func TestProductsOfEveryVariant(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 4))
	shapes := [][3]int{
		{4, 8, 300}, {5, 16, 8}, {16, 300, 64}, {17, 33, 520}, {33, 257, 258}, {64, 8, 257}, {70, 16, 600}, {130, 64, 64}, {300, 600, 31}, {600, 70, 40}, {40, 300, 20},
	}
	eachVariant(t, func(t *testing.T) {
		for _, s := range shapes {
			m, n, k := s[0], s[1], s[2]
			x, w, dy := normal(rng, m*k), normal(rng, n*k), normal(rng, m*n)
			dense := Dense{w, n, k}
			matrices := []Matrix{dense, encoded{dense}, tiled{encoded{dense}, 1}, tiled{encoded{dense}, 64}, tiled{encoded{dense}, 256}, tiled{encoded{dense}, 512}, tiled{encoded{dense}, 48}}
			for _, add := range []bool{false, true} {
				y0, dx0, dw0 := normal(rng, m*n), normal(rng, m*k), normal(rng, n*k)
				var wantY, wantDX []float32
				for i, matrix := range matrices {
					y, dx := append([]float32(nil), y0...), append([]float32(nil), dx0...)
					require.NoError(t, MulT(y, x, m, matrix, add))
					require.NoError(t, Mul(dx, dy, m, matrix, add))
					if i == 0 {
						checkProduct(t, y0, y, n, strided{x, k, 1}, w, 1, k, m, n, k, add)
						checkProduct(t, dx0, dx, k, strided{dy, n, 1}, w, k, 1, m, k, n, add)
						wantY, wantDX = y, dx
					}
					require.Equal(t, wantY, y, "%v: encoding %d", s, i)
					require.Equal(t, wantDX, dx, "%v: encoding %d", s, i)
				}
				dw := append([]float32(nil), dw0...)
				AddOuter(dw, dy, x, m, n, k)
				checkProduct(t, dw0, dw, k, strided{dy, 1, n}, x, k, 1, n, k, m, true)
			}
			withWorkers(t, func() []float32 {
				y, dx, dw := make([]float32, m*n), make([]float32, m*k), make([]float32, n*k)
				require.NoError(t, MulT(y, x, m, tiled{encoded{dense}, 64}, false))
				require.NoError(t, Mul(dx, dy, m, tiled{encoded{dense}, 64}, false))
				AddOuter(dw, dy, x, m, n, k)
				return append(append(y, dx...), dw...)
			})
		}
		w := brokenTiles{tiled{encoded{Dense{make([]float32, 100*8), 100, 8}}, 64}, 50}
		if use.micro != nil {
			require.ErrorIs(t, MulT(make([]float32, 800), make([]float32, 64), 8, w, false), errBroken)
			require.ErrorIs(t, Mul(make([]float32, 64), make([]float32, 800), 8, w, false), errBroken)
		}
	})
}

// TestProductsPlusLowRank: what is added on the way is to the bit what is added afterwards.
func TestProductsPlusLowRank(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	eachVariant(t, func(t *testing.T) {
		for _, s := range [][4]int{{9, 40, 50, 3}, {190, 600, 70, 16}, {200, 1100, 1300, 8}, {600, 530, 300, 270}, {180, 1040, 1040, 17}} {
			m, n, k, r := s[0], s[1], s[2], s[3]
			if use.micro == nil && m > 300 {
				continue // it has no other way
			}
			x, u := normal(rng, m*k), normal(rng, m*r)
			w, wT := Dense{normal(rng, n*k), n, k}, Dense{normal(rng, n*k), k, n}
			for _, plus := range []LowRank{{u, Dense{normal(rng, n*r), n, r}, false}, {u, Dense{normal(rng, n*r), r, n}, true}} {
				for _, add := range []bool{false, true} {
					for _, matrix := range []struct{ w, wT Matrix }{{w, wT}, {tiled{encoded{w}, 64}, tiled{encoded{wT}, 64}}, {encoded{w}, encoded{wT}}} {
						y0 := normal(rng, m*n)
						want, wantT := append([]float32(nil), y0...), append([]float32(nil), y0...)
						require.NoError(t, MulT(want, x, m, matrix.w, add))
						require.NoError(t, plus.AddTo(want, m))
						require.NoError(t, Mul(wantT, x, m, matrix.wT, add))
						require.NoError(t, plus.AddTo(wantT, m))
						y, yT := append([]float32(nil), y0...), append([]float32(nil), y0...)
						require.NoError(t, MulTPlus(y, x, m, matrix.w, add, plus))
						require.NoError(t, MulPlus(yT, x, m, matrix.wT, add, plus))
						require.Equal(t, want, y, "%v", s)
						require.Equal(t, wantT, yT, "%v", s)
					}
				}
			}
		}
	})
}

// TestMicrokernelsSameBits holds the AVX2 loops to the bits of the AVX-512 ones, as
// both sum in the same order.
func TestMicrokernelsSameBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for _, s := range [][3]int{{smallM + 1, 40, 300}, {70, 33, 600}, {31, 300, 257}} {
		m, n, k := s[0], s[1], s[2]
		x, w, dy := normal(rng, m*k), Dense{normal(rng, n*k), n, k}, normal(rng, m*n)
		var want []float32
		eachMicrokernel(t, func(t *testing.T, _ *microkernel) {
			y, dx, dw := make([]float32, m*n), make([]float32, m*k), make([]float32, n*k)
			require.NoError(t, MulT(y, x, m, w, false))
			require.NoError(t, Mul(dx, dy, m, w, false))
			AddOuter(dw, dy, x, m, n, k)
			got := append(append(y, dx...), dw...)
			if want == nil {
				want = got
			}
			require.Equal(t, want, got)
		})
	}
}

func TestScratchBeginsWithACacheLine(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 1000, 4096, 70000, bFloats, 1 << 20} {
		buf := scratch(n)
		require.Len(t, *buf, n)
		require.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(*buf)))%64, "%d floats", n)
		require.LessOrEqual(t, 4*int64(cap(*buf)), scratchBytes(n))
		release(buf)
	}
}

func FuzzGemm(f *testing.F) {
	f.Add(uint16(14), uint16(32), uint16(256), uint8(0), uint64(1))
	f.Add(uint16(15), uint16(33), uint16(257), uint8(1), uint64(2))
	f.Add(uint16(130), uint16(8), uint16(300), uint8(2), uint64(3))
	f.Add(uint16(40), uint16(260), uint16(16), uint8(7), uint64(4))
	f.Add(uint16(0), uint16(69), uint16(322), uint8(4), uint64(45))
	f.Fuzz(func(t *testing.T, m16, n16, k16 uint16, flags uint8, seed uint64) {
		m, n, k := int(m16)%160, int(n16)%320, int(k16)%600
		rng := rand.New(rand.NewPCG(seed, 6))
		a := strided{normal(rng, m*k), k, 1}
		if flags&1 != 0 {
			a.row, a.col = 1, m
		}
		ldb, ldc := n+int(flags>>4&3), n+int(flags>>6)
		b, c0 := normal(rng, k*ldb), normal(rng, m*ldc)
		for _, v := range variants() {
			old := use
			use = v
			c := append([]float32(nil), c0...)
			gemm(c, ldc, a, b, ldb, m, n, k)
			checkProduct(t, c0, c, ldc, a, b, ldb, 1, m, n, k, true)
			if flags&1 == 0 {
				w := Dense{normal(rng, n*k), n, k}
				matrix := Matrix(w)
				if flags&2 != 0 {
					matrix = tiled{encoded{w}, 32}
				}
				y0 := normal(rng, m*n)
				y := append([]float32(nil), y0...)
				if err := MulT(y, a.data, m, matrix, flags&4 != 0); err != nil {
					t.Fatal(err)
				}
				checkProduct(t, y0, y, max(1, n), a, w.Data, 1, k, m, n, k, flags&4 != 0)
			}
			use = old
		}
	})
}
