package kernel

// A microkernel is what the assembly of a variant brings to products of matrices:
// a loop that keeps a tile of the product in registers, and loops that bring what it
// reads into the order in which it does. How the work is cut around it is that of
// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
type microkernel struct {
	// rows and cols are the most of a tile, which is best.
	rows, cols int

	// step is the width that a tile of few columns is made with.
	step int

	// padded says that mul reads a multiple of step columns of B.
	padded bool

	// mul adds the m x k matrix a times the k x n matrix b to c, or puts it there. m,
	// n and k are at least 1, m and n at most rows and cols.
	mul func(c []float32, ldc int, a strided, b []float32, ldb, m, n, k int, add bool)

	// transpose writes the rows x cols matrix src as cols x rows to dst.
	transpose func(dst []float32, ldd int, src []float32, ld, rows, cols int)

	// copy copies width floats of each row to dst, and zeros behind them up to pad,
	// which is at most cols.
	copy func(dst []float32, ldd int, src []float32, ld, rows, width, pad int)
}

// The sizes are those that measured best: a sliver of B, kStep x cols, stays in the
// first-level cache, a panel of bFloats beside as much of A in the second.
const (
	// kStep is how many products are summed in registers. Results depend on it.
	kStep = 256
	// bCols is the most columns of the product that one goroutine makes at a time.
	bCols = 256
	// bFloats is the size of a packed panel of B.
	bFloats = kStep * bCols
	// aRows is about how many rows of A are packed for every panel of B.
	aRows = 560
	// aFloats bounds what is packed of A at a time.
	aFloats = 1 << 21
	// goalTiles is how many parts the product is cut into, if it is large enough, so
	// that processors end together.
	goalTiles = 8
	// copyRows is how many rows are copied at a time, so that cache lines which two
	// slivers share are read once.
	copyRows = 16
	// decodeFloats is the size of a decoded part of a matrix: one that the nearest
	// cache holds.
	decodeFloats = 32 * (kStep + 16)
)

// product is C = A·B or C += A·B.
type product struct {
	c       []float32
	ldc     int // floats from row to row of c
	a       strided
	b       operand
	m, n, k int
	add     bool

	// serial has the caller do all the work.
	serial bool
}

// operand is B: element (k, n) is at k*ld + n of data, or n*ld + k if transposed.
type operand struct {
	data       []float32
	ld         int
	transposed bool

	// tiles is what it is decoded from as it is packed, if there is no data.
	tiles Tiles
	step  int
}

// direct takes what can be packed right from w, if it can.
func (b *operand) direct(w Matrix) bool {
	switch w := w.(type) {
	case Dense:
		b.data, b.ld = w.Data, w.Cols
		return true
	case Tiles:
		step := w.TileStep()
		if step < 1 || kStep%step != 0 || bCols%step != 0 {
			return false
		}
		b.tiles, b.step = w, step
		return true
	default:
		return false
	}
}

// height returns how many of the remaining rows the next tile takes. The last two
// share what is left, as a tile of few rows leaves multipliers idle.
func (u *microkernel) height(left int) int {
	switch {
	case left >= 2*u.rows:
		return u.rows
	case left > u.rows:
		return (left + 1) / 2
	default:
		return left
	}
}

// width returns the columns that a packed sliver of B has for n of the product.
func (u *microkernel) width(n int) int { return (n + u.step - 1) / u.step * u.step }

// cuts returns how many parts of about so many rows there are, and their size, a
// multiple of that of a tile; the last takes what is left, and has two tiles if there
// are two.
func (u *microkernel) cuts(rows, about int) (n, size int) {
	size = max(2*u.rows, about/u.rows*u.rows)
	return max(1, rows/size), size
}

// part returns where one of the n parts begins and ends.
func part(i, n, size, rows int) (begin, end int) {
	if i == n-1 {
		return i * size, rows
	}
	return i * size, (i + 1) * size
}

