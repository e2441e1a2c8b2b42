package receipt

import (
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/tensor"
)

// A factor is a low-rank delta: scale times b, [rows, rank], times a, [rank, cols].
type factor struct {
	b, a  []float32
	rank  int
	scale float32
}

// factorsOf returns what is known of the deltas of a change to a tensor of base: those
// of low rank. What is not, a replacement, is left to the corrections.
func factorsOf(base tensor.Source, codecs tensor.Codecs, changes []merge.Change, shape tensor.Shape) ([]factor, error) {
	var out []factor
	rows, cols := shape.Rows(), shape.Cols()
	for _, c := range changes {
		deltas, err := merge.Deltas(base, codecs, c)
		if err != nil {
			return nil, err
		}
		for _, d := range deltas {
			l, ok := d.(merge.LowRank)
			if !ok || d.Zero() {
				continue
			}
			b, a, rank, scale, err := l.Factors()
			if err != nil {
				return nil, err
			}
			// The target may have more rows than the base has.
			if !fits(int64(rank), rows, cols) || int64(len(b)) < rows*int64(rank) || int64(len(a)) != int64(rank)*cols {
				continue
			}
			out = append(out, factor{b[:rows*int64(rank)], a, rank, scale})
		}
	}
	return out, nil
}

// fits reports whether factors of a rank are smaller than what they make.
func fits(rank, rows, cols int64) bool { return rank > 0 && rank <= min(rows, cols) }

// deltaRows sets d to the sum of the deltas in whole rows, with product as scratch.
func deltaRows(d, product []float32, list []factor, row int64, cols int) {
	clear(d)
	n := len(d) / cols
	for _, f := range list {
		p := product[:len(d)]
		kernel.MulFused(p, f.b[row*int64(f.rank):][:n*f.rank], n, kernel.Dense{Data: f.a, Rows: f.rank, Cols: cols})
		kernel.AddScaled(d, f.scale, p)
	}
}
