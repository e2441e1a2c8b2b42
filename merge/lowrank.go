package merge

import (
	"sync"

	"github.com/seed18967229/nibble/internal/kernel"
)

// lowRank is scale times the product of two matrices, which are in memory while
// rows are computed.
type lowRank struct {
	target           string
	rows, cols, rank int
	scale            float64
	zero             bool

	load  func() (b, a []float32, err error)
	cache *cache

	scratch sync.Pool // *[]float32
}

var _ LowRank = (*lowRank)(nil)

type factors struct{ b, a []float32 }

// Target implements Delta.
func (d *lowRank) Target() string { return d.target }

// Zero implements Delta.
func (d *lowRank) Zero() bool { return d.zero || d.scale == 0 }

func (d *lowRank) factors() (factors, error) {
	return fetch(d.cache, d, 4*int64(d.rows+d.cols)*int64(d.rank), func() (factors, error) {
		b, a, err := d.load()
		return factors{b, a}, err
	})
}

// Factors implements LowRank.
func (d *lowRank) Factors() (b, a []float32, rank int, scale float32, err error) {
	f, err := d.factors()
	return f.b, f.a, d.rank, float32(d.scale), err
}

// AddRows implements Delta: the product is taken first and scaled then, as PEFT
// does it.
func (d *lowRank) AddRows(w []float32, row int64, scale float32) error {
	f, err := d.factors()
	if err != nil {
		return err
	}
	buf, _ := d.scratch.Get().(*[]float32)
	if buf == nil || cap(*buf) < len(w) {
		b := make([]float32, len(w))
		buf = &b
	}
	defer d.scratch.Put(buf)
	product, n := (*buf)[:len(w)], len(w)/d.cols
	kernel.MulFused(product, f.b[int(row)*d.rank:][:n*d.rank], n, kernel.Dense{Data: f.a, Rows: d.rank, Cols: d.cols})
	kernel.AddScaled(w, scale*float32(d.scale), product)
	return nil
}

// times returns the delta times a factor, by way of its scale, which is rounded
// once.
func (d *lowRank) times(factor float64) Delta {
	if factor == 1 {
		return d
	}
	return &lowRank{
		target: d.target, rows: d.rows, cols: d.cols, rank: d.rank,
		scale: d.scale * factor, zero: d.zero, load: d.load, cache: d.cache,
	}
}

// vector is a delta of one row in memory: that of a bias.
type vector struct {
	target string
	values []float32
	scale  float64
}

// Target implements Delta.
func (d *vector) Target() string { return d.target }

// Zero implements Delta.
func (d *vector) Zero() bool { return d.scale == 0 || kernel.SumSquares(d.values) == 0 }

// AddRows implements Delta.
func (d *vector) AddRows(w []float32, _ int64, scale float32) error {
	kernel.AddScaled(w, scale*float32(d.scale), d.values)
	return nil
}

func (d *vector) times(factor float64) Delta {
	return &vector{d.target, d.values, d.scale * factor}
}
