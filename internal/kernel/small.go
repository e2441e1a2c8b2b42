package kernel

// smallM is the number of rows of x up to which a product is taken as dot
// products with the rows of w as they are decoded, and not by the blocks that a
// large product is made of: the weight is then used too few times to be packed.
const smallM = 16

// Dots is Tiles that can be multiplied by a vector without being decoded to memory.
type Dots interface {
	Tiles

	// DotRows adds to y[i] the dot product of x with row row+i, for each element of
	// y. It is called concurrently.
	DotRows(y, x []float32, row int) error
}

const (
	// dotBatch is how many rows one call of Dots gets.
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
		return each((rows+size-1)/size, work, func(t int) error { return f(t*size, min(size, rows-t*size)) })
	}
	switch w := w.(type) {
	case Dense:
		return batches(smallBatch, func(at, n int) error {
			use.dots(y[at:], rows, x, cols, m, w.Data[at*cols:], cols, n, cols)
			return nil
		})
	case Dots:
		if m > codeRows {
			break
		}
		return batches(dotBatch, func(at, n int) error {
			for i := range m {
				if err := w.DotRows(y[i*rows+at:][:n], x[i*cols:(i+1)*cols], at); err != nil {
					return err
				}
			}
			return nil
		})
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

// codeRows is the number of rows of x up to which multiplying each of them by the codes
// is faster than decoding them once.
const codeRows = 2

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

// Dot4 adds to y the products of x with rows of codes of a 4-bit block format that
// follow one another; Decode4 says what they mean. len(x), the length of a row, must
// be a multiple of block. The sums differ between variants in their last places: they
// are off by no more than (len(x)+2) * 2^-24 of the sum of the magnitudes of their
// terms.
func Dot4(y, x []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	codes = codes[:len(y)*len(x)/2]
	absmax = absmax[:len(y)*len(x)/block]
	if len(y) == 0 || len(x) == 0 {
		return
	}
	use.dot4(y, x, codes, values, absmax, block)
}

func dot4Go(y, x []float32, codes []byte, values *[16]float32, absmax []float32, block int) {
	var scaled [16]float32
	for i := range y {
		var even, odd float32
		for at := 0; at < len(x); at += block {
			for j, v := range values {
				scaled[j] = v * absmax[0]
			}
			part := x[at : at+block]
			for j, c := range codes[:block/2] {
				even += part[2*j] * scaled[c>>4]
				odd += part[2*j+1] * scaled[c&15]
			}
			absmax, codes = absmax[1:], codes[block/2:]
		}
		y[i] += even + odd
	}
}
