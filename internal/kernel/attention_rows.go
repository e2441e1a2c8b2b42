package kernel

// attentionLoops are a pass over a row of scores, and products of a vector with some
// rows of a matrix. Sums are taken in another order in each variant. Vector loops
// round a product and the sum it goes into once.
type attentionLoops struct {
	gradRow func(dp, p []float32, dot float32)
	dotRows func(s, x, y []float32, ld int)
	addRows func(y, w, x []float32, ld int)
}

var attentionGo = attentionLoops{gradRowGo, dotRowsGo, addRowsGo}

// gradRow turns the gradient dp with respect to the weights p into that with respect
// to the scores. dot is the dot product of all of the token's dp and p.
func gradRow(dp, p []float32, dot float32) { use.gradRow(dp[:len(p)], p, dot) }

func gradRowGo(dp, p []float32, dot float32) {
	dp = dp[:len(p)]
	for i, w := range p {
		dp[i] = w * (dp[i] - dot)
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
