package kernel

import (
	"runtime"
	"sync"
)

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

// Packer is Tiles that can be decoded by columns, the order in which a product reads them.
type Packer interface {
	Tiles

	// PackTile writes column col+k of row row+j to dst[k*ld+j], for some multiple of
	// PackRows rows and of PackCols columns. What begins at nextRow and nextCol is asked
	// for next. It is called concurrently.
	PackTile(dst []float32, ld, row, rows, col, cols, nextRow, nextCol int) error
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

// panelFloats bounds the decoded part of a Matrix that is decoded by whole rows, but
// for kStep rows, which a panel always has.
const panelFloats = 1 << 20

// panelRows returns how many rows of a matrix with that many columns are decoded at
// a time: a multiple of kStep, as that is where sums are cut.
func panelRows(rows, cols int) int {
	n := max(1, panelFloats/max(1, cols)/kStep) * kStep
	return min(n, (rows+kStep-1)/kStep*kStep)
}

// PanelBytes returns the scratch memory that the products of a rows x cols matrix with
// m rows take at most, with as many workers as Go may use processors.
func PanelBytes(m, rows, cols int) int64 {
	workers := int64(runtime.GOMAXPROCS(0))
	panel := scratchBytes(panelRows(rows, cols) * cols)
	u := use.micro
	if u == nil {
		return 2*panel + workers*scratchBytes(nTile*cols)
	}
	if rows >= tall*cols {
		panel = max(panel, scratchBytes(rows*cols))
	}
	most := max(m, rows, cols)
	perWorker := scratchBytes(bFloats) + scratchBytes(decodeFloats) + scratchBytes(min(aRows+u.rows, most)*kStep) +
		scratchBytes(min(aRows+u.rows, most)*bCols)
	return panel + scratchBytes(min(aFloats, most*m, most*cols, most*rows)) + workers*perWorker
}

// MulT computes y = x·wᵀ, or adds it to y: x is m x cols, y is m x rows. It is
// the forward pass of a linear layer.
//
// Sums of up to kStep products are rounded once per product and then added to y, in
// the order of cols; the plain Go variant rounds more often. The result depends on
// neither the number of workers nor the encoding of w, and is the same for the AVX2
// and AVX-512 variants where m > smallM. Fewer rows are multiplied by what w is stored
// as, if it is Dots, in the order that this has for it.
func MulT(y, x []float32, m int, w Matrix, add bool) error {
	return MulTPlus(y, x, m, w, add, LowRank{})
}

// LowRank is a product U·Vᵀ, or U·V, to be added to another one: U is m x r.
type LowRank struct {
	U []float32
	V Dense
	// Plain says that V is r x n, and not n x r.
	Plain bool
}

func (l LowRank) rank() int {
	if l.Plain {
		return l.V.Rows
	}
	return l.V.Cols
}

// addend is what to add in a product of n columns.
func (l LowRank) addend() addend {
	r := l.rank()
	return addend{strided{l.U, r, 1}, operand{data: l.V.Data, ld: l.V.Cols, transposed: !l.Plain}, r}
}

// AddTo adds it to the product y of m rows.
func (l LowRank) AddTo(y []float32, m int) error {
	switch {
	case l.rank() == 0:
		return nil
	case l.Plain:
		return Mul(y, l.U, m, l.V, true)
	}
	return MulT(y, l.U, m, l.V, true)
}

// MulTPlus is MulT that adds one more product to y: the same bits as MulT or Mul would
// give that adds it afterwards, but while y is at hand.
func MulTPlus(y, x []float32, m int, w Matrix, add bool, plus LowRank) error {
	rows, cols := w.Dims()
	if m == 0 {
		return nil
	}
	u := use.micro
	if m <= smallM || u == nil {
		if !add {
			clear(y[:m*rows])
		}
		product := mulTGo
		if m <= smallM {
			product = mulTSmall
		}
		if err := product(y, x, m, w); err != nil {
			return err
		}
		return plus.AddTo(y, m)
	}
	p := product{c: y, ldc: rows, a: strided{x, cols, 1}, b: operand{transposed: true}, m: m, n: rows, k: cols, add: add}
	if p.b.direct(w) {
		p.also = plus.addend()
		return u.multiply(&p)
	}
	panel := panelRows(rows, cols)
	buf := scratch(panel * cols)
	defer release(buf)
	for n0 := 0; n0 < rows; n0 += panel {
		p.n = min(panel, rows-n0)
		if err := decodePanel((*buf)[:p.n*cols], w, n0); err != nil {
			return err
		}
		p.c, p.b.data, p.b.ld = y[n0:], *buf, cols
		if err := u.multiply(&p); err != nil {
			return err
		}
	}
	return plus.AddTo(y, m)
}

// Mul computes dx = dy·w, or adds it to dx: dy is m x rows, dx is m x cols. It
// is the gradient of a linear layer with respect to its input. What MulT says of the
// result holds here too.
func Mul(dx, dy []float32, m int, w Matrix, add bool) error {
	return MulPlus(dx, dy, m, w, add, LowRank{})
}

// MulPlus is to Mul what MulTPlus is to MulT.
func MulPlus(dx, dy []float32, m int, w Matrix, add bool, plus LowRank) error {
	rows, cols := w.Dims()
	u := use.micro
	if u == nil {
		if !add {
			clear(dx[:m*cols])
		}
		if err := mulGo(dx, dy, m, w); err != nil {
			return err
		}
		return plus.AddTo(dx, m)
	}
	if m <= smallM && plus.rank() > 0 {
		if err := Mul(dx, dy, m, w, add); err != nil {
			return err
		}
		return plus.AddTo(dx, m)
	}
	p := product{c: dx, ldc: cols, a: strided{dy, rows, 1}, m: m, n: cols, k: rows, add: add}
	if p.b.direct(w) {
		p.also = plus.addend()
		return u.multiply(&p)
	}
	panel := panelRows(rows, cols)
	buf := scratch(panel * cols)
	defer release(buf)
	for n0 := 0; n0 < rows; n0 += panel {
		p.k = min(panel, rows-n0)
		if err := decodePanel((*buf)[:p.k*cols], w, n0); err != nil {
			return err
		}
		p.a.data, p.b.data, p.b.ld = dy[n0:], *buf, cols
		if err := u.multiply(&p); err != nil {
			return err
		}
		p.add = true
	}
	return plus.AddTo(dx, m)
}

// RankBytes returns the scratch memory that MulTPlus and MulPlus take beside that of the
// products, for m rows and rank r.
func RankBytes(m, r int) int64 { return scratchBytes(min(m, aRows+copyRows) * r) }

// AddOuter adds dyᵀ·x to dw: dy is m x rows, x is m x cols, dw is rows x cols.
// It is the gradient of a linear layer with respect to its weight.
func AddOuter(dw, dy, x []float32, m, rows, cols int) {
	u := use.micro
	if u == nil {
		addOuterGo(dw, dy, x, m, rows, cols)
		return
	}
	if rows < tall*cols {
		p := product{c: dw, ldc: cols, a: strided{dy, 1, rows}, b: operand{data: x, ld: cols}, m: rows, n: cols, k: m, add: true}
		_ = u.multiply(&p) // matrices in memory cannot fail to decode
		return
	}
	// All of dy would be packed for a few columns. The other way round the sums are the
	// same.
	buf := scratch(rows * cols)
	defer release(buf)
	u.transpose(*buf, rows, dw, cols, rows, cols)
	p := product{c: *buf, ldc: rows, a: strided{x, 1, cols}, b: operand{data: dy, ld: rows}, m: cols, n: rows, k: m, add: true}
	_ = u.multiply(&p)
	u.transpose(dw, cols, *buf, rows, cols, rows)
}

// tall is how many times as many rows as columns a matrix has that AddOuter makes
// the other way round: a low-rank adapter's.
const tall = 16

// decodePanel decodes rows of w from the given one on.
func decodePanel(dst []float32, w Matrix, row int) error {
	_, cols := w.Dims()
	if cols == 0 {
		return nil
	}
	const batch = 16
	rows := len(dst) / cols
	return Each((rows+batch-1)/batch, int64(len(dst)), func(t int) error {
		at, end := t*batch, min(rows, (t+1)*batch)
		return w.DecodeRows(dst[at*cols:end*cols], row+at)
	})
}

// Each is Parallel for calls that can fail; it returns the error of the lowest
// failing call.
func Each(n int, work int64, f func(i int) error) error {
	var mu sync.Mutex
	var first error
	lowest := n
	Parallel(n, work, func(i int) {
		if err := f(i); err != nil {
			mu.Lock()
			defer mu.Unlock()
			if i < lowest {
				lowest, first = i, err
			}
		}
	})
	return first
}
