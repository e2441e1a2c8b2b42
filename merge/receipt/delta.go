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

// factorsOf returns what is known of the deltas of changes to a tensor of a shape:
// those of low rank. exact says that the changes add them and nothing else; what else
// they do, or replace, is left to the corrections.
func factorsOf(changes []merge.Change, shape tensor.Shape) (list []factor, exact bool, err error) {
	rows, cols := shape.Rows(), shape.Cols()
	exact = true
	for _, c := range changes {
		deltas, added := merge.Within(c)
		exact = exact && added
		for _, d := range deltas {
			if d.Zero() {
				continue
			}
			l, ok := d.(merge.LowRank)
			if !ok {
				exact = false
				continue
			}
			b, a, rank, scale, err := l.Factors()
			if err != nil {
				return nil, false, err
			}
			// The target may have more rows than the base has.
			if !fits(int64(rank), rows, cols) || int64(len(b)) < rows*int64(rank) || int64(len(a)) != int64(rank)*cols {
				exact = false
				continue
			}
			list = append(list, factor{b[:rows*int64(rank)], a, rank, scale})
		}
	}
	return list, exact, nil
}

// fits reports whether factors of a rank are smaller than what they make.
func fits(rank, rows, cols int64) bool { return rank > 0 && rank <= min(rows, cols) }

// deltaRows sets d to the sum of the deltas in whole rows, with product as scratch.
func deltaRows(d, product []float32, list []factor, row int64, cols int) {
	n := len(d) / cols
	for i, f := range list {
		p := product[:len(d)]
		if i == 0 {
			p = d
		}
		kernel.MulFused(p, f.b[row*int64(f.rank):][:n*f.rank], n, kernel.Dense{Data: f.a, Rows: f.rank, Cols: cols})
		if i == 0 {
			kernel.Scale(d, f.scale)
		} else {
			kernel.AddScaled(d, f.scale, p)
		}
	}
	if len(list) == 0 {
		clear(d)
	}
}
