//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var kquantAVX2 = kquantLoops{
	fitSigned:  fitSignedWith(simd.FitSignedAVX2, nil),
	fitDescent: fitDescentWith(simd.FitDescentAVX2, nil),
	fitRange: fitRangeWith(
		[2]rangeLoop{simd.FitRangeAVX2, nil}, [2]rangeLoop{simd.FitRangeAbsoluteAVX2, nil}),
	weigh:       weighWith(simd.WeighAVX2),
	roundSigned: roundSignedWith(simd.RoundSignedAVX2),
	roundRange:  roundRangeWith(simd.RoundRangeAVX2),
}

var kquantAVX512 = kquantLoops{
	fitSigned:  fitSignedWith(simd.FitSignedAVX2, simd.FitSignedAVX512),
	fitDescent: fitDescentWith(simd.FitDescentAVX2, simd.FitDescentAVX512),
	fitRange: fitRangeWith(
		[2]rangeLoop{simd.FitRangeAVX2, simd.FitRangeAVX512},
		[2]rangeLoop{simd.FitRangeAbsoluteAVX2, simd.FitRangeAbsoluteAVX512}),
	weigh:       weighWith(simd.WeighAVX512),
	roundSigned: roundSignedWith(simd.RoundSignedAVX512),
	roundRange:  roundRangeWith(simd.RoundRangeAVX512),
}

// Loops that search eight groups or sixteen.
type (
	signedLoop  func(fit, scratch, tries *float32, size, own int, lo, hi float32)
	descentLoop func(fit, scratch *float32, size int, first, lo, hi float32)
	rangeLoop   func(fit, scratch, tries *float32, steps, size, own int, count, levels, lo, hi float32)
)

// fitStep is what a size of groups must be a multiple of for the loops, and
// roundStep for those that round.
const fitStep, roundStep = 8, 16

// inLanes has f search all groups of x, transposed into the scratch of the Fit: 16
// of them at once if wide loops exist and there are more than eight, else eight.
// Lanes that are left over are groups of zeros.
func inLanes(fit *Fit, x, weights []float32, size int, wide bool, f func(first *float32, wide bool)) {
	s := &fit.scratch
	for first := 0; first*size < len(x); {
		lanes, transpose := 8, simd.Transpose8AVX2
		if wide && len(x) > (first+8)*size {
			lanes, transpose = 16, simd.Transpose16AVX512
		}
		fill := func(dst *[FitGroups * FitSize]float32, src []float32) {
			part := src[first*size:]
			if n := lanes * size; len(part) < n {
				clear(s.padded[copy(s.padded[:], part):n])
				part = s.padded[:]
			}
			transpose(&dst[0], uintptr(4*lanes), &part[0], uintptr(4*size), size)
		}
		fill(&s.x, x)
		if weights != nil {
			fill(&s.weights, weights)
		}
		f(&fit.Scale[first], lanes == 16)
		first += lanes
	}
}

// own says that a loop is to make the weights.
func own(weights []float32) int {
	if weights == nil {
		return 1
	}
	return 0
}

func fitSignedWith(narrow, wide signedLoop) func(f *Fit, x, weights []float32, size, levels int) {
	return func(f *Fit, x, weights []float32, size, levels int) {
		if size%fitStep != 0 {
			fitSignedGo(f, x, weights, size, levels)
			return
		}
		tries := &f.scratch.tries
		for i := range signedTries {
			tries[i] = signedTry(i, levels)
		}
		lo, hi := float32(nearestMagic-levels), float32(nearestMagic+levels-1)
		inLanes(f, x, weights, size, wide != nil, func(first *float32, w bool) {
			loop := narrow
			if w {
				loop = wide
			}
			loop(first, &f.scratch.x[0], &tries[0], size, own(weights), lo, hi)
		})
	}
}

func fitDescentWith(narrow, wide descentLoop) func(f *Fit, x []float32, size, levels int) {
	return func(f *Fit, x []float32, size, levels int) {
		if size%fitStep != 0 {
			fitDescentGo(f, x, size, levels)
			return
		}
		lo, hi := float32(nearestMagic-levels), float32(nearestMagic+levels-1)
		inLanes(f, x, nil, size, wide != nil, func(first *float32, w bool) {
			loop := narrow
			if w {
				loop = wide
			}
			loop(first, &f.scratch.x[0], size, float32(-levels), lo, hi)
		})
	}
}

func fitRangeWith(square, absolute [2]rangeLoop) func(f *Fit, x, weights []float32, size int, r *Range) {
	return func(f *Fit, x, weights []float32, size int, r *Range) {
		if size%fitStep != 0 {
			fitRangeGo(f, x, weights, size, r)
			return
		}
		loops := &square
		if r.Absolute {
			loops = &absolute
		}
		tries := &f.scratch.tries
		for step := range r.Steps + 1 {
			tries[step] = r.try(step)
		}
		lo, hi := float32(nearestMagic), float32(nearestMagic+r.Levels)
		inLanes(f, x, weights, size, loops[1] != nil, func(first *float32, w bool) {
			loop := loops[0]
			if w {
				loop = loops[1]
			}
			loop(first, &f.scratch.x[0], &tries[0], r.Steps+1, size, own(weights), float32(size), float32(r.Levels), lo, hi)
		})
	}
}

func weighWith(loop func(weights, x, importance *float32, spread float32, n int)) func(weights, x, importance []float32, spread float32) {
	return func(weights, x, importance []float32, spread float32) {
		if len(x) > 0 {
			loop(&weights[0], &x[0], &importance[0], spread, len(x))
		}
	}
}

func roundSignedWith(loop func(codes *byte, x, scales *float32, groups, size int, lo, hi float32, levels int)) func(codes []byte, x, scales []float32, size, levels int) {
	return func(codes []byte, x, scales []float32, size, levels int) {
		if size%roundStep != 0 || len(x) == 0 {
			roundSignedGo(codes, x, scales, size, levels)
			return
		}
		loop(&codes[0], &x[0], &scales[0], len(scales), size, float32(nearestMagic-levels), float32(nearestMagic+levels-1), levels)
	}
}

func roundRangeWith(loop func(codes *byte, x, scales, lows *float32, groups, size int, lo, hi float32)) func(codes []byte, x, scales, lows []float32, size, levels int) {
	return func(codes []byte, x, scales, lows []float32, size, levels int) {
		if size%roundStep != 0 || len(x) == 0 {
			roundRangeGo(codes, x, scales, lows, size, levels)
			return
		}
		loop(&codes[0], &x[0], &scales[0], &lows[0], len(scales), size, nearestMagic, float32(nearestMagic+levels))
	}
}
