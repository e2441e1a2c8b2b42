package kernel

// elementLoops are the inner loops over vectors. Slices are as long as the first one.
// A result may be where an argument is, but not beside it. add, addScaled, scale,
// adamW and those of 8 bits give the same bits in all variants.
type elementLoops struct {
	add       func(y, x []float32)
	addScaled func(y []float32, s float32, x []float32)
	scale     func(x []float32, s float32)
	adamW     func(w, m, v, g []float32, c *adamWConstants)

	// dot sums in float32, in at least 4 partial sums.
	dot func(x, y []float32) float32
	// max is -Inf of nothing and NaN if an element is.
	max func(x []float32) float32
	// sum and sumSquares, which is of x - mean, are in float64.
	sum        func(x []float32) float64
	sumSquares func(x []float32, mean float64) float64

	// norm computes y = x*s*(w+plus), normBias y = (x-mean)*s*(w+plus) + b.
	norm     func(y, x, w []float32, s, plus float32)
	normBias func(y, x, w, b []float32, mean, s, plus float32)
	// normDots returns the sums of (x-mean)*dy*(w+plus) and of dy*(w+plus).
	normDots func(dy, x, w []float32, mean, plus float32) (dot, sum float64)
	// normGrad adds dy*(w+plus)*s - (x-mean)*c - shift to dx, normWeight
	// dy*(x-mean)*s to dw.
	normGrad   func(dx, dy, x, w []float32, mean, s, plus, c, shift float32)
	normWeight func(dw, dy, x []float32, mean, s float32)

	// The rotations have heads of dim elements; len(cos) is the number of pairs or,
	// for neighbours, twice that.
	rotateHalves, rotatePairs func(x, cos, sin []float32, heads, dim int, sign float32)

	// expSum computes y = e^(x-shift) and returns its sum, sumExp only the sum.
	expSum func(y, x []float32, shift float32) float64
	sumExp func(x []float32, shift float32) float64
	// expScale replaces x by s*e^(x-shift-rest).
	expScale func(x []float32, shift, rest, s float32)

	softCap     func(x []float32, limit float32)
	softCapGrad func(dx, y []float32, limit float32)

	act [activationCount]activationLoops

	// encode8 is from moments to codes, magnitude is the greatest.
	encode8   func(codes []uint8, x []float32, d *dynamicMap, top float32)
	magnitude func(x []float32) float32
}

// activationLoops are those of one Activation, under the names of its methods.
type activationLoops struct {
	apply     func(y, x []float32)
	grad      func(dx, dy, x []float32)
	gated     func(y, gate, up []float32)
	gatedGrad func(dgate, dup, dy, gate, up []float32)
}

var elementGo = elementLoops{
	add: addGo, addScaled: addScaledGo, scale: scaleGo, adamW: adamWGo,
	dot: dotGo, max: maxGo, sum: sumGo, sumSquares: sumSquaresGo,
	norm: normGo, normBias: normBiasGo, normDots: normDotsGo, normGrad: normGradGo, normWeight: normWeightGo,
	rotateHalves: rotateHalvesGo, rotatePairs: rotatePairsGo,
	expSum: expSumGo, sumExp: sumExpGo, expScale: expScaleGo,
	softCap: softCapGo, softCapGrad: softCapGradGo,
	act:     [activationCount]activationLoops{SiLU: SiLU.loops(), GELUTanh: GELUTanh.loops(), GELU: GELU.loops()},
	encode8: encode8Go, magnitude: magnitudeGo,
}

// byElements runs f on groups of n elements.
func byElements(n int, f func(from, to int)) {
	const group = 4096
	Parallel((n+group-1)/group, int64(n)*8, func(i int) { f(i*group, min(n, (i+1)*group)) })
}

// byColumns runs f on groups of the columns of matrices of m rows, each column
// costing cost multiply-adds in each row. It is for sums over rows, which one
// goroutine then makes in their order.
func byColumns(m, columns, cost int, f func(from, to int)) {
	const group = 256
	Parallel((columns+group-1)/group, int64(m)*int64(columns)*int64(cost), func(i int) {
		f(i*group, min(columns, (i+1)*group))
	})
}

// Dot returns the dot product of x and the first len(x) elements of y. It is summed
// in float32: the error is at most (len(x)/4+4) * 2^-24 of the sum of the magnitudes
// of the products.
func Dot(x, y []float32) float32 { return use.dot(x, y[:len(x)]) }

func dotGo(x, y []float32) float32 {
	var a, b, c, d float32
	i := 0
	for ; i+4 <= len(x); i += 4 {
		a += x[i] * y[i]
		b += x[i+1] * y[i+1]
		c += x[i+2] * y[i+2]
		d += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		a += x[i] * y[i]
	}
	return a + b + (c + d)
}

// AddScaled adds s*x to y, which is at least as long. The product is rounded before
// it is added, in every variant.
func AddScaled(y []float32, s float32, x []float32) { use.addScaled(y[:len(x)], s, x) }

func addScaledGo(y []float32, s float32, x []float32) {
	for i, v := range x {
		y[i] += float32(s * v)
	}
}

// Add adds x to y, which is at least as long.
func Add(y, x []float32) {
	y = y[:len(x)]
	byElements(len(x), func(from, to int) { use.add(y[from:to], x[from:to]) })
}

func addGo(y, x []float32) {
	for i, v := range x {
		y[i] += v
	}
}

// AddRow adds the vector b to each of the m rows of y.
func AddRow(y, b []float32, m int) {
	n := len(b)
	byRows(m, n, func(from, to int) {
		for i := from; i < to; i++ {
			use.add(y[i*n:(i+1)*n], b)
		}
	})
}

// SumRows adds the sum of the m rows of dy to db: the gradient of AddRow.
func SumRows(db, dy []float32, m int) {
	n := len(db)
	byColumns(m, n, 1, func(from, to int) {
		for i := range m {
			use.add(db[from:to], dy[i*n+from:i*n+to])
		}
	})
}

// Scale multiplies x by s.
func Scale(x []float32, s float32) {
	byElements(len(x), func(from, to int) { use.scale(x[from:to], s) })
}

func scaleGo(x []float32, s float32) {
	for i := range x {
		x[i] *= s
	}
}

// SumSquares returns the sum of the squares of x, in float64.
func SumSquares(x []float32) float64 {
	const group = 1 << 16
	if len(x) <= group {
		return use.sumSquares(x, 0)
	}
	sums := make([]float64, (len(x)+group-1)/group)
	Parallel(len(sums), int64(len(x)), func(i int) {
		sums[i] = use.sumSquares(x[i*group:min(len(x), (i+1)*group)], 0)
	})
	var sum float64
	for _, s := range sums {
		sum += s
	}
	return sum
}

func sumSquaresGo(x []float32, mean float64) float64 {
	var sum float64
	for _, v := range x {
		d := float64(v) - mean
		sum += d * d
	}
	return sum
}

func sumGo(x []float32) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v)
	}
	return sum
}
