package kernel

// The products of matrices of the plain Go variant: tiles of the product, each made
// by sweeps over its rows.

const (
	// nTile is the width of a tile of the product: what one goroutine makes.
	nTile = 64
	// mTile is its height.
	mTile = 64
	// cTile is its width where the inner loop runs along a row of the matrix
	// itself.
	cTile = 256
)

// mulTGo adds x·wᵀ to y.
func mulTGo(y, x []float32, m int, w Matrix) error {
	rows, cols := w.Dims()
	panel := panelRows(rows, cols)
	buf := scratch(panel * cols)
	defer release(buf)
	for n0 := 0; n0 < rows; n0 += panel {
		n1 := min(rows, n0+panel)
		tiles := (n1 - n0 + nTile - 1) / nTile
		// A tile of rows becomes cols x nTile, so that the inner loop runs
		// along neighbouring outputs.
		if err := Each(tiles, int64(n1-n0)*int64(cols), func(t int) error {
			at, end := n0+t*nTile, min(n1, n0+(t+1)*nTile)
			dst := (*buf)[t*nTile*cols:]
			if d, ok := w.(Dense); ok {
				transpose(dst, nTile, d.Data[at*cols:], cols, end-at, cols)
				return nil
			}
			rowsBuf := scratch((end - at) * cols)
			defer release(rowsBuf)
			if err := w.DecodeRows(*rowsBuf, at); err != nil {
				return err
			}
			transpose(dst, nTile, *rowsBuf, cols, end-at, cols)
			return nil
		}); err != nil {
			return err
		}
		mTiles := (m + mTile - 1) / mTile
		Parallel(tiles*mTiles, int64(m)*int64(n1-n0)*int64(cols), func(i int) {
			t, m0 := i/mTiles, i%mTiles*mTile
			at, end := n0+t*nTile, min(n1, n0+(t+1)*nTile)
			mm := min(mTile, m-m0)
			mulAddGo(y[m0*rows+at:], rows, strided{x[m0*cols:], cols, 1}, (*buf)[t*nTile*cols:], nTile, mm, end-at, cols)
		})
	}
	return nil
}

// mulGo adds dy·w to dx.
func mulGo(dx, dy []float32, m int, w Matrix) error {
	rows, cols := w.Dims()
	mTiles, cTiles := (m+mTile-1)/mTile, (cols+cTile-1)/cTile
	product := func(b []float32, n0, n1 int) {
		Parallel(mTiles*cTiles, int64(m)*int64(n1-n0)*int64(cols), func(i int) {
			m0, c0 := i%mTiles*mTile, i/mTiles*cTile
			mulAddGo(dx[m0*cols+c0:], cols, strided{dy[m0*rows+n0:], rows, 1}, b[c0:], cols,
				min(mTile, m-m0), min(cTile, cols-c0), n1-n0)
		})
	}
	if d, ok := w.(Dense); ok {
		product(d.Data, 0, rows)
		return nil
	}
	panel := panelRows(rows, cols)
	buf := scratch(panel * cols)
	defer release(buf)
	for n0 := 0; n0 < rows; n0 += panel {
		n1 := min(rows, n0+panel)
		if err := decodePanel((*buf)[:(n1-n0)*cols], w, n0); err != nil {
			return err
		}
		product(*buf, n0, n1)
	}
	return nil
}

// addOuterGo is AddOuter.
func addOuterGo(dw, dy, x []float32, m, rows, cols int) {
	rTiles, cTiles := (rows+mTile-1)/mTile, (cols+cTile-1)/cTile
	Parallel(rTiles*cTiles, int64(m)*int64(rows)*int64(cols), func(i int) {
		r0, c0 := i%rTiles*mTile, i/rTiles*cTile
		mulAddGo(dw[r0*cols+c0:], cols, strided{dy[r0:], 1, rows}, x[c0:], cols,
			min(mTile, rows-r0), min(cTile, cols-c0), m)
	})
}