func (u *microkernel) multiply(p *product) error {
	if p.m <= 0 || p.n <= 0 {
		return nil
	}
	if p.k <= 0 {
		if !p.add {
			for i := range p.m {
				clear(p.c[i*p.ldc:][:p.n])
			}
		}
		return nil
	}
	blocks := (p.m + aRows - 1) / aRows
	rows := (p.m + blocks - 1) / blocks
	blocks, rows = u.cuts(p.m, rows+u.rows-1)
	for i := range blocks {
		m0, m1 := part(i, blocks, rows, p.m)
		deep := max(kStep, aFloats/(m1-m0)/kStep*kStep)
		for k0 := 0; k0 < p.k; k0 += deep {
			s := section{u: u, product: p, m0: m0, m: m1 - m0, k0: k0, kn: min(deep, p.k-k0)}
			if err := s.run(); err != nil {
				return err
			}
		}
	}
	return nil
}

// section is a part of a product: some rows of A, and some of its columns.
type section struct {
	*product
	u        *microkernel
	m0, k0   int
	m, kn    int // numbers of rows and columns
	packed   []float32
	cols     int // of the product in a part
	parts    int // of the rows
	partRows int
	plainB   bool // B is used as it is
}

func (s *section) run() error {
	u := s.u
	s.plainB = s.b.data != nil && !s.b.transposed && s.m <= 2*u.rows && (!u.padded || s.n%u.step == 0)
	if !s.plainA() {
		buf := scratch(s.m * s.kn)
		defer release(buf)
		s.packed = *buf
		s.packA()
	}
	unit := max(u.cols, s.b.step)
	s.cols = min(bCols, max(1, s.n/goalTiles/unit)*unit)
	nTiles := (s.n + s.cols - 1) / s.cols
	s.parts, s.partRows = 1, s.m
	if nTiles < goalTiles && !s.serial {
		s.parts, s.partRows = u.cuts(s.m, max(4*u.rows, s.m*nTiles/goalTiles))
	}
	if s.serial {
		for t := range nTiles {
			if err := s.tile(t*s.cols, 0, s.m); err != nil {
				return err
			}
		}
		return nil
	}
	return each(nTiles*s.parts, int64(s.m)*int64(s.n)*int64(s.kn), func(i int) error {
		begin, end := part(i%s.parts, s.parts, s.partRows, s.m)
		return s.tile(i/s.parts*s.cols, begin, end)
	})
}

// plainA says that A is best used as it is: few columns of the product share it, and
// its rows do not fall on each other in the cache.
func (s *section) plainA() bool {
	return s.a.col == 1 && s.n <= 2*s.u.cols && s.a.row%512 != 0
}

// packA packs A: for each kStep of columns, for each tile of rows, its columns.
func (s *section) packA() {
	groups, size := s.u.cuts(s.m, 10*s.u.rows)
	deeps := (s.kn + kStep - 1) / kStep
	pack := func(i int) {
		begin, end := part(i%groups, groups, size, s.m)
		s.packStrips(i/groups*kStep, begin, end)
	}
	if s.serial {
		for i := range groups * deeps {
			pack(i)
		}
		return
	}
	Parallel(groups*deeps, int64(s.m)*int64(s.kn), pack)
}

// packStrips packs up to kStep columns from kk on of the rows from begin to end.
func (s *section) packStrips(kk, begin, end int) {
	u, a := s.u, s.a
	kw := min(kStep, s.kn-kk)
	if a.row == 1 {
		for k := 0; k < kw; k += copyRows {
			n := min(copyRows, kw-k)
			from := a.data[(s.k0+kk+k)*a.col+s.m0:]
			for i := begin; i < end; {
				h := u.height(s.m - i)
				u.copy(s.packed[kk*s.m+i*kw+k*h:], h, from[i:], a.col, n, h, h)
				i += h
			}
		}
		return
	}
	for i := begin; i < end; {
		h := u.height(s.m - i)
		dst, from := s.packed[kk*s.m+i*kw:], a.data[(s.m0+i)*a.row+(s.k0+kk)*a.col:]
		if a.col == 1 {
			u.transpose(dst, h, from, a.row, h, kw)
		} else {
			for k := range kw {
				for r := range h {
					dst[k*h+r] = from[r*a.row+k*a.col]
				}
			}
		}
		i += h
	}
}

