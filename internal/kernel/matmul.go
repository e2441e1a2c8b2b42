package kernel

// A Matrix is the weight of a linear layer, rows x cols, in whatever encoding.
// It is decoded by rows as it is used and never exists whole as float32, unless
// that is what it is stored as.
type Matrix interface {
	Dims() (rows, cols int)

	// DecodeRows fills dst with len(dst)/cols rows from the given one on. It is
	// called concurrently.
	DecodeRows(dst []float32, row int) error
}

// Tiles is a Matrix of which parts of rows can be decoded, so that a product has no
// more of it as float32 at a time than its nearest cache holds.
type Tiles interface {
	Matrix

	// TileStep is what the first column of a tile is a multiple of, and its width,
	// unless it ends with the row.
	TileStep() int

	// DecodeTile writes columns col to col+cols of the given rows to dst, ld floats
	// from row to row. It is called concurrently.
	DecodeTile(dst []float32, ld, row, rows, col, cols int) error
}

// Dense is a Matrix of float32 in memory.
type Dense struct {
	Data       []float32
	Rows, Cols int
}

// Dims implements Matrix.
func (d Dense) Dims() (rows, cols int) { return d.Rows, d.Cols }

// DecodeRows implements Matrix.
func (d Dense) DecodeRows(dst []float32, row int) error {
	copy(dst, d.Data[row*d.Cols:])
	return nil
}

const (
	// nTile is the width of a tile of the product: what one goroutine makes.
	nTile = 64
	// mTile is its height.
	mTile = 64
	// cTile is its width where the inner loop runs along a row of the matrix
	// itself.
	cTile = 256
	// panelFloats bounds the decoded part of a Matrix.
	panelFloats = 1 << 20
)

// panelRows returns how many rows of a matrix with that many columns are
// decoded at a time: a multiple of nTile.
func panelRows(rows, cols int) int {
	n := max(1, panelFloats/max(1, cols)/nTile) * nTile
	return min(n, (rows+nTile-1)/nTile*nTile)
}

// PanelBytes returns the scratch memory that MulT and Mul use for a matrix of
// those dimensions.
func PanelBytes(rows, cols int) int64 { return 2 * 4 * int64(panelRows(rows, cols)) * int64(cols) }

// MulT computes y = x·wᵀ, or adds it to y: x is m x cols, y is m x rows. It is
// the forward pass of a linear layer.
func MulT(y, x []float32, m int, w Matrix, add bool) error {
	rows, cols := w.Dims()
	if !add {
		clear(y[:m*rows])
	}
	if m <= smallM {
		return mulTSmall(y, x, m, w)
	}
	panel := panelRows(rows, cols)
	buf := scratch(panel * cols)
	defer release(buf)
	for n0 := 0; n0 < rows; n0 += panel {
		n1 := min(rows, n0+panel)
		tiles := (n1 - n0 + nTile - 1) / nTile
		// A tile of rows becomes cols x nTile, so that the inner loop runs
		// along neighbouring outputs.
		if err := each(tiles, int64(n1-n0)*int64(cols), func(t int) error {
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
			gemm(y[m0*rows+at:], rows, strided{x[m0*cols:], cols, 1}, (*buf)[t*nTile*cols:], nTile, mm, end-at, cols)
		})
	}
	return nil
}

// Mul computes dx = dy·w, or adds it to dx: dy is m x rows, dx is m x cols. It
// is the gradient of a linear layer with respect to its input.
func Mul(dx, dy []float32, m int, w Matrix, add bool) error {
	rows, cols := w.Dims()
	if !add {
		clear(dx[:m*cols])
	}
	mTiles, cTiles := (m+mTile-1)/mTile, (cols+cTile-1)/cTile
	product := func(b []float32, n0, n1 int) {
		Parallel(mTiles*cTiles, int64(m)*int64(n1-n0)*int64(cols), func(i int) {
			m0, c0 := i%mTiles*mTile, i/mTiles*cTile
			gemm(dx[m0*cols+c0:], cols, strided{dy[m0*rows+n0:], rows, 1}, b[c0:], cols,
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
		const batch = 16
		if err := each((n1-n0+batch-1)/batch, int64(n1-n0)*int64(cols), func(t int) error {
			at, end := t*batch, min(n1-n0, (t+1)*batch)
			return w.DecodeRows((*buf)[at*cols:end*cols], n0+at)
		}); err != nil {
			return err
		}
		product(*buf, n0, n1)
	}
	return nil
}

// AddOuter adds dyᵀ·x to dw: dy is m x rows, x is m x cols, dw is rows x cols.
// It is the gradient of a linear layer with respect to its weight.
func AddOuter(dw, dy, x []float32, m, rows, cols int) {
	rTiles, cTiles := (rows+mTile-1)/mTile, (cols+cTile-1)/cTile
	Parallel(rTiles*cTiles, int64(m)*int64(rows)*int64(cols), func(i int) {
		r0, c0 := i%rTiles*mTile, i/rTiles*cTile
		gemm(dw[r0*cols+c0:], cols, strided{dy[r0:], 1, rows}, x[c0:], cols,
			min(mTile, rows-r0), min(cTile, cols-c0), m)
	})
}

// each is Parallel for calls that can fail; it returns the error of the lowest
// failing call.
func each(n int, work int64, f func(i int) error) error {
	errs := make([]error, n)
	Parallel(n, work, func(i int) { errs[i] = f(i) })
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
