package kernel

import "math"

// Activation is the function between the layers of an MLP. Values are right to
// 4e-7 of themselves for SiLU, to 6 units in the last place for GELU, whose negative
// tail is 0 below -13.2, and to 2e-7 of x for GELUTanh; derivatives are to 3e-6.
type Activation uint8

const (
	// SiLU is x * sigmoid(x).
	SiLU Activation = iota
	// GELUTanh is the tanh approximation of GELU (Hendrycks and Gimpel, 2016),
	// torch's gelu(approximate="tanh").
	GELUTanh
	// GELU is x times the normal distribution's function of x.
	GELU

	activationCount = iota
)

// gelu's tanh form is x * sigmoid(2u) with u = sqrt(2/pi) * (x + 0.044715 x^3).
const (
	geluScale = 2 * 0.7978845608028654
	geluCube  = 0.044715
)

// value returns the function of x.
func (a Activation) value(x float32) float32 {
	switch a {
	case GELUTanh:
		return x / (1 + Exp(-geluScale*(x+geluCube*x*x*x)))
	case GELU:
		return float32(float64(x) * 0.5 * math.Erfc(-float64(x)/math.Sqrt2))
	}
	return x / (1 + Exp(-x))
}

// slope returns the function's derivative, and its value.
func (a Activation) slope(x float32) (slope, value float32) {
	switch a {
	case GELUTanh:
		s := 1 / (1 + Exp(-geluScale*(x+geluCube*x*x*x)))
		return s + x*s*(1-s)*geluScale*(1+3*geluCube*x*x), x * s
	case GELU:
		v := float64(x)
		phi := 0.5 * math.Erfc(-v/math.Sqrt2)
		return float32(phi + v*math.Exp(-v*v/2)/math.Sqrt(2*math.Pi)), float32(v * phi)
	}
	s := 1 / (1 + Exp(-x))
	return s * (1 + x*(1-s)), x * s
}

// Apply computes y = f(x), element by element.
func (a Activation) Apply(y, x []float32) {
	byElements(len(x), func(from, to int) { use.act[a].apply(y[from:to], x[from:to]) })
}

// Grad computes the gradient of Apply with respect to x from that of its
// result. dx may be dy.
func (a Activation) Grad(dx, dy, x []float32) {
	byElements(len(x), func(from, to int) { use.act[a].grad(dx[from:to], dy[from:to], x[from:to]) })
}

// Gated computes y = f(gate) * up, element by element (Shazeer, 2020). y may be gate
// or up.
func (a Activation) Gated(y, gate, up []float32) {
	byElements(len(y), func(from, to int) { use.act[a].gated(y[from:to], gate[from:to], up[from:to]) })
}

// GatedGrad computes the gradients of Gated with respect to gate and up from
// the gradient dy of its result. dgate may be gate, and dup may be up or dy.
func (a Activation) GatedGrad(dgate, dup, dy, gate, up []float32) {
	byElements(len(dy), func(from, to int) {
		use.act[a].gatedGrad(dgate[from:to], dup[from:to], dy[from:to], gate[from:to], up[from:to])
	})
}

// loops are the plain ones.
func (a Activation) loops() activationLoops {
	return activationLoops{
		apply: func(y, x []float32) {
			for i, v := range x {
				y[i] = a.value(v)
			}
		},
		grad: func(dx, dy, x []float32) {
			for i, v := range x {
				s, _ := a.slope(v)
				dx[i] = dy[i] * s
			}
		},
		gated: func(y, gate, up []float32) {
			for i, v := range gate {
				y[i] = a.value(v) * up[i]
			}
		},
		gatedGrad: func(dgate, dup, dy, gate, up []float32) {
			for i, v := range gate {
				u, d := up[i], dy[i]
				s, v := a.slope(v)
				dup[i] = d * v
				dgate[i] = d * u * s
			}
		},
	}
}

// SoftCap replaces x by limit * tanh(x/limit), which keeps it within the limit
// (Bello et al., 2016). The result is right to 4 units in the last place.
func SoftCap(x []float32, limit float32) {
	byElements(len(x), func(from, to int) { use.softCap(x[from:to], limit) })
}

func softCapGo(x []float32, limit float32) {
	for i, v := range x {
		x[i] = capped(v, limit)
	}
}

func capped(x, limit float32) float32 {
	return float32(float64(limit) * math.Tanh(float64(x)/float64(limit)))
}

// SoftCapGrad multiplies dx by the derivative of SoftCap where its result is y, which
// is at least as long.
func SoftCapGrad(dx, y []float32, limit float32) { use.softCapGrad(dx[:len(y)], y, limit) }

func softCapGradGo(dx, y []float32, limit float32) {
	for i, v := range y {
		r := v / limit
		dx[i] *= 1 - r*r
	}
}

// Sigmoid returns 1/(1+e^-x).
func Sigmoid(x float32) float32 { return 1 / (1 + Exp(-x)) }

// Softmax replaces x by its softmax; a NaN spreads to all of it.
func Softmax(x []float32) { softmax(x) }
