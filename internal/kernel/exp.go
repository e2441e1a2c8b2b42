package kernel

import "math"

// Exp returns e^x to within 1.1 units in the last place; it flushes what would be
// subnormal to 0 and saturates at +Inf. It is about four times as fast as math.Exp,
// which dominates softmax otherwise. The loops over slices compute the same polynomial
// with fused operations, and so differ from it in the last place.
//
// The method is the usual one: x = n*ln2 + r with |r| <= ln2/2, a polynomial
// for e^r (Cephes expf's minimax coefficients), and n added to the exponent.
func Exp(x float32) float32 {
	const (
		log2e = 1.44269504088896341
		ln2Hi = 0.693359375
		ln2Lo = -2.12194440e-4
		round = 0x1.8p23
	)
	switch {
	case x < -87.33654:
		return 0
	case x > 88.72283:
		return float32(math.Inf(1))
	case x != x:
		return x
	}
	// Adding and taking away 1.5*2^23 rounds to the nearest integer.
	shifted := float32(x*log2e) + round
	n := shifted - round
	r := x - n*ln2Hi - n*ln2Lo
	p := float32(1.9875691500e-4)
	p = p*r + 1.3981999507e-3
	p = p*r + 8.3334519073e-3
	p = p*r + 4.1665795894e-2
	p = p*r + 1.6666665459e-1
	p = p*r + 5.0000001201e-1
	y := p*r*r + r + 1
	// Twice half the exponent: n may be 128, which a float32 power of two is
	// too small for.
	e := int32(n)
	h := e / 2
	return y * pow2(h) * pow2(e-h)
}

func pow2(n int32) float32 { return math.Float32frombits(uint32(n+127) << 23) }

// softmax replaces x by its softmax.
func softmax(x []float32) {
	use.scale(x, float32(1/use.expSum(x, x, use.max(x))))
}

// sumGroup is how many exponentials are summed in float32 before the sum is taken on
// in float64. Variants sum at least 4 times as many, in as many lanes and more: none
// adds more than this many numbers in float32, so that a sum is right to
// sumGroup * 2^-24 at the worst.
const sumGroup = 256

func maxGo(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	return top
}

func expSumGo(y, x []float32, shift float32) float64 {
	var sum float64
	var group float32
	for i, v := range x {
		e := Exp(v - shift)
		y[i] = e
		group += e
		if i%sumGroup == sumGroup-1 {
			sum += float64(group)
			group = 0
		}
	}
	return sum + float64(group)
}

func sumExpGo(x []float32, shift float32) float64 {
	var sum float64
	var group float32
	for i, v := range x {
		group += Exp(v - shift)
		if i%sumGroup == sumGroup-1 {
			sum += float64(group)
			group = 0
		}
	}
	return sum + float64(group)
}

func expScaleGo(x []float32, shift, rest, s float32) {
	for i, v := range x {
		x[i] = s * Exp(v-shift-rest)
	}
}
