package kernel

// A stair is which part of a tile of scores matters where the last keys are not seen
// by the first queries: query i sees the first keys up to `first`+i at the most.
type stair struct {
	first int
	side  side
}

// side is where the tile is in a product.
type side int

const (
	result    side = iota // C: queries x keys
	byQueries             // A: queries x keys
	byKeys                // A: keys x queries
)

// part returns what matters of a product for h rows of A from i on: the first
// columns, and from where to where in k.
func (s stair) part(i, h, n, k int) (columns, k0, k1 int) {
	seen := s.first + i + h - 1
	switch s.side {
	case result:
		return min(n, seen), 0, k
	case byQueries:
		return n, 0, min(k, seen)
	default:
		return n, max(0, i-s.first+1), k
	}
}

// tileProduct sets the m x n matrix c to A·B, or adds A·B to it: A is m x k, B is k x
// n, and there are ldc and ldb floats from row to row of c and b. b is scratch memory
// with rows of whole cache lines. What does not matter may be left out: A is 0 there,
// or c arbitrary.
func tileProduct(c []float32, ldc int, a strided, b []float32, ldb, m, n, k int, add bool, s stair) {
	u := use.micro
	if u == nil {
		if !add {
			for r := range m {
				clear(c[r*ldc:][:n])
			}
		}
		gemm(c, ldc, a, b, ldb, m, n, k)
		return
	}
	for j := 0; j < n; j += u.cols {
		for i := 0; i < m; {
			h := u.height(m - i)
			columns, k0, k1 := s.part(i, h, n, k)
			if w := min(u.cols, columns-j); w > 0 && k0 < k1 {
				part := a
				part.data = a.data[i*a.row+k0*a.col:]
				u.mul(c[i*ldc+j:], ldc, part, b[k0*ldb+j:], ldb, h, w, k1-k0, add)
			}
			i += h
		}
	}
}

// tileRows copies rows of d floats, with ld floats from row to row, times scale to
// dst.
func tileRows(dst []float32, ldd int, src []float32, ld, rows, d int, scale float32) {
	for r := range rows {
		row := dst[r*ldd:][:d]
		copy(row, src[r*ld:])
		if scale != 1 {
			use.scale(row, scale)
		}
	}
}

// tileColumns copies rows of d floats to the columns of dst.
func tileColumns(dst []float32, ldd int, src []float32, ld, rows, d int) {
	if u := use.micro; u != nil {
		u.transpose(dst, ldd, src, ld, rows, d)
		return
	}
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
