package kernel

import "math"

// distanceLoops are the inner loops that compare values.
type distanceLoops struct {
	// distance is Distance of a multiple of 8 elements, not 0.
	distance func(x, y []float32) Distance
}

var distanceGo = distanceLoops{distance: distance8Go}

// Distance is how far values are from others.
type Distance struct {
	// Square and Error are the sums of the squares of the values and of the
	// differences, TopError the largest of the latter.
	Square, Error, TopError float64

	// TopX and TopY are the largest magnitudes on both sides. A NaN counts as larger
	// than any number, and if there is one, or an infinity, the sums say nothing.
	TopX, TopY float32
}

// DistanceOf compares y with x, which must be as long. The sums are made in float64, of
// squares that are rounded, in an order that follows from the length alone, so they have
// the same bits in every variant: in eight lanes, and what is left over by itself.
func DistanceOf(x, y []float32) Distance {
	y = y[:len(x)]
	var d Distance
	n := len(x) &^ 7
	if n > 0 {
		d = use.distance(x[:n], y[:n])
	}
	for i, v := range x[n:] {
		d.TopX, d.TopY = larger(d.TopX, v), larger(d.TopY, y[n+i])
		u := float64(v)
		e := u - float64(y[n+i])
		e = float64(e * e)
		d.Square += float64(u * u)
		d.Error += e
		d.TopError = math.Max(d.TopError, e)
	}
	return d
}

// larger returns the magnitude of v if it is larger than top. It compares bits, in whose
// order NaN is more than any number.
func larger(top, v float32) float32 {
	return math.Float32frombits(max(math.Float32bits(top), math.Float32bits(v)&^(1<<31)))
}

func distance8Go(x, y []float32) Distance {
	var square, err [8]float64
	var topX, topY uint32
	var top uint64
	for len(x) >= 8 && len(y) >= 8 {
		for i := range 8 {
			topX = max(topX, math.Float32bits(x[i])&^(1<<31))
			topY = max(topY, math.Float32bits(y[i])&^(1<<31))
			u := float64(x[i])
			e := u - float64(y[i])
			e = float64(e * e)
			square[i] += float64(u * u)
			err[i] += e
			top = max(top, math.Float64bits(e))
		}
		x, y = x[8:], y[8:]
	}
	return Distance{
		Square: foldLanes(&square), Error: foldLanes(&err), TopError: math.Float64frombits(top),
		TopX: math.Float32frombits(topX), TopY: math.Float32frombits(topY),
	}
}

// foldLanes adds eight lanes in the order in which registers are halved.
func foldLanes(l *[8]float64) float64 {
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}
