package combine

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/tensor"
)

// ofFactors makes one pair of low-rank factors of those of the inputs, by a method of package
// factors.
func ofFactors(m *factors.Method) func(t *task) (tensor.Rows, error) {
	return func(t *task) (tensor.Rows, error) {
		rows, cols := int(t.shape.Rows()), int(t.shape.Cols())
		o := factors.Options{Rank: t.params.Rank, Seed: t.params.Seed, Frequency: t.params.Frequency}
		sum := sha256.Sum256([]byte(t.name))
		o.Module = binary.LittleEndian.Uint64(sum[:])
		var parts []factors.Part
		across := false
		for _, v := range t.inputs {
			if v == nil {
				continue
			}
			o.Density = v.Density
			pairs, err := v.factors(rows, cols)
			if err != nil {
				return nil, err
			}
			for _, p := range pairs {
				across = p.across
				parts = append(parts, factors.Part{Pair: &p.Pair, Weight: v.Weight})
			}
		}
		if across { // the sign of a weight belongs to A
			for _, p := range parts {
				*p.Pair = transposed(p.Pair)
			}
		}
		made, err := m.Combine(parts, o)
		if err != nil {
			return nil, err
		}
		if across {
			*made = transposed(made)
		}
		return &product{made}, nil
	}
}

// oneDensity returns an error if inputs have different densities: PEFT has one.
func oneDensity(each []Each) error {
	for _, e := range each {
		if e.Density != each[0].Density {
			return fmt.Errorf("densities %v and %v: there is one for all", each[0].Density, e.Density)
		}
	}
	return nil
}

// pair is the factors of a delta. across says that the target holds the weight as [in, out],
// so that what is B here is the A of the adapter.
type pair struct {
	factors.Pair
	across bool
}

// lowRank returns an error unless an input is nothing but products of low rank.
func lowRank(method string, rows tensor.Rows) error {
	if ds, ok := rows.(sumOfDeltas); ok {
		for _, d := range ds {
			if _, ok = d.(merge.LowRank); !ok {
				break
			}
		}
		if ok {
			return nil
		}
	}
	return hint.Add(fmt.Errorf("%w: %s combines pairs of low-rank matrices, and this is changed otherwise", tensor.ErrUnsupported, method),
		"linear, ties and others combine whatever is changed")
}

// factors returns the pairs of an input for which lowRank returned none.
func (v *vector) factors(rows, cols int) ([]*pair, error) {
	var out []*pair
	for _, d := range v.rows.(sumOfDeltas) {
		l := d.(merge.LowRank)
		b, a, rank, scale, err := l.Factors()
		if err != nil {
			return nil, err
		}
		out = append(out, &pair{factors.Pair{Out: rows, In: cols, Rank: rank, B: b, A: a, Scale: float64(scale)}, l.Across()})
	}
	return out, nil
}

// transposed returns the factors of the transposed product.
func transposed(p *factors.Pair) factors.Pair {
	flip := func(x []float32, rows, cols int) []float32 {
		out := make([]float32, len(x))
		for r := range rows {
			for c := range cols {
				out[c*rows+r] = x[r*cols+c]
			}
		}
		return out
	}
	return factors.Pair{Out: p.In, In: p.Out, Rank: p.Rank, Scale: p.Scale, B: flip(p.A, p.Rank, p.In), A: flip(p.B, p.Out, p.Rank)}
}

// product is the rows of a pair whose scale is 1.
type product struct{ *factors.Pair }

// ReadRows implements tensor.Rows.
func (p *product) ReadRows(dst []float32, row int64) error {
	n := len(dst) / p.In
	kernel.MulFused(dst, p.B[int(row)*p.Rank:][:n*p.Rank], n, kernel.Dense{Data: p.A, Rows: p.Rank, Cols: p.In})
	return nil
}
