package kernel

// The passes over a row of a tile of scores.

// maxRow returns the greatest of scale*x, which is not empty. NaN is greater than
// all.
func maxRow(x []float32, scale float32) float32 {
	top := scale * x[0]
	for _, v := range x[1:] {
		top = max(top, scale*v)
	}
	return top
}

// expRow replaces x by e^(scale*x - top) and returns the sum.
func expRow(x []float32, scale, top float32) float32 {
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
func gradRow(dp, p []float32, dot, scale float32) {
	dp = dp[:len(p)]
	for i, w := range p {
		dp[i] = scale * w * (dp[i] - dot)
	}
}

func scaleRow(x []float32, s float32) {
	for i := range x {
		x[i] *= s
	}
}
