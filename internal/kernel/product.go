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

	// sum puts the sum of old, which may be nil, and the product of the m x k matrix a
	// and the k x n matrix b into c. m, n and k are at least 1, m and n at most rows and
	// cols. Meanwhile it prefetches.
	sum func(c []float32, ldc int, old []float32, ldold int, a strided, b []float32, ldb, m, n, k int, next ahead)

	// transpose writes the rows x cols matrix src as cols x rows to dst.
	transpose func(dst []float32, ldd int, src []float32, ld, rows, cols int)

	// copy copies width floats of each row to dst, and zeros behind them up to pad,
	// which is at most cols.
	copy func(dst []float32, ldd int, src []float32, ld, rows, width, pad int)
}

// mul adds the m x k matrix a times the k x n matrix b to c, or puts it there: a tile, as
// sum makes it.
func (u *microkernel) mul(c []float32, ldc int, a strided, b []float32, ldb, m, n, k int, add bool) {
	old := c
	if !add {
		old = nil
	}
	u.sum(c, ldc, old, ldc, a, b, ldb, m, n, k, ahead{})
}

// The sizes are those that measured best. A sliver of B, kStep x cols, stays in the
// first-level cache while the tiles of all rows are made with it; kStep columns of A,
// aRows high, stay in the second.
const (
	// kStep is how many products are summed in registers. Results depend on it, and on
	// nothing else here.
	kStep = 128
	// bCols is the most columns of the product that one goroutine makes at a time.
	bCols = 256
	// bFloats is the size of a packed panel of B.
	bFloats = kStep * bCols
	// aRows is about how many rows of A use a sliver of B once it is packed.
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

// ahead is what is needed soon: a kStep of floats of each of four rows from at on.
type ahead struct {
	at *float32
	ld int // floats from row to row; 0 for one row
}

// product is C = A·B or C += A·B.
type product struct {
	c       []float32
	ldc     int // floats from row to row of c
	a       strided
	b       operand
	m, n, k int
	add     bool

	// also is added at the end, while the sums are in a near cache.
	also addend

	// serial has the caller do all the work.
	serial bool
}

// addend is another product of m x n.
type addend struct {
	a strided
	b operand
	k int // 0 is none
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
	if p.also.k > 0 && (p.serial || p.n <= 2*bCols || p.m <= 12*u.rows) { // not packed
		q := product{c: p.c, ldc: p.ldc, a: p.also.a, b: p.also.b, m: p.m, n: p.n, k: p.also.k, add: true, serial: p.serial}
		first := *p
		first.also = addend{}
		if err := u.multiply(&first); err != nil {
			return err
		}
		return u.multiply(&q)
	}
	blocks := (p.m + aRows - 1) / aRows
	rows := ((p.m+blocks-1)/blocks + u.rows - 1) / u.rows * u.rows
	for m0 := 0; m0 < p.m; m0 += rows {
		m := min(rows, p.m-m0)
		deep := max(kStep, aFloats/m/kStep*kStep)
		for k0 := 0; k0 < p.k; k0 += deep {
			s := section{product: *p, u: u, m0: m0, m: m, k0: k0, kn: min(deep, p.k-k0)}
			if s.k0+s.kn < p.k {
				s.also = addend{}
			}
			if err := s.run(); err != nil {
				return err
			}
		}
	}
	return nil
}

// section is a part of a product: some rows of A, and some of its columns.
type section struct {
	product
	u      *microkernel
	m0, k0 int
	m, kn  int // numbers of rows and columns

	// A is used as it is if there is little of it; it is packed by the tile if few
	// columns share it; or packed here at once.
	plainA, tileA      bool
	packed, packedAlso []float32

	// B is used as it is if there is little of it and few rows share it, or packed by
	// the tile.
	plainB bool

	// cols is how many columns of the product are made at a time.
	cols int
}

// columns returns the part of A that is multiplied from column kk on, and how many
// columns it has. Those of the addend come after those of the section.
func (s *section) columns(kk int) (a strided, kw int) {
	if kk < s.kn {
		return s.a.from(s.m0, s.k0+kk), min(kStep, s.kn-kk)
	}
	kk -= s.kn
	return s.also.a.from(s.m0, kk), min(kStep, s.also.k-kk)
}

// packedAt is where that part is packed.
func (s *section) packedAt(kk int) []float32 {
	if kk < s.kn {
		return s.packed[kk*s.m:]
	}
	return s.packedAlso[(kk-s.kn)*s.m:]
}

// apart says that rows with ld floats from one to the next do not fall on each other in
// the cache.
func apart(ld int) bool { return ld%512 != 0 }

func (s *section) run() error {
	u := s.u
	s.plainB = s.b.data != nil && !s.b.transposed && (!u.padded || s.n%u.step == 0) &&
		s.kn*s.b.ld <= bFloats && (s.m <= 12*u.rows && apart(s.b.ld) || s.m <= 3*u.rows)
	s.plainA = s.n <= 2*bCols && s.m*s.kn <= bFloats && apart(s.a.row*s.a.col)
	s.tileA = !s.plainA && !s.serial && s.n <= u.cols
	s.cols = bCols
	if unit := max(u.cols, s.b.step); !s.serial {
		// Wide tiles read A less often; rows make up for their number, if there are enough.
		columns := max((s.n+bCols-1)/bCols, goalTiles/max(1, s.m/(8*u.rows)))
		s.cols = min(bCols, max(1, (s.n/columns+unit-1)/unit)*unit)
	}
	if !s.plainA && !s.tileA {
		buf := scratch(s.m * s.kn)
		defer release(buf)
		s.packed = *buf
	}
	if s.also.k > 0 {
		buf := scratch(s.m * s.also.k)
		defer release(buf)
		s.packedAlso = *buf
	}
	if !s.serial {
		return s.parallel()
	}
	if s.packed != nil {
		for kk := 0; kk < s.kn; kk += kStep {
			s.packA(s.packedAt(kk), kk, 0, s.m)
		}
	}
	for n0 := 0; n0 < s.n; n0 += s.cols {
		if err := s.tile(n0, 0, s.m); err != nil {
			return err
		}
	}
	return nil
}

// parallel shares what run does among goroutines. It has a section of its own, so that
// run need not have one on the heap.
func (s section) parallel() error {
	u := s.u
	if s.packed != nil {
		groups, size := u.cuts(s.m, 10*u.rows)
		deeps := (s.kn + kStep - 1) / kStep
		all := deeps + (s.also.k+kStep-1)/kStep
		Parallel(groups*all, int64(s.m)*int64(s.kn), func(i int) {
			begin, end := part(i%groups, groups, size, s.m)
			kk := i / groups * kStep
			if i/groups >= deeps {
				kk = s.kn + (i/groups-deeps)*kStep
			}
			_, kw := s.columns(kk)
			s.packA(s.packedAt(kk)[begin*kw:], kk, begin, end)
		})
	}
	columns := (s.n + s.cols - 1) / s.cols
	parts, size := 1, s.m
	if columns < goalTiles {
		parts, size = u.cuts(s.m, max(4*u.rows, s.m*columns/goalTiles))
	}
	// A vector of products takes the time that Parallel reckons one to take.
	return Each(columns*parts, int64(s.m)*int64(s.n)*int64(s.kn)/int64(u.step), func(i int) error {
		begin, end := part(i%parts, parts, size, s.m)
		return s.tile(i/parts*s.cols, begin, end)
	})
}

// tile is what one goroutine makes at a time: rows begin to end of a section and n
// columns from n0 on.
type tile struct {
	begin, end, n0, n int

	// Between the steps sums are here and not in c, if its rows are far apart: they fall
	// on each other in the cache.
	sums []float32

	panel, packed []float32 // of B and of A

	nextA prefetch
}

// tile makes up to s.cols columns from n0 on of the rows from begin to end.
func (s *section) tile(n0, begin, end int) error {
	u := s.u
	t := tile{begin: begin, end: end, n0: n0, n: min(s.cols, s.n-n0)}
	// Columns of w become a sliver at a time, which is used right away. Of its rows,
	// more are packed at once, so that whole cache lines and more are read.
	width := t.n
	if s.b.transposed {
		width = min(width, u.cols)
	}
	if !s.plainB {
		buf := scratch(min(kStep, max(s.kn, s.also.k)) * u.width(width))
		defer release(buf)
		t.panel = *buf
	}
	if s.tileA {
		buf := scratch((end - begin) * min(kStep, s.kn))
		defer release(buf)
		t.packed = *buf
	}
	if s.kn > 3*kStep && s.ldc >= 1024 {
		buf := scratch((end - begin) * u.width(t.n))
		defer release(buf)
		t.sums = *buf
	}
	var kw int
	for kk := 0; kk < s.kn+s.also.k; kk += kw {
		_, kw = s.columns(kk)
		if s.tileA {
			s.packA(t.packed, kk, begin, end)
		}
		for from := 0; from < t.n; from += width {
			n := min(width, t.n-from)
			if !s.plainB {
				if err := s.packB(&t, kk, kw, from, n, width); err != nil {
					return err
				}
			}
			next := s.following(&t, kk, from+width, width)
			if from == 0 {
				t.nextA = s.followingA(&t, kk)
			}
			for j := 0; j < n; j += u.cols {
				b, ldb := s.b.data, s.b.ld
				if s.plainB {
					b = b[(s.k0+kk)*ldb+n0+from+j:]
				} else {
					b, ldb = t.panel[j*kw:], u.width(min(u.cols, n-j))
				}
				s.mul(&t, kk, kw, from+j, b, ldb, &next)
			}
		}
	}
	return nil
}

// packB packs what is multiplied with columns kk to kk+kw of A for n columns of the tile
// from the given one on.
func (s *section) packB(t *tile, kk, kw, from, n, width int) error {
	if kk >= s.kn {
		return s.also.b.pack(s.u, t.panel, kk-s.kn, kw, t.n0+from, n, 0, 0)
	}
	nextK, nextN := kk, from+width
	if nextN >= t.n {
		nextK, nextN = min(kk+kStep, s.kn-1), 0
	}
	return s.b.pack(s.u, t.panel, s.k0+kk, kw, t.n0+from, n, s.k0+nextK, t.n0+nextN)
}

// mul adds the products of columns kk to kk+kw of A and a sliver of B to the columns of
// the tile from j on.
func (s *section) mul(t *tile, kk, kw, j int, b []float32, ldb int, next *prefetch) {
	u := s.u
	w := min(u.cols, t.n-j)
	ldsums := u.width(w)
	for i := t.begin; i < t.end; {
		h := u.height(s.m - i)
		var a strided
		switch {
		case s.plainA:
			a = s.a.from(s.m0+i, s.k0+kk)
		case s.tileA:
			a = strided{t.packed[(i-t.begin)*kw:], 1, h}
		default:
			a = strided{s.packedAt(kk)[i*kw:], 1, h}
		}
		c, ldc := s.c[(s.m0+i)*s.ldc+t.n0+j:], s.ldc
		old, ldold := c, ldc
		if kk == 0 && s.k0 == 0 && !s.add {
			old = nil
		}
		if t.sums != nil {
			sums := t.sums[j*(t.end-t.begin)+(i-t.begin)*ldsums:]
			if kk > 0 {
				old, ldold = sums, ldsums
			}
			if kk+kw < s.kn+s.also.k {
				c, ldc = sums, ldsums
			}
		}
		soon := next.take()
		if soon.at == nil {
			soon = t.nextA.take()
		}
		u.sum(c, ldc, old, ldold, a, b, ldb, h, w, kw, soon)
		i += h
	}
}

// prefetch goes through the rows of a part of B.
type prefetch struct {
	data             []float32
	ld, left, atOnce int
}

// following returns what is packed after a part of B, so that it is in the cache by
// then: memory is read while the processor multiplies. That is the columns of the
// product from the given one on or, behind the last, the first ones in the next step.
func (s *section) following(t *tile, kk, from, width int) (p prefetch) {
	if s.b.data == nil || s.plainB || kk >= s.kn {
		return p
	}
	if from >= t.n {
		from, kk = 0, kk+kStep
		if kk >= s.kn {
			return p
		}
	}
	p.ld = s.b.ld
	if s.b.transposed {
		p.data, p.left = s.b.data[(t.n0+from)*p.ld+s.k0+kk:], min(width, t.n-from)
	} else if t.n >= kStep/2 { // else a kStep of floats is more than a row has
		p.data, p.left = s.b.data[(s.k0+kk)*p.ld+t.n0:], min(kStep, s.kn-kk)
	}
	p.atOnce = 1
	if calls := (width + s.u.cols - 1) / s.u.cols * ((t.end - t.begin) / s.u.rows); calls < p.left {
		p.atOnce = 4
	}
	return p
}

// followingA returns the part of packed A that comes after the one from column kk on; the
// second-level cache has room for both.
func (s *section) followingA(t *tile, kk int) (p prefetch) {
	if s.packed == nil || s.kn <= kStep {
		return p
	}
	if kk += kStep; kk >= s.kn {
		kk = 0 // for the next columns of the product
	}
	kw := min(kStep, s.kn-kk)
	p.data = s.packed[kk*s.m+t.begin*kw : kk*s.m+t.end*kw]
	p.ld, p.left, p.atOnce = kStep, len(p.data)/kStep, 4
	return p
}

// take returns the next rows; nothing if all were.
func (p *prefetch) take() (a ahead) {
	if p.left < p.atOnce || p.left == 0 {
		return a
	}
	a.at = &p.data[0]
	if p.atOnce > 1 {
		a.ld = p.ld
	}
	p.left -= p.atOnce
	if p.left > 0 {
		p.data = p.data[p.atOnce*p.ld:]
	}
	return a
}
