package optim

import (
	"math"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// adafactor is Adafactor (Shazeer and Stern, 2018) as transformers' optim=adafactor has
// it: scale_parameter and relative_step off, so that the learning rate is the
// schedule's, no first moment, updates bounded to a root mean square of 1. Of a matrix
// only the means of rows and columns are kept; a tensor of more dimensions is a list of
// matrices.
//
// Sums are made in float64 in the order of the elements, where torch sums in float32.
type adafactor struct{ Options }

const (
	adafactorEps   = 1e-30 // added to squared gradients
	adafactorDecay = -0.8  // of the second moment: 1 - step^-0.8
)

// Name implements Optimizer.
func (adafactor) Name() string { return "adafactor" }

// State implements Optimizer.
func (adafactor) State(p *Param) []Field {
	d := len(p.Shape)
	if d < 2 {
		return []Field{{".exp_avg_sq", tensor.F32, p.Shape}}
	}
	rows := append(tensor.Shape(nil), p.Shape[:d-1]...)
	cols := append(append(tensor.Shape(nil), p.Shape[:d-2]...), p.Shape[d-1])
	return []Field{{".exp_avg_sq_row", tensor.F32, rows}, {".exp_avg_sq_col", tensor.F32, cols}}
}

// Step implements Optimizer.
func (a adafactor) Step(step int, lr float64, p *Param, state [][]byte) {
	beta := 1 - math.Pow(float64(step), adafactorDecay)
	var squares float64 // of the update
	d := len(p.Shape)
	if d < 2 {
		squares = precondition(p.Grad, kernel.Floats(state[0]), beta)
	} else {
		rows, cols := int(p.Shape[d-2]), int(p.Shape[d-1])
		r, c := kernel.Floats(state[0]), kernel.Floats(state[1])
		for at, i := 0, 0; at < len(p.Grad); at, i = at+rows*cols, i+1 {
			squares += preconditionMatrix(p.Grad[at:at+rows*cols], r[i*rows:(i+1)*rows], c[i*cols:(i+1)*cols], beta)
		}
	}
	bound := float32(max(1, float32(math.Sqrt(squares))/float32(math.Sqrt(float64(len(p.Grad))))))
	decay := float32(0)
	if p.Decay {
		decay = float32(-a.WeightDecay * lr)
	}
	size := float32(lr)
	elements(len(p.Data), func(from, to int) {
		w, u := p.Data[from:to], p.Grad[from:to]
		for i, x := range u {
			v := w[i] + float32(w[i]*decay)
			w[i] = v - float32(x/bound*size)
		}
	})
}

// precondition takes the squares of g into the moments v and replaces g by the update,
// the sum of whose squares it returns.
func precondition(g, v []float32, beta float64) float64 {
	b, rest := float32(beta), float32(1-beta)
	for i, x := range g {
		v[i] = float32(b*v[i]) + float32(rest*(float32(x*x)+adafactorEps))
		g[i] = x / float32(math.Sqrt(float64(v[i])))
	}
	return kernel.SumSquares(g)
}

// preconditionMatrix is precondition with the moments of rows and columns.
func preconditionMatrix(g, r, c []float32, beta float64) float64 {
	rows, cols := len(r), len(c)
	b, rest := float32(beta), float32(1-beta)
	work := int64(len(g)) * 4
	kernel.Parallel(rows, work, func(i int) {
		var sum float64
		for _, x := range g[i*cols : (i+1)*cols] {
			sum += float64(float32(x*x) + adafactorEps)
		}
		r[i] = float32(b*r[i]) + float32(rest*float32(sum/float64(cols)))
	})
	const width = 256
	factors := make([]float32, cols)
	kernel.Parallel((cols+width-1)/width, work, func(k int) {
		var sums [width]float64
		from, to := k*width, min(cols, (k+1)*width)
		for i := range rows {
			for j, x := range g[i*cols+from : i*cols+to] {
				sums[j] += float64(float32(x*x) + adafactorEps)
			}
		}
		for j := from; j < to; j++ {
			c[j] = float32(b*c[j]) + float32(rest*float32(sums[j-from]/float64(rows)))
			factors[j] = float32(1 / math.Sqrt(float64(c[j])))
		}
	})
	var mean float64
	for _, v := range r {
		mean += float64(v)
	}
	mean /= float64(rows)
	kernel.Parallel(rows, work, func(i int) {
		f := float32(1 / math.Sqrt(float64(r[i]/float32(mean))))
		row := g[i*cols : (i+1)*cols]
		for j, x := range row {
			row[j] = float32(f*factors[j]) * x
		}
	})
	return kernel.SumSquares(g)
}
