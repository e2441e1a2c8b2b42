package combine

import (
	"math"

	"github.com/seed18967229/nibble/tensor"
)

// stock is Model Stock (Jang et al., 2024): the mean of the inputs, moved towards the base by
// as much as they disagree: t = n·cos / (1 + (n-1)·cos), cos being the mean of the cosines
// between any two. With filterWise each row has its own.
func stock(t *task) (tensor.Rows, error) {
	n := len(t.inputs)
	if !t.params.FilterWise {
		g, err := t.products()
		if err != nil {
			return nil, err
		}
		factors := make([]float64, n)
		for i := range factors {
			factors[i] = ratio(g) / float64(n)
		}
		return t.sum(factors), nil
	}
	rows := make([]tensor.Rows, n)
	for i, v := range t.inputs {
		if v != nil {
			rows[i] = v.rows
		}
	}
	return &mixture{t.shape.Cols(), rows, byRow(int(t.shape.Cols()))}, nil
}

// byRow mixes each row by its own ratio.
func byRow(cols int) mixer {
	return func(dst []float32, w [][]float32) {
		g := make([][]float64, len(w))
		for at := 0; at < len(dst); at += cols {
			var of []int
			var rows [][]float32
			for i, x := range w {
				g[i] = make([]float64, len(w))
				if x != nil {
					of, rows = append(of, i), append(rows, x[at:][:cols])
				}
			}
			addProducts(g, of, rows)
			factor := ratio(g) / float64(len(w))
			for i := range cols {
				var sum float64
				for _, r := range rows {
					sum += float64(r[i])
				}
				dst[at+i] = float32(factor * sum)
			}
		}
	}
}

// ratio returns t for the products of the inputs with each other, the lower triangle of g.
func ratio(g [][]float64) float64 {
	var sum float64
	pairs := 0
	for i := range g {
		for j := range i {
			pairs++
			if norms := math.Sqrt(g[i][i]) * math.Sqrt(g[j][j]); norms > 0 {
				sum += max(-1, min(1, g[i][j]/norms))
			}
		}
	}
	cos, n := sum/float64(pairs), float64(len(g))
	below := 1 + (n-1)*cos
	if below <= 1e-12 {
		return 0 // they cancel
	}
	return n * cos / below
}
