package kernel

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

// packA packs up to kStep columns of A from kk on of the rows from begin to end: for
// each tile its rows, column by column.
func (s *section) packA(dst []float32, kk, begin, end int) {
	u := s.u
	a, kw := s.columns(kk)
	if a.row == 1 {
		for k := 0; k < kw; k += copyRows {
			n := min(copyRows, kw-k)
			from := a.data[k*a.col:]
			for i := begin; i < end; {
				h := u.height(s.m - i)
				u.copy(dst[(i-begin)*kw+k*h:], h, from[i:], a.col, n, h, h)
				i += h
			}
		}
		return
	}
	for i := begin; i < end; {
		h := u.height(s.m - i)
		strip, from := dst[(i-begin)*kw:], a.data[i*a.row:]
		if a.col == 1 {
			u.transpose(strip, h, from, a.row, h, kw)
		} else {
			for k := range kw {
				for r := range h {
					strip[k*h+r] = from[r*a.row+k*a.col]
				}
			}
		}
		i += h
	}
}

// pack packs kn rows of B from k0 on and n columns from n0 on: slivers of as many
// columns as a tile has, row by row, the last one padded.
// What begins at row nextK and column nextN is packed next.
func (b *operand) pack(u *microkernel, dst []float32, k0, kn, n0, n, nextK, nextN int) error {
	if b.tiles != nil {
		if p, ok := b.tiles.(Packer); ok && b.transposed && n <= u.cols && n%PackRows == 0 && kn%PackCols == 0 {
			return p.PackTile(dst, n, n0, n, k0, kn, nextN, nextK)
		}
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
			// Half a sliver at a time leaves room for the other one in the nearest cache.
			for at, half := 0, (u.cols+1)/2; at < w; at += half {
				rows := min(half, w-at)
				if err := b.tiles.DecodeTile(part, ld, n0+j+at, rows, k0, kn); err != nil {
					return err
				}
				u.transpose(dst[j*kn+at:], u.width(w), part, ld, rows, kn)
			}
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
