package combine

import (
	"math"

	"github.com/seed18967229/nibble/tensor"
)

// A mixer makes rows of the combination of those of the inputs: w[i] are those of the i-th.
type mixer func(dst []float32, w [][]float32)

// weighted adds the inputs, each times its weight: linear and task_arithmetic (Ilharco et al.,
// 2022), and what is left of the others when they have pruned.
func weighted(p *Params) mixer {
	factor := p.Lambda
	if p.Normalize {
		var sum float64
		for _, e := range p.Each {
			sum += e.Weight
		}
		if math.Abs(sum) >= 1e-8 {
			factor /= sum
		}
	}
	return func(dst []float32, w [][]float32) {
		w, weights := present(p, w)
		for i := range dst {
			var sum float64
			for k, x := range w {
				sum += weights[k] * float64(x[i])
			}
			dst[i] = float32(factor * sum)
		}
	}
}

// present returns those of the inputs that have rows, and their weights.
func present(p *Params, w [][]float32) (rows [][]float32, weights []float64) {
	for k, x := range w {
		if x != nil {
			rows, weights = append(rows, x), append(weights, p.Each[k].Weight)
		}
	}
	return rows, weights
}

// mixed is how a sum or an election makes a combination: prune each input, then mix.
func mixed(prune pruner, mix func(p *Params) mixer) func(t *task) (tensor.Rows, error) {
	return func(t *task) (tensor.Rows, error) {
		rows := make([]tensor.Rows, len(t.inputs))
		for i, v := range t.inputs {
			if v == nil {
				continue
			}
			rows[i] = v.rows
			if prune != nil {
				var err error
				if rows[i], err = v.pruned(prune); err != nil {
					return nil, err
				}
			}
		}
		return &mixture{t.shape.Cols(), rows, mix(t.params)}, nil
	}
}

// mixture reads all inputs and mixes them.
type mixture struct {
	cols int64
	rows []tensor.Rows // nil for zeros
	mix  mixer
}

// ReadRows implements tensor.Rows.
func (m *mixture) ReadRows(dst []float32, row int64) error {
	if m.cols == 0 {
		return nil
	}
	some := int(min(int64(len(dst)), max(1, panel/m.cols)*m.cols))
	w := make([][]float32, len(m.rows))
	for i, r := range m.rows {
		if r != nil {
			buf := buffer(some)
			defer buffers.Put(buf)
			w[i] = *buf
		}
	}
	for len(dst) > 0 {
		n := min(len(dst), some)
		for i, r := range m.rows {
			if r == nil {
				continue
			}
			w[i] = w[i][:n]
			if err := r.ReadRows(w[i], row); err != nil {
				return err
			}
		}
		m.mix(dst[:n], w)
		dst, row = dst[n:], row+int64(n)/m.cols
	}
	return nil
}
