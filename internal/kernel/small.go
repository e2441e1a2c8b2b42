package kernel

import "runtime"

// smallM is the number of rows of x up to which a product is taken as dot
// products with the rows of w as they are decoded, and not by the blocks that a
// large product is made of: the weight is then used too few times to be packed.
const smallM = 16

// Dots is Tiles that can be multiplied by a few rows without being decoded to memory.
type Dots interface {
	Tiles

	// DotRows adds to y[i*ldy+j] the dot product of row i of the m rows of x, one
	// after another, with row row+j, for each j below n. It is called concurrently.
	DotRows(y []float32, ldy int, x []float32, m, row, n int) error
}

const (
	// dotBatch is how many rows one call of Dots gets at most.
	dotBatch = 64
	// smallRows and smallCols are the part of a weight that is decoded at a time. It
	// stays in the nearest cache.
	smallRows = 8
	smallCols = 1024
	// smallBatch is the rows of a weight for one goroutine to go through.
	smallBatch = 2 * smallRows
)

// mulTSmall adds x·wᵀ to y for few rows of x. Each row of w is used by one goroutine
// alone and in the same order, so that the sums do not depend on how many there are.
func mulTSmall(y, x []float32, m int, w Matrix) error {
	rows, cols := w.Dims()
	work := int64(m) * int64(rows) * int64(cols)
	batches := func(size int, f func(at, n int) error) error {
		return Each((rows+size-1)/size, work, func(t int) error { return f(t*size, min(size, rows-t*size)) })
	}
	switch w := w.(type) {
	case Dense:
		// Of the narrow matrices of adapters more at a time.
		return batches(smallBatch*max(1, smallCols/max(1, cols)), func(at, n int) error {
			use.dots(y[at:], rows, x, cols, m, w.Data[at*cols:], cols, n, cols)
			return nil
		})
	case Dots:
		if m <= use.codeRows {
			// So few that processors end together.
			size := min(dotBatch, max(8, rows/(8*runtime.GOMAXPROCS(0))))
			return batches(size, func(at, n int) error { return w.DotRows(y[at:], rows, x, m, at, n) })
		}
	}
	if t, ok := w.(Tiles); ok {
		return batches(smallBatch, func(at, n int) error { return mulTTiles(y, x, m, t, at, n) })
	}
	return batches(smallBatch, func(at, n int) error {
		buf := scratch(n * cols)
		defer release(buf)
		if err := w.DecodeRows(*buf, at); err != nil {
			return err
		}
		use.dots(y[at:], rows, x, cols, m, *buf, cols, n, cols)
		return nil
	})
}

// mulTTiles multiplies by n rows of w from the given one on, tile by tile.
func mulTTiles(y, x []float32, m int, w Tiles, at, n int) error {
	rows, cols := w.Dims()
	step := w.TileStep()
	width := max(1, smallCols/step) * step
	buf := scratch(smallRows * width)
	defer release(buf)
	for r := at; r < at+n; r += smallRows {
		k := min(smallRows, at+n-r)
		for c := 0; c < cols; c += width {
			part := min(width, cols-c)
			if err := w.DecodeTile(*buf, width, r, k, c, part); err != nil {
				return err
			}
			use.dots(y[r:], rows, x[c:], cols, m, *buf, width, k, part)
		}
	}
	return nil
}

// dotsGo adds the dot product of row i of x with row j of w, over k elements, to
// element j of row i of y. Rows are ldx, ldw and ldy floats apart.
func dotsGo(y []float32, ldy int, x []float32, ldx, m int, w []float32, ldw, n, k int) {
	for i := range m {
		for j := range n {
			y[i*ldy+j] += dotGo(x[i*ldx:][:k], w[j*ldw:][:k])
		}
	}
}

// Dot4 adds to y[i*ldy+j] the product of row i of the m rows of x, one after another,
// with row j of n rows of codes of a 4-bit block format that follow one another;
// Decode4 says what they mean. cols, the length of a row, must be a multiple of block.
// The sums differ between variants in their last places: they are off by no more than
// (cols+2) * 2^-24 of the sum of the magnitudes of their terms.
func Dot4(y []float32, ldy int, x []float32, m, cols int, codes []byte, values *[16]float32, absmax []float32, block, n int) {
	if m == 0 || n == 0 || cols == 0 {
		return
	}
	y, x = y[:(m-1)*ldy+n], x[:m*cols]
	codes, absmax = codes[:n*cols/2], absmax[:n*cols/block]
	use.dot4(y, ldy, x, m, cols, codes, values, absmax, block, n)
}

func dot4Go(y []float32, ldy int, x []float32, m, cols int, codes []byte, values *[16]float32, absmax []float32, block, n int) {
	buf := scratch(cols)
	defer release(buf)
	for j := range n {
		decode4Go(*buf, codes[j*cols/2:], values, absmax[j*cols/block:][:cols/block], block)
		dotsGo(y[j:], ldy, x, cols, m, *buf, cols, 1, cols)
	}
}
