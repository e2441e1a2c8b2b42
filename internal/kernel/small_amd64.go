//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

// A dotsLoop computes mr x nr dot products of k floats, a multiple of a register's.
type dotsLoop func(out, x *float32, ldx int, w *float32, ldw, k int)

// dotsLoops are those of one variant: by the logarithm of mr, with many rows of w and
// with one.
type dotsLoops struct {
	lanes, nr int
	loops     [3][2]dotsLoop
}

var (
	dotsOf512 = dotsLoops{16, 4, [3][2]dotsLoop{
		{simd.Dots1x4AVX512, simd.Dots1x1AVX512},
		{simd.Dots2x4AVX512, simd.Dots2x1AVX512},
		{simd.Dots4x4AVX512, simd.Dots4x1AVX512},
	}}
	dotsOf256 = dotsLoops{8, 2, [3][2]dotsLoop{
		{simd.Dots1x2AVX2, simd.Dots1x1AVX2},
		{simd.Dots2x2AVX2, simd.Dots2x1AVX2},
		{simd.Dots4x2AVX2, simd.Dots4x1AVX2},
	}}
)

func dotsAVX512(y []float32, ldy int, x []float32, ldx, m int, w []float32, ldw, n, k int) {
	dotsOf512.run(y, ldy, x, ldx, m, w, ldw, n, k)
}

func dotsAVX2(y []float32, ldy int, x []float32, ldx, m int, w []float32, ldw, n, k int) {
	dotsOf256.run(y, ldy, x, ldx, m, w, ldw, n, k)
}

// run is dotsGo. The elements that fill no register are left to plain Go.
func (d *dotsLoops) run(y []float32, ldy int, x []float32, ldx, m int, w []float32, ldw, n, k int) {
	whole := k - k%d.lanes
	if m == 0 || n == 0 || whole == 0 {
		dotsGo(y, ldy, x, ldx, m, w, ldw, n, k)
		return
	}
	_, _, _ = y[(m-1)*ldy+n-1], x[(m-1)*ldx+k-1], w[(n-1)*ldw+k-1]
	var out [16]float32
	for j := 0; j < n; {
		nr, one := d.nr, 0
		if n-j < nr {
			nr, one = 1, 1
		}
		for i := 0; i < m; {
			mr, log := 4, 2
			for mr > m-i {
				mr, log = mr/2, log-1
			}
			d.loops[log][one](&out[0], &x[i*ldx], ldx, &w[j*ldw], ldw, whole)
			for a := range mr {
				for b := range nr {
					sum := out[a*nr+b]
					if whole < k {
						sum += dotGo(x[(i+a)*ldx+whole:][:k-whole], w[(j+b)*ldw+whole:])
					}
					y[(i+a)*ldy+j+b] += sum
				}
			}
			i += mr
		}
		j += nr
	}
}

func dot4AVX2(y, x []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	if block%32 != 0 {
		dot4Go(y, x, codes, values, absmax, block)
		return
	}
	buf := scratch(len(x))
	defer release(buf)
	simd.SplitAVX2(&(*buf)[0], &x[0], len(x))
	simd.Dot4AVX2(&y[0], &(*buf)[0], &codes[0], &values[0], &absmax[0], len(y), len(x)/block, block)
}

func dot4AVX512(y, x []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	if block%64 != 0 {
		dot4AVX2(y, x, codes, values, absmax, block)
		return
	}
	buf := scratch(len(x))
	defer release(buf)
	simd.SplitAVX512(&(*buf)[0], &x[0], len(x))
	simd.Dot4AVX512(&y[0], &(*buf)[0], &codes[0], &values[0], &absmax[0], len(y), len(x)/block, block)
}
