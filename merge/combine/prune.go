package combine

import (
	"math"

	"github.com/seed18967229/nibble/tensor"
)

// A vector is one of the inputs for one tensor.
type vector struct {
	Each
	rows   tensor.Rows
	shape  tensor.Shape
	chance uniform

	// rescale is how what stays makes up for what is dropped.
	rescale Rescale
}

// A mask drops elements of whole rows, the first of which is row: they become 0.
type mask func(w []float32, row int64)

// A pruner finds out what is dropped of a vector whose density is less than 1.
type pruner func(v *vector) (mask, error)

// negligible is the L1 norm below which mergekit rescales nothing.
const negligible = 1e-7

// pruned returns a vector's rows with what prune drops dropped. What a mask does not do itself
// for RescaleDensity, as it has the same probability everywhere, is done here.
func (v *vector) pruned(prune pruner) (tensor.Rows, error) {
	if v.Density >= 1 {
		return v.rows, nil
	}
	drop, err := prune(v)
	if err != nil {
		return nil, err
	}
	p := &pruned{rows: v.rows, drop: drop, factor: 1}
	if v.rescale != RescaleL1 {
		return p, nil
	}
	var before, after float64
	err = each(v.shape, []tensor.Rows{v.rows}, func(w [][]float32, at int64) {
		before += norm1(w[0])
		drop(w[0], at/v.shape.Cols())
		after += norm1(w[0])
	})
	if before >= negligible && after >= negligible {
		p.factor = float32(before / after)
	}
	return p, err
}

func norm1(w []float32) (sum float64) {
	for _, x := range w {
		sum += math.Abs(float64(x))
	}
	return sum
}

type pruned struct {
	rows   tensor.Rows
	drop   mask
	factor float32
}

// ReadRows implements tensor.Rows.
func (p *pruned) ReadRows(dst []float32, row int64) error {
	if err := p.rows.ReadRows(dst, row); err != nil {
		return err
	}
	p.drop(dst, row)
	if p.factor != 1 {
		for i := range dst {
			dst[i] *= p.factor
		}
	}
	return nil
}

// factor returns what that which stays is multiplied by to make up for the rest, if every element
// had the same probability.
func (v *vector) factor() float32 {
	if v.rescale == RescaleDensity && v.Density > 0 {
		return float32(1 / v.Density)
	}
	return 1
}

// shareOf returns how many of n elements a share of them is, as mergekit and PEFT round it.
func shareOf(of float64, n int64) int64 { return int64(of * float64(n)) }