// tile makes up to s.cols columns from n0 on of the rows from begin to end.
func (s *section) tile(n0, begin, end int) error {
	u := s.u
	n := min(s.cols, s.n-n0)
	var panel []float32
	if !s.plainB {
		buf := scratch(min(kStep, s.kn) * u.width(n))
		defer release(buf)
		panel = *buf
	}
	for kk := 0; kk < s.kn; kk += kStep {
		kw := min(kStep, s.kn-kk)
		if !s.plainB {
			if err := s.b.pack(u, panel, s.k0+kk, kw, n0, n); err != nil {
				return err
			}
		}
		add := s.add || s.k0+kk > 0
		for j := 0; j < n; j += u.cols {
			w := min(u.cols, n-j)
			var b []float32
			ldb := s.b.ld
			if s.plainB {
				b = s.b.data[(s.k0+kk)*ldb+n0+j:]
			} else {
				b, ldb = panel[j*kw:], u.width(w)
			}
			for i := begin; i < end; {
				h := u.height(s.m - i)
				var a strided
				if s.packed != nil {
					a = strided{s.packed[kk*s.m+i*kw:], 1, h}
				} else {
					a = s.a
					a.data = a.data[(s.m0+i)*a.row+(s.k0+kk)*a.col:]
				}
				u.mul(s.c[(s.m0+i)*s.ldc+n0+j:], s.ldc, a, b, ldb, h, w, kw, add)
				i += h
			}
		}
	}
	return nil
}

// pack packs kn rows of B from k0 on and n columns from n0 on: slivers of as many
// columns as a tile has, row by row, the last one padded.
func (b *operand) pack(u *microkernel, dst []float32, k0, kn, n0, n int) error {
	if b.tiles != nil {
		return b.decode(u, dst, k0, kn, n0, n)
	}
	if b.transposed {
		for j := 0; j < n; j += u.cols {
			w := min(u.cols, n-j)
			u.transpose(dst[j*kn:], u.width(w), b.data[(n0+j)*b.ld+k0:], b.ld, w, kn)
		}
		return nil
	}
	for k := 0; k < kn; k += copyRows {
		packRows(u, dst, b.data[(k0+k)*b.ld+n0:], b.ld, k, min(copyRows, kn-k), kn, n)
	}
	return nil
}

// packRows packs rows k to k+rows of a panel of kn rows and n columns from src.
func packRows(u *microkernel, dst, src []float32, ld, k, rows, kn, n int) {
	for j := 0; j < n; j += u.cols {
		w := min(u.cols, n-j)
		pad := u.width(w)
		u.copy(dst[j*kn+k*pad:], pad, src[j:], ld, rows, w, pad)
	}
}

// decode is pack for a matrix that is decoded on the way.
func (b *operand) decode(u *microkernel, dst []float32, k0, kn, n0, n int) error {
	buf := scratch(decodeFloats)
	defer release(buf)
	part := *buf
	if b.transposed {
		// Rows that are whole cache lines plus one do not fall on each other.
		const ld = kStep + 16
		for j := 0; j < n; j += u.cols {
			w := min(u.cols, n-j)
			if err := b.tiles.DecodeTile(part, ld, n0+j, w, k0, kn); err != nil {
				return err
			}
			u.transpose(dst[j*kn:], u.width(w), part, ld, w, kn)
		}
		return nil
	}
	for k := 0; k < kn; k += copyRows {
		rows := min(copyRows, kn-k)
		if err := b.tiles.DecodeTile(part, bCols, k0+k, rows, n0, n); err != nil {
			return err
		}
		packRows(u, dst, part, bCols, k, rows, kn, n)
	}
	return nil
}
