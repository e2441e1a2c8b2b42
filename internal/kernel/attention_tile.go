package kernel

// tileProduct sets the m x n matrix c to A·B, or adds A·B to it: A is m x k, B is k x
// n, and there are ldc and ldb floats from row to row of c and b. b is scratch memory
// with rows of whole cache lines.
func tileProduct(c []float32, ldc int, a strided, b []float32, ldb, m, n, k int, add bool) {
	if !add {
		for r := range m {
			clear(c[r*ldc:][:n])
		}
	}
	gemm(c, ldc, a, b, ldb, m, n, k)
}

// tileRows copies rows of d floats, with ld floats from row to row, to dst.
func tileRows(dst []float32, ldd int, src []float32, ld, rows, d int) {
	for r := range rows {
		copy(dst[r*ldd:][:d], src[r*ld:][:d])
	}
}

// tileColumns copies rows of d floats to the columns of dst.
func tileColumns(dst []float32, ldd int, src []float32, ld, rows, d int) {
	transpose(dst, ldd, src, ld, rows, d)
}

// buffer deals out scratch memory.
type buffer struct {
	all  *[]float32
	left []float32
}

func newBuffer(n int) *buffer {
	all := scratch(n)
	return &buffer{all, *all}
}

func (b *buffer) take(n int) []float32 {
	part := b.left[:n:n]
	b.left = b.left[n:]
	return part
}

func (b *buffer) release() { release(b.all) }
