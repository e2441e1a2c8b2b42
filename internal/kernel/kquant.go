package kernel

import "math"

// kquantLoops are the searches for the scales of ggml's block formats. All variants
// have the same bits: a group is summed up in order, its elements one by one, with
// every product rounded before it is added.
type kquantLoops struct {
	// fitSigned is FitSigned, fitDescent FitDescent, fitRange FitRange.
	fitSigned  func(f *Fit, x, weights []float32, size, levels int)
	fitDescent func(f *Fit, x []float32, size, levels int)
	fitRange   func(f *Fit, x, weights []float32, size int, r *Range)

	// weigh is Weigh.
	weigh func(weights, x, importance []float32, spread float32)

	// roundSigned is RoundSigned, roundRange RoundRange.
	roundSigned func(codes []byte, x, scales []float32, size, levels int)
	roundRange  func(codes []byte, x, scales, lows []float32, size, levels int)
}

var kquantGo = kquantLoops{
	fitSigned: fitSignedGo, fitDescent: fitDescentGo, fitRange: fitRangeGo, weigh: weighGo,
	roundSigned: roundSignedGo, roundRange: roundRangeGo,
}

const (
	// FitGroups is how many groups a search goes through at most, FitSize how many
	// elements they have at most.
	FitGroups = 16
	FitSize   = 32

	// tinyGroup is the magnitude below which a group counts as zeros.
	tinyGroup = 1e-15

	// nearestMagic brings the units of a float32 to the end of its bits.
	nearestMagic = 12582912
)

// Fit is what a search found for each group.
type Fit struct {
	Scale [FitGroups]float32

	// Low is by how much the lowest value of a Range is below zero. It is never less
	// than zero, but may be a negative zero.
	Low [FitGroups]float32

	// Weight is the sum of the weights of a Range.
	Weight [FitGroups]float32

	// Inverse and Origin are what makes codes of the elements: see SignedCodes and
	// RangeCodes.
	Inverse, Origin [FitGroups]float32

	scratch fitScratch
}

// fitScratch is what assembly works in. Its layout is known there.
type fitScratch struct {
	x, weights [FitGroups * FitSize]float32 // transposed
	_          [2 * FitGroups * FitSize]float32
	_          [8 * FitGroups]float32 // what is kept from step to step

	tries  [fitTries]float32
	padded [FitGroups * FitSize]float32
}

// fitTries is how many scales a search may try at most.
const fitTries = 64

// Range says how FitRange searches.
type Range struct {
	Levels int // the highest code

	// Tried are, in order, First, First+Step ... for Steps steps and one more, added to
	// the levels that the span of a group is divided by.
	First, Step float32
	Steps       int

	// Absolute has the errors of the elements added up and not their squares.
	Absolute bool
}

// nearest rounds to an integer, ties to even. A magnitude from 2^22 on gives what is
// left of its bits, and NaN 0, as they do in ggml.
func nearest(v float32) int32 {
	return int32(math.Float32bits(float32(v)+nearestMagic)&0x7fffff) - 0x400000
}

// clamped is the nearest integer that is a code.
func clamped(v float32, lo, hi int32) int32 { return max(lo, min(hi, nearest(v))) }

