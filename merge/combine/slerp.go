package combine

import (
	"math"

	"github.com/seed18967229/nibble/tensor"
)

const (
	// parallel is the cosine from which on two vectors count as such, and the way between
	// them as straight.
	parallel = 0.9995

	// tiny is the norm up to which a vector has no direction.
	tiny = 1e-8
)

// between goes from the first input to the second on a great circle, the tensor being one
// vector.
func between(t *task) (tensor.Rows, error) {
	g, err := t.products()
	if err != nil {
		return nil, err
	}
	cos := g[0][1]
	for i := range 2 {
		if n := math.Sqrt(g[i][i]); n > tiny {
			cos /= n
		}
	}
	from, to := 1-t.params.T, t.params.T
	if math.Abs(cos) <= parallel {
		angle := math.Acos(cos)
		from, to = math.Sin(angle-angle*t.params.T)/math.Sin(angle), math.Sin(angle*t.params.T)/math.Sin(angle)
	}
	return t.sum([]float64{from, to}), nil
}

// products returns the products of the inputs with each other, each being one vector.
func (t *task) products() ([][]float64, error) {
	var rows []tensor.Rows
	var of []int
	for i, v := range t.inputs {
		if v != nil {
			rows, of = append(rows, v.rows), append(of, i)
		}
	}
	g := make([][]float64, len(t.inputs))
	for i := range g {
		g[i] = make([]float64, len(g))
	}
	err := each(t.shape, rows, func(w [][]float32, _ int64) { addProducts(g, of, w) })
	for i := range g {
		for j := range i {
			g[j][i] = g[i][j]
		}
	}
	return g, err
}

// addProducts adds the products of some elements to the lower triangle of g; w[k] are those of
// input of[k].
func addProducts(g [][]float64, of []int, w [][]float32) {
	for k, x := range w {
		for l, y := range w[:k+1] {
			var sum float64
			for i, v := range x {
				sum += float64(v) * float64(y[i])
			}
			g[of[k]][of[l]] += sum
		}
	}
}

// sum returns the inputs added up, each times a factor.
func (t *task) sum(factors []float64) tensor.Rows {
	rows := make([]tensor.Rows, len(t.inputs))
	for i, v := range t.inputs {
		if v != nil {
			rows[i] = v.rows
		}
	}
	p := &Params{Each: make([]Each, len(factors)), Lambda: 1}
	for i, f := range factors {
		p.Each[i].Weight = f
	}
	return &mixture{t.shape.Cols(), rows, weighted(p)}
}
