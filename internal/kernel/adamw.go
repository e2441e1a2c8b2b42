package kernel

import "math"

// AdamW is one step of Adam with decoupled weight decay (Loshchilov and Hutter,
// 2019), in the order of operations of torch.optim.AdamW.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64

	// Step counts from 1.
	Step int
}

// Update changes the weights w and the moments m and v by the gradient g. All variants
// give the same bits.
func (a AdamW) Update(w, m, v, g []float32) {
	c := a.constants()
	byElements(len(w), func(from, to int) {
		use.adamW(w[from:to], m[from:to], v[from:to], g[from:to], &c)
	})
}

// adamWConstants are the numbers of a step as the loops take them.
type adamWConstants struct {
	b1, rest1, b2, rest2, decay, size, root, eps float32
}

func (a AdamW) constants() adamWConstants {
	return adamWConstants{
		b1: float32(a.Beta1), rest1: float32(1 - a.Beta1), b2: float32(a.Beta2), rest2: float32(1 - a.Beta2),
		decay: float32(1 - a.LR*a.WeightDecay),
		size:  float32(a.LR / (1 - math.Pow(a.Beta1, float64(a.Step)))),
		root:  float32(math.Sqrt(1 - math.Pow(a.Beta2, float64(a.Step)))),
		eps:   float32(a.Eps),
	}
}

// adamWGo rounds after each operation, on machines that could fuse two as well.
func adamWGo(w, m, v, g []float32, c *adamWConstants) {
	for i, x := range g {
		m[i] = float32(c.b1*m[i]) + float32(c.rest1*x)
		v[i] = float32(c.b2*v[i]) + float32(float32(c.rest2*x)*x)
		root := float32(math.Sqrt(float64(v[i])))
		w[i] = float32(w[i]*c.decay) - float32(c.size*(m[i]/(root/c.root+c.eps)))
	}
}