func abs32(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// FitSigned finds the scales of groups of so many elements, their codes being
// -levels to levels-1, from 19 that it tries: the one of the least squared error with
// the best factor. weights are those of the elements; nil stands for their squares.
// Scale and Inverse are set.
func FitSigned(f *Fit, x, weights []float32, size, levels int) {
	checkFit(x, size)
	if weights != nil {
		weights = weights[:len(x)]
	}
	use.fitSigned(f, x, weights, size, levels)
}

func checkFit(x []float32, size int) {
	if size < 1 || size > FitSize || len(x)%size != 0 || len(x)/size > FitGroups {
		panic("kernel: not groups to search")
	}
}

func fitSignedGo(f *Fit, x, weights []float32, size, levels int) {
	lo, hi := int32(-levels), int32(levels-1)
	for g := range len(x) / size {
		part := x[g*size : (g+1)*size]
		largest := furthest(part)
		if abs32(largest) < tinyGroup {
			f.Scale[g], f.Inverse[g] = 0, 0
			continue
		}
		var w, wx [FitSize]float32
		for i, v := range part {
			w[i] = float32(v * v)
			if weights != nil {
				w[i] = weights[g*size+i]
			}
			wx[i] = float32(w[i] * v)
		}
		sums := func(inverse float32) (mixed, square float32) {
			for i, v := range part {
				l := float32(clamped(float32(inverse*v), lo, hi))
				mixed += float32(wx[i] * l)
				square += float32(float32(w[i]*l) * l)
			}
			return mixed, square
		}
		inverse := signedTry(0, levels) / largest
		mixed, square := sums(inverse)
		var scale float32
		if square != 0 {
			scale = mixed / square
		}
		best := float32(scale * mixed)
		for try := 1; try < signedTries; try++ {
			tried := signedTry(try, levels) / largest
			mixed, square := sums(tried)
			if square > 0 && float32(mixed*mixed) > float32(best*square) {
				scale = mixed / square
				best = float32(scale * mixed)
				inverse = tried
			}
		}
		f.Scale[g], f.Inverse[g] = scale, inverse
	}
}

// signedTries is how many scales FitSigned tries.
const signedTries = 19

// signedTry returns what the element of the largest magnitude is to be by one of
// them: the lowest code, then up to 0.9 less and 0.9 more in magnitude.
func signedTry(try, levels int) float32 {
	switch {
	case try == 0:
		return float32(-levels)
	case try <= 9:
		try -= 10 // -9 to -1
	default:
		try -= 9 // 1 to 9
	}
	return -(float32(levels) + float32(0.1*float32(try)))
}

// furthest returns the first element of the largest magnitude; 0 if there is none
// but zeros and NaN.
func furthest(x []float32) float32 {
	var top, v float32
	for _, e := range x {
		if a := abs32(e); a > top {
			top, v = a, e
		}
	}
	return v
}

// SignedCodes makes the codes of a group, plus levels, that FitSigned found its scale
// with. Those of a group of zeros are 0.
func SignedCodes(codes []byte, x []float32, inverse float32, levels int) {
	if abs32(furthest(x)) < tinyGroup {
		clear(codes[:len(x)])
		return
	}
	for i, v := range x {
		codes[i] = byte(clamped(float32(inverse*v), int32(-levels), int32(levels-1)) + int32(levels))
	}
}

// FitDescent finds the scales of groups of so many elements, their codes being
// -levels to levels-1, by changing one code after the other as long as the squared
// error, each element weighted by its square, gets less. Scale is set.
func FitDescent(f *Fit, x []float32, size, levels int) {
	checkFit(x, size)
	use.fitDescent(f, x, size, levels)
}

func fitDescentGo(f *Fit, x []float32, size, levels int) {
	for g := range len(x) / size {
		var codes [FitSize]int32
		f.Scale[g] = descend(&codes, x[g*size:(g+1)*size], levels)
	}
}

// DescentCodes makes the codes of a group, plus levels, as FitDescent left them.
// Those of a group of zeros are 0.
func DescentCodes(codes []byte, x []float32, levels int) {
	if abs32(furthest(x)) < tinyGroup {
		clear(codes[:len(x)])
		return
	}
	var found [FitSize]int32
	descend(&found, x, levels)
	for i := range x {
		codes[i] = byte(found[i] + int32(levels))
	}
}

func descend(codes *[FitSize]int32, x []float32, levels int) float32 {
	lo, hi := int32(-levels), int32(levels-1)
	largest := furthest(x)
	if abs32(largest) < tinyGroup {
		return 0
	}
	inverse := float32(-levels) / largest
	var w, wx [FitSize]float32
	var mixed, square float32
	for i, v := range x {
		codes[i] = clamped(float32(inverse*v), lo, hi)
		l := float32(codes[i])
		w[i] = float32(v * v)
		wx[i] = float32(w[i] * v)
		mixed += float32(wx[i] * l)
		square += float32(float32(w[i]*l) * l)
	}
	for range 5 {
		changed := false
		for i, v := range x {
			l := float32(codes[i])
			m := mixed - float32(wx[i]*l)
			if !(m > 0) {
				continue
			}
			s := square - float32(float32(w[i]*l)*l)
			code := clamped(float32(v*s)/m, lo, hi)
			if code == codes[i] {
				continue
			}
			l = float32(code)
			m += float32(wx[i] * l)
			s += float32(float32(w[i]*l) * l)
			if s > 0 && float32(float32(m*m)*square) > float32(float32(mixed*mixed)*s) {
				codes[i], mixed, square, changed = code, m, s, true
			}
		}
		if !changed {
			break
		}
	}
	if square > 0 {
		return mixed / square
	}
	return 0
}

// FitRange finds the scales of groups of so many elements, their codes being 0 to
// Levels, and where below zero the codes begin, from those that it tries: each the
// best for its codes by weighted least squares. weights are those of the elements.
// nil stands for the magnitude of each, to which, unless errors are absolute, the
// root mean square of its group is added. All of the Fit is set.
func FitRange(f *Fit, x, weights []float32, size int, r *Range) {
	checkFit(x, size)
	if r.Steps >= fitTries {
		panic("kernel: too many steps")
	}
	if weights != nil {
		weights = weights[:len(x)]
	}
	use.fitRange(f, x, weights, size, r)
}

func fitRangeGo(f *Fit, x, weights []float32, size int, r *Range) {
	var own [FitSize]float32
	for g := range len(x) / size {
		part := x[g*size : (g+1)*size]
		w := own[:size]
		switch {
		case weights != nil:
			w = weights[g*size : (g+1)*size]
		case r.Absolute:
			for i, v := range part {
				w[i] = abs32(v)
			}
		default:
			var sum float32
			for _, v := range part {
				sum += float32(v * v)
			}
			rms := sqrt32(sum / float32(size))
			for i, v := range part {
				w[i] = rms + abs32(v)
			}
		}
		r.fit(f, g, part, w)
	}
}

// Weigh makes the weights of values from their importance, and from how far they are
// from zero beside what values near them are: the mean square of those, or twice it.
func Weigh(weights, x, importance []float32, spread float32) {
	use.weigh(weights[:len(x)], x, importance[:len(x)], spread)
}

func weighGo(weights, x, importance []float32, spread float32) {
	for i, v := range x {
		weights[i] = importance[i] * sqrt32(spread+float32(v*v))
	}
}

func sqrt32(v float32) float32 { return float32(math.Sqrt(float64(v))) }

// try returns what the span of a group is to be by one of the scales tried.
func (r *Range) try(step int) float32 {
	return r.First + float32(r.Step*float32(step)) + float32(r.Levels)
}

// fit searches one group.
func (r *Range) fit(f *Fit, g int, x, w []float32) {
	lo, hi := x[0], x[0]
	weight := w[0]
	sum := float32(weight * x[0])
	for i := 1; i < len(x); i++ {
		lo, hi = less(x[i], lo), more(x[i], hi)
		weight += w[i]
		sum += float32(w[i] * x[i])
	}
	if lo > 0 {
		lo = 0
	}
	f.Weight[g] = weight
	if hi == lo {
		f.Scale[g], f.Low[g], f.Inverse[g], f.Origin[g] = 0, -lo, 0, 0
		return
	}
	levels := float32(r.Levels)
	inverse, origin := levels/(hi-lo), lo
	scale := 1 / inverse
	var codes [FitSize]float32
	for i, v := range x {
		codes[i] = float32(clamped(float32(inverse*(v-lo)), 0, int32(r.Levels)))
	}
	best := r.err(x, w, &codes, scale, lo)
	for step := range r.Steps + 1 {
		tried := r.try(step) / (hi - lo)
		var sumL, squareL, mixed float32
		for i, v := range x {
			l := float32(clamped(float32(tried*(v-lo)), 0, int32(r.Levels)))
			codes[i] = l
			wl := float32(w[i] * l)
			sumL += wl
			squareL += float32(wl * l)
			mixed += float32(wl * v)
		}
		det := float32(weight*squareL) - float32(sumL*sumL)
		if !(det > 0) {
			continue
		}
		newScale := (float32(weight*mixed) - float32(sum*sumL)) / det
		newLow := (float32(squareL*sum) - float32(sumL*mixed)) / det
		if newLow > 0 {
			newLow, newScale = 0, mixed/squareL
		}
		if err := r.err(x, w, &codes, newScale, newLow); err < best {
			best, inverse, origin = err, tried, lo
			scale, lo = newScale, newLow
		}
	}
	f.Scale[g], f.Low[g], f.Inverse[g], f.Origin[g] = scale, -lo, inverse, origin
}

// less and more are comparisons as C has them: a NaN changes nothing.
func less(a, b float32) float32 {
	if a < b {
		return a
	}
	return b
}

func more(a, b float32) float32 {
	if a > b {
		return a
	}
	return b
}

// err returns the weighted error of a group with these codes.
func (r *Range) err(x, w []float32, codes *[FitSize]float32, scale, low float32) float32 {
	var sum float32
	for i, v := range x {
		d := float32(scale*codes[i]) + low - v
		if r.Absolute {
			d = abs32(d)
		} else {
			d = float32(d * d)
		}
		sum += float32(w[i] * d)
	}
	return sum
}

// RangeCodes makes the codes of a group that FitRange found its scale with.
func RangeCodes(codes []byte, x []float32, inverse, origin float32, levels int) {
	for i, v := range x {
		codes[i] = byte(clamped(float32(inverse*(v-origin)), 0, int32(levels)))
	}
}

// RoundSigned gives the elements of groups of a size the codes, plus levels, of what
// they are divided by the scale of their group. One whose scale is 0 is passed over.
func RoundSigned(codes []byte, x, scales []float32, size, levels int) {
	checkFit(x, size)
	use.roundSigned(codes[:len(x)], x, scales[:len(x)/size], size, levels)
}

func roundSignedGo(codes []byte, x, scales []float32, size, levels int) {
	for g, scale := range scales {
		if scale == 0 {
			continue
		}
		for i, v := range x[g*size : (g+1)*size] {
			codes[g*size+i] = byte(clamped(v/scale, int32(-levels), int32(levels-1)) + int32(levels))
		}
	}
}

// RoundRange gives the elements of groups of a size the codes, up to levels, of what
// they are, with the low of their group added, divided by its scale. One whose scale
// is 0 is passed over.
func RoundRange(codes []byte, x, scales, lows []float32, size, levels int) {
	checkFit(x, size)
	use.roundRange(codes[:len(x)], x, scales[:len(x)/size], lows[:len(x)/size], size, levels)
}

func roundRangeGo(codes []byte, x, scales, lows []float32, size, levels int) {
	for g, scale := range scales {
		if scale == 0 {
			continue
		}
		for i, v := range x[g*size : (g+1)*size] {
			codes[g*size+i] = byte(clamped((v+lows[g])/scale, 0, int32(levels)))
		}
	}
}
