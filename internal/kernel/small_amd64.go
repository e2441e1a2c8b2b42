//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

// A dotsLoop computes mr x nr dot products of k floats, a multiple of a register's.
type dotsLoop func(out, x *float32, ldx int, w *float32, ldw, k int)

// dotsLoops are those of one variant: for 1 to 4 rows of x, with nr rows of w and with
// one.
type dotsLoops struct {
	lanes, nr int
	loops     [4][2]dotsLoop
}

var (
	dotsOf512 = dotsLoops{16, 4, [4][2]dotsLoop{
		{simd.Dots1x4AVX512, simd.Dots1x1AVX512},
		{simd.Dots2x4AVX512, simd.Dots2x1AVX512},
		{simd.Dots3x4AVX512, simd.Dots3x1AVX512},
		{simd.Dots4x4AVX512, simd.Dots4x1AVX512},
	}}
	dotsOf256 = dotsLoops{8, 2, [4][2]dotsLoop{
		{simd.Dots1x2AVX2, simd.Dots1x1AVX2},
		{simd.Dots2x2AVX2, simd.Dots2x1AVX2},
		{simd.Dots3x2AVX2, simd.Dots3x1AVX2},
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
			mr := min(4, m-i)
			d.loops[mr-1][one](&out[0], &x[i*ldx], ldx, &w[j*ldw], ldw, whole)
			for a := range mr {
				for b := range nr {
					sum := out[a*nr+b]
					if whole < k {
						sum += dotGo(x[(i+a)*ldx+whole:][:k-whole], w[(j+b)*ldw+whole:][:k-whole])
					}
					y[(i+a)*ldy+j+b] += sum
				}
			}
			i += mr
		}
		j += nr
	}
}

// dot4Loops are the loops of products with 1 to 4 rows of x, and what they need x
// to be brought in the order of.
type dot4Loops struct {
	split func(dst, x *float32, n int)
	loops [4]dot4Loop
}

type dot4Loop func(y *float32, ldy int, x *float32, ldx int, codes *byte, codesSkip int,
	values, absmax *float32, absmaxSkip, rows, blocks, block int)

var (
	dot4Of512 = dot4Loops{simd.SplitAVX512, [4]dot4Loop{simd.Dot4x1AVX512, simd.Dot4x2AVX512, simd.Dot4x3AVX512, simd.Dot4x4AVX512}}
	dot4Of256 = dot4Loops{simd.SplitAVX2, [4]dot4Loop{simd.Dot4x1AVX2, simd.Dot4x2AVX2, simd.Dot4x3AVX2, simd.Dot4x4AVX2}}
)

func dot4AVX2(y []float32, ldy int, x []float32, m, cols int, codes []byte, values *[16]float32, absmax []float32, block, n int) {
	if block%32 != 0 {
		dot4Go(y, ldy, x, m, cols, codes, values, absmax, block, n)
		return
	}
	dot4Of256.run(y, ldy, x, m, cols, codes, values, absmax, block, n)
}

func dot4AVX512(y []float32, ldy int, x []float32, m, cols int, codes []byte, values *[16]float32, absmax []float32, block, n int) {
	if block%64 != 0 {
		dot4AVX2(y, ldy, x, m, cols, codes, values, absmax, block, n)
		return
	}
	dot4Of512.run(y, ldy, x, m, cols, codes, values, absmax, block, n)
}

// splitFloats bounds the part of x that is multiplied by all rows of codes before the
// next one is: it stays in the nearest cache.
const splitFloats = 8192

func (d *dot4Loops) run(y []float32, ldy int, x []float32, m, cols int, codes []byte, values *[16]float32, absmax []float32, block, n int) {
	buf := scratch(m * cols)
	defer release(buf)
	split := *buf
	d.split(&split[0], &x[0], m*cols)
	for i := 0; i < m; {
		mr := min(4, m-i)
		width := max(1, splitFloats/mr/block) * block
		for c := 0; c < cols; c += width {
			part := min(width, cols-c)
			d.loops[mr-1](&y[i*ldy], 4*ldy, &split[i*cols+c], 4*cols, &codes[c/2], (cols-part)/2,
				&values[0], &absmax[c/block], 4*(cols-part)/block, n, part/block, block)
		}
		i += mr
	}
}
