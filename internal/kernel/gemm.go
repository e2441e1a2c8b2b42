package kernel

// gemmLoops are the inner loops of products of matrices.
type gemmLoops struct {
	// micro is nil for plain Go.
	micro *microkernel
}

var gemmGo = gemmLoops{}

// strided is a matrix read element by element: (i, j) is at i*row + j*col.
type strided struct {
	data     []float32
	row, col int
}

// from returns the part that begins with an element.
func (s strided) from(i, j int) strided {
	s.data = s.data[i*s.row+j*s.col:]
	return s
}

// kBlock bounds how many rows of B one sweep over C uses, so that they stay in
// the second-level cache while every pair of rows of C passes over them.
const kBlock = 256

// gemm adds A·B to C: c is m x n with ldc floats from row to row, a is m x k, b
// is k x n with ldb floats from row to row. It starts no goroutines.
func gemm(c []float32, ldc int, a strided, b []float32, ldb, m, n, k int) {
	u := use.micro
	if u == nil {
		mulAddGo(c, ldc, a, b, ldb, m, n, k)
		return
	}
	p := product{c: c, ldc: ldc, a: a, b: operand{data: b, ld: ldb}, m: m, n: n, k: k, add: true, serial: true}
	_ = u.multiply(&p) // matrices in memory cannot fail to decode
}

// mulAddGo is gemm in plain Go. Each element of C receives its products in the order
// of k, four summed at a time.
func mulAddGo(c []float32, ldc int, a strided, b []float32, ldb, m, n, k int) {
	if n == 0 {
		return
	}
	for k0 := 0; k0 < k; k0 += kBlock {
		k1 := min(k, k0+kBlock)
		i := 0
		for ; i+2 <= m; i += 2 {
			gemm2(c[i*ldc:i*ldc+n], c[(i+1)*ldc:(i+1)*ldc+n], a, i, b, ldb, k0, k1)
		}
		if i < m {
			gemm1(c[i*ldc:i*ldc+n], a, i, b, ldb, k0, k1)
		}
	}
}

// gemm2 adds rows i and i+1 of A, columns k0 to k1, times B to y and z.
func gemm2(y, z []float32, a strided, i int, b []float32, ldb, k0, k1 int) {
	z = z[:len(y)]
	ay, az := i*a.row, (i+1)*a.row
	j := k0
	for ; j+4 <= k1; j += 4 {
		p, q := b[j*ldb:][:len(y)], b[(j+1)*ldb:][:len(y)]
		r, s := b[(j+2)*ldb:][:len(y)], b[(j+3)*ldb:][:len(y)]
		at := j * a.col
		y0, z0 := a.data[ay+at], a.data[az+at]
		at += a.col
		y1, z1 := a.data[ay+at], a.data[az+at]
		at += a.col
		y2, z2 := a.data[ay+at], a.data[az+at]
		at += a.col
		y3, z3 := a.data[ay+at], a.data[az+at]
		for x := range y {
			u, v, w, t := p[x], q[x], r[x], s[x]
			y[x] += y0*u + y1*v + y2*w + y3*t
			z[x] += z0*u + z1*v + z2*w + z3*t
		}
	}
	for ; j < k1; j++ {
		p := b[j*ldb:][:len(y)]
		y0, z0 := a.data[ay+j*a.col], a.data[az+j*a.col]
		for x, u := range p {
			y[x] += y0 * u
			z[x] += z0 * u
		}
	}
}

// gemm1 is gemm2 for one row.
func gemm1(y []float32, a strided, i int, b []float32, ldb, k0, k1 int) {
	ay := i * a.row
	j := k0
	for ; j+4 <= k1; j += 4 {
		p, q := b[j*ldb:][:len(y)], b[(j+1)*ldb:][:len(y)]
		r, s := b[(j+2)*ldb:][:len(y)], b[(j+3)*ldb:][:len(y)]
		at := ay + j*a.col
		y0, y1, y2, y3 := a.data[at], a.data[at+a.col], a.data[at+2*a.col], a.data[at+3*a.col]
		for x := range y {
			y[x] += y0*p[x] + y1*q[x] + y2*r[x] + y3*s[x]
		}
	}
	for ; j < k1; j++ {
		p := b[j*ldb:][:len(y)]
		y0 := a.data[ay+j*a.col]
		for x, u := range p {
			y[x] += y0 * u
		}
	}
}

// Transposed returns the rows x cols matrix x with rows and columns exchanged.
func Transposed(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	transpose(out, rows, x, cols, rows, cols)
	return out
}

// transpose writes the rows x cols matrix src, with ld floats from row to row,
// to dst as cols x rows with ldd floats from row to row.
func transpose(dst []float32, ldd int, src []float32, ld, rows, cols int) {
	if u := use.micro; u != nil {
		u.transpose(dst, ldd, src, ld, rows, cols)
		return
	}
	transposeGo(dst, ldd, src, ld, rows, cols)
}

func transposeGo(dst []float32, ldd int, src []float32, ld, rows, cols int) {
	const tile = 16
	for r0 := 0; r0 < rows; r0 += tile {
		r1 := min(rows, r0+tile)
		for c0 := 0; c0 < cols; c0 += tile {
			c1 := min(cols, c0+tile)
			for r := r0; r < r1; r++ {
				row := src[r*ld:]
				for c := c0; c < c1; c++ {
					dst[c*ldd+r] = row[c]
				}
			}
		}
	}
}
