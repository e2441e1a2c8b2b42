package kernel

import "math"

// AdamW is one step of Adam with decoupled weight decay (Loshchilov and Hutter,
// 2019), in the order of operations of torch.optim.AdamW.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64

	// Step counts from 1.
	Step int
}

// Update changes the weights w and the moments m and v by the gradient g.
func (a AdamW) Update(w, m, v, g []float32) {
	b1, b2 := float32(a.Beta1), float32(a.Beta2)
	decay := float32(1 - a.LR*a.WeightDecay)
	c1 := 1 - math.Pow(a.Beta1, float64(a.Step))
	c2 := math.Sqrt(1 - math.Pow(a.Beta2, float64(a.Step)))
	size, root, eps := float32(a.LR/c1), float32(c2), float32(a.Eps)
	byElements(len(w), func(from, to int) {
		for i := from; i < to; i++ {
			x := g[i]
			m[i] = b1*m[i] + (1-b1)*x
			v[i] = b2*v[i] + (1-b2)*x*x
			w[i] = w[i]*decay - size*(m[i]/(float32(math.Sqrt(float64(v[i])))/root+eps))
		}
	})
}

// SumSquares returns the sum of the squares of x, in float64.
func SumSquares(x []float32) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// Scale multiplies x by s.
func Scale(x []float32, s float32) {
	for i := range x {
		x[i] *= s
	}
}
