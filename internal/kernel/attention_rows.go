package kernel

// attentionLoops are the passes over a row of scores, and products of a vector with
// some rows of a matrix. Sums are taken in another order in each variant. Vector
// loops round a product and the sum it goes into once.
type attentionLoops struct {
	maxRow   func(x []float32, scale float32) float32
	expRow   func(x []float32, scale, top float32) float32
	gradRow  func(dp, p []float32, dot, scale float32)
	scaleRow func(x []float32, s float32)
	dotRows  func(s, x, y []float32, ld int)
	addRows  func(y, w, x []float32, ld int)
}

var attentionGo = attentionLoops{maxRowGo, expRowGo, gradRowGo, scaleRowGo, dotRowsGo, addRowsGo}

// maxRow returns the greatest of scale*x, which is not empty. NaN may be left out.
func maxRow(x []float32, scale float32) float32 { return use.maxRow(x, scale) }

func maxRowGo(x []float32, scale float32) float32 {
	top := scale * x[0]
	for _, v := range x[1:] {
		top = max(top, scale*v)
	}
	return top
}

// expRow replaces x by e^(scale*x - top), to within 2 units in the last place of
// what the rounded exponent gives, and returns the sum. What would be subnormal
// becomes 0. Exponents are at most 88.
func expRow(x []float32, scale, top float32) float32 { return use.expRow(x, scale, top) }

func expRowGo(x []float32, scale, top float32) float32 {
	var sum float32
	for i, v := range x {
		e := Exp(scale*v - top)
		x[i] = e
		sum += e
	}
	return sum
}

// gradRow turns the gradient dp with respect to the weights p into scale times that
// with respect to the scores. dot is the dot product of all of the token's dp and p.
func gradRow(dp, p []float32, dot, scale float32) { use.gradRow(dp[:len(p)], p, dot, scale) }

func gradRowGo(dp, p []float32, dot, scale float32) {
	dp = dp[:len(p)]
	for i, w := range p {
		dp[i] = scale * w * (dp[i] - dot)
	}
}

func scaleRow(x []float32, s float32) { use.scaleRow(x, s) }

func scaleRowGo(x []float32, s float32) {
	for i := range x {
		x[i] *= s
	}
}

// dotRows sets s to the dot products of x with rows of y, which are ld floats apart.
func dotRows(s, x, y []float32, ld int) { use.dotRows(s, x, rowsOf(y, ld, len(s), len(x)), ld) }

func dotRowsGo(s, x, y []float32, ld int) {
	for i := range s {
		s[i] = dotGo(x, y[i*ld:])
	}
}

// addRows adds the rows of x, ld floats apart, times w to y.
func addRows(y, w, x []float32, ld int) { use.addRows(y, w, rowsOf(x, ld, len(w), len(y)), ld) }

func addRowsGo(y, w, x []float32, ld int) {
	for i, s := range w {
		addScaledGo(y, s, x[i*ld:][:len(y)])
	}
}

// rowsOf returns the part of x that n rows of d floats take, and panics if x is
// shorter.
func rowsOf(x []float32, ld, n, d int) []float32 {
	if n == 0 {
		return nil
	}
	return x[:(n-1)*ld+d]
}
