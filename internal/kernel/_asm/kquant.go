package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["kquant"] = kquant }

// kquant has the searches for the scales of ggml's block formats: one group in each
// lane, so that each is summed up in its own order. The elements of the groups, as
// many of each, have been transposed.
func kquant() {
	for _, l := range []lanes{avx512, avx2} {
		l.fitSigned()
		l.fitDescent()
		l.fitRange("FitRange", false)
		l.fitRange("FitRangeAbsolute", true)
		l.weigh()
		l.round("RoundSigned", false)
		l.round("RoundRange", true)
	}
}

// Where kernel.Fit and kernel.fitScratch have their parts.
const (
	fitLow     = 64
	fitWeight  = 128
	fitInverse = 192
	fitOrigin  = 256

	scratchX     = 0
	scratchW     = 2048
	scratchMore  = 4096
	scratchCodes = 6144
	scratchState = 8192
)

const (
	equal       = 0  // predicates of VCMPPS; a NaN is equal to nothing
	notEqual    = 4  // true for NaN
	lessThan    = 17 // quiet, false for NaN
	nearestUnit = 0x4b400000
)

// search is what a function of this file works with.
type search struct {
	lanes
	fit, scratch reg.GPVirtual
	end          reg.GPVirtual // bytes from the first element of all lanes to the last
	lo, hi       reg.VecVirtual
	magic        Op
	and, or      Op
}

// newSearch loads what all functions have: where to read and write, and the bounds
// of the codes, nearestUnit added to them.
func (l lanes) newSearch() *search {
	s := &search{lanes: l, fit: pointer("fit"), scratch: pointer("scratch"), end: pointer("size")}
	SHLQ(Imm(map[bool]uint64{true: 6, false: 5}[l.wide()]), s.end)
	s.rounding()
	return s
}

// rounding prepares nearest and clamp.
func (s *search) rounding() {
	s.magic, s.and, s.or = s.konst(floatOf(nearestUnit)), s.konst(floatOf(0x7fffff)), s.konst(floatOf(0x4b000000))
	s.lo, s.hi = s.param("lo"), s.param("hi")
}

func (s *search) at(part int, i reg.Register, offset int) Mem {
	return Mem{Base: s.scratch, Index: i, Scale: 1, Disp: part + offset}
}

// state is a vector kept in memory.
func (s *search) state(n int) Mem {
	return Mem{Base: s.scratch, Disp: scratchState + n*s.bytes}
}

func (s *search) load(m Op) reg.VecVirtual {
	x := s.reg()
	VMOVUPS(m, x)
	return x
}

// each runs body for each element of all lanes, as often in a row as unroll says.
// from is the first.
func (s *search) each(label string, from, unroll int, body func(i reg.Register, offset int)) {
	i := GP64()
	if from == 0 {
		XORQ(i, i)
	} else {
		MOVQ(I32(int32(from*s.bytes)), i)
	}
	Label(label)
	for u := range unroll {
		body(i, u*s.bytes)
	}
	ADDQ(I32(int32(unroll*s.bytes)), i)
	CMPQ(i, s.end)
	JL(LabelRef(label))
}

// nearest rounds x to an integer with nearestUnit added to it: what is left of its
// bits, as ggml does it.
func (s *search) nearest(x reg.VecVirtual) {
	VADDPS(s.magic, x, x)
	if s.wide() {
		VPTERNLOGD(Imm(0xea), s.or, s.and, x) // (x and and) or or
	} else {
		VANDPS(s.and, x, x)
		VORPS(s.or, x, x)
	}
}

// code rounds x to an integer that is a code.
func (s *search) code(x reg.VecVirtual) {
	s.nearest(x)
	VMAXPS(s.lo, x, x)
	VMINPS(s.hi, x, x)
	VSUBPS(s.magic, x, x)
}

// compare returns in which lanes a is so to b.
func (s *search) compare(predicate uint64, a, b Op) reg.Register {
	if s.wide() {
		k := K()
		VCMPPS(Imm(predicate), b, a, k)
		return k
	}
	m := YMM()
	VCMPPS(Imm(predicate), b, a, m)
	return m
}

// both has a mask where it is set and the other too.
func (s *search) both(a, b reg.Register) {
	if s.wide() {
		KANDW(a, b, b)
	} else {
		VANDPS(a, b, b)
	}
}

// choose makes no the lanes of yes where the mask is set.
func (s *search) choose(mask reg.Register, yes, no Op) {
	if s.wide() {
		VBLENDMPS(yes, no, mask, no)
	} else {
		VBLENDVPS(mask, yes, no, no)
	}
}

// drop makes the lanes 0 where the mask is set.
func (s *search) drop(mask reg.Register, x reg.VecVirtual) {
	if s.wide() {
		KNOTW(mask, mask)
		VMOVAPS_Z(x, mask, x)
		KNOTW(mask, mask)
	} else {
		VANDNPS(x, mask, x)
	}
}

// zero returns a vector of zeros.
func (s *search) zero() reg.VecVirtual { return s.zeros(1)[0] }

// absolute clears the signs.
func (s *search) absolute(x reg.VecVirtual) {
	if s.wide() {
		VANDPS(s.inReg(floatOf(0x7fffffff)), x, x)
	} else {
		VANDPS(s.data(floatOf(0x7fffffff)), x, x)
	}
}

// furthest returns the first element of the largest magnitude of each lane, and
// which lanes have none but zeros.
func (s *search) furthest() (v reg.VecVirtual, none reg.Register) {
	top, abs := s.zero(), s.reg()
	v = s.zero()
	mask := s.inReg(floatOf(0x7fffffff))
	s.each("furthest", 0, 1, func(i reg.Register, offset int) {
		x := s.load(s.at(scratchX, i, offset))
		VANDPS(mask, x, abs)
		s.choose(s.compare(greater, abs, top), x, v)
		VMAXPS(top, abs, top)
	})
	return v, s.compare(lessThan, top, s.inReg(1e-15))
}

// addCodes adds the products of a code, l, with its element and with itself to the
// sums; scratchW has the weights, scratchMore their products with the elements.
func (s *search) addCodes(i reg.Register, offset int, l, mixed, square reg.VecVirtual) {
	a, b := s.reg(), s.reg()
	VMULPS(s.at(scratchMore, i, offset), l, a)
	VADDPS(a, mixed, mixed)
	VMULPS(s.at(scratchW, i, offset), l, b)
	VMULPS(l, b, b)
	VADDPS(b, square, square)
}

// weighSquares fills scratchMore, and scratchW with the squares of the elements
// unless there are weights.
func (s *search) weighSquares(own reg.GPVirtual) {
	s.each("weigh", 0, 1, func(i reg.Register, offset int) {
		x := s.load(s.at(scratchX, i, offset))
		w := s.reg()
		VMULPS(x, x, w)
		if own != nil {
			TESTQ(own, own)
			JNZ(LabelRef("squares"))
			VMOVUPS(s.at(scratchW, i, offset), w)
			Label("squares")
		}
		VMOVUPS(w, s.at(scratchW, i, offset))
		VMULPS(x, w, w)
		VMOVUPS(w, s.at(scratchMore, i, offset))
	})
}

func (l lanes) fitSigned() {
	l.begin("FitSigned", "func(fit, scratch, tries *float32, size, own int, lo, hi float32)",
		fmt.Sprintf("searches %d groups of size elements, a multiple of 4, for their scales.", l.floats()))
	tries, own := pointer("tries"), pointer("own")
	s := l.newSearch()
	s.weighSquares(own)
	largest, none := s.furthest()
	if !s.wide() {
		VMOVUPS(none, s.state(0))
	}
	mixed, square, inverse := s.reg(), s.reg(), s.reg()
	sums := func(label string, n Op) {
		VBROADCASTSS(n, inverse)
		VDIVPS(largest, inverse, inverse)
		VXORPS(mixed.AsY(), mixed.AsY(), mixed.AsY())
		VXORPS(square.AsY(), square.AsY(), square.AsY())
		s.each(label, 0, 4, func(i reg.Register, offset int) {
			x := s.reg()
			VMULPS(s.at(scratchX, i, offset), inverse, x)
			s.code(x)
			s.addCodes(i, offset, x, mixed, square)
		})
	}
	sums("first", Mem{Base: tries})
	scale, best, found := s.reg(), s.reg(), s.reg()
	VDIVPS(square, mixed, scale)
	s.drop(s.compare(equal, square, s.zero()), scale)
	VMULPS(mixed, scale, best)
	VMOVAPS(inverse, found)

	try := GP64()
	MOVQ(I32(18), try)
	Label("try")
	ADDQ(Imm(4), tries)
	sums("again", Mem{Base: tries})
	a, b := s.reg(), s.reg()
	VMULPS(mixed, mixed, a)
	VMULPS(square, best, b)
	better := s.compare(greater, a, b)
	s.both(s.compare(greater, square, s.zero()), better)
	VDIVPS(square, mixed, a)
	VMULPS(mixed, a, b)
	s.choose(better, a, scale)
	s.choose(better, b, best)
	s.choose(better, inverse, found)
	DECQ(try)
	JNZ(LabelRef("try"))

	if !s.wide() {
		none = s.load(s.state(0))
	}
	s.drop(none, scale)
	s.drop(none, found)
	VMOVUPS(scale, Mem{Base: s.fit})
	VMOVUPS(found, Mem{Base: s.fit, Disp: fitInverse})
	end()
}

func (l lanes) fitDescent() {
	l.begin("FitDescent", "func(fit, scratch *float32, size int, first, lo, hi float32)",
		fmt.Sprintf("searches %d groups of size elements for their scales, code by code.", l.floats()))
	s := l.newSearch()
	s.weighSquares(nil)
	largest, none := s.furthest()
	if !s.wide() {
		VMOVUPS(none, s.state(0))
	}
	mixed, square, inverse := s.zero(), s.zero(), s.param("first")
	VDIVPS(largest, inverse, inverse)
	s.each("first", 0, 1, func(i reg.Register, offset int) {
		x := s.reg()
		VMULPS(s.at(scratchX, i, offset), inverse, x)
		s.code(x)
		VMOVUPS(x, s.at(scratchCodes, i, offset))
		s.addCodes(i, offset, x, mixed, square)
	})
	pass, changes := GP64(), GP32()
	MOVQ(I32(5), pass)
	Label("pass")
	XORL(changes, changes)
	s.each("element", 0, 1, func(i reg.Register, offset int) {
		// m and k are the sums without the element, and then with its new code.
		old := s.load(s.at(scratchCodes, i, offset))
		m, k, t := s.reg(), s.reg(), s.reg()
		VMULPS(s.at(scratchMore, i, offset), old, t)
		VSUBPS(t, mixed, m)
		VMULPS(s.at(scratchW, i, offset), old, t)
		VMULPS(old, t, t)
		VSUBPS(t, square, k)
		better := s.compare(greater, m, s.zero())
		code := s.reg()
		VMULPS(s.at(scratchX, i, offset), k, code)
		VDIVPS(m, code, code)
		s.code(code)
		s.both(s.compare(notEqual, code, old), better)
		// Mostly no code changes, and then the next element need not wait for this one.
		bits := GP32()
		if s.wide() {
			KMOVW(better, bits)
		} else {
			VMOVMSKPS(better, bits)
		}
		TESTL(bits, bits)
		JZ(LabelRef("same"))
		s.addCodes(i, offset, code, m, k)
		s.both(s.compare(greater, k, s.zero()), better)
		a, b := s.reg(), s.reg()
		VMULPS(m, m, a)
		VMULPS(square, a, a)
		VMULPS(mixed, mixed, b)
		VMULPS(k, b, b)
		s.both(s.compare(greater, a, b), better)
		s.choose(better, code, old)
		VMOVUPS(old, s.at(scratchCodes, i, offset))
		s.choose(better, m, mixed)
		s.choose(better, k, square)
		if s.wide() {
			KMOVW(better, bits)
		} else {
			VMOVMSKPS(better, bits)
		}
		ORL(bits, changes)
		Label("same")
	})
	TESTL(changes, changes)
	JZ(LabelRef("settled"))
	DECQ(pass)
	JNZ(LabelRef("pass"))
	Label("settled")
	scale, zero := s.zero(), s.zero()
	t := s.reg()
	VDIVPS(square, mixed, t)
	s.choose(s.compare(greater, square, zero), t, scale)
	if !s.wide() {
		none = s.load(s.state(0))
	}
	s.drop(none, scale)
	VMOVUPS(scale, Mem{Base: s.fit})
	end()
}

// What fitRange keeps in memory.
const (
	stateHigh = iota
	stateBottom
	stateWeight
	stateSum
	stateBest
	stateScale
	stateInverse
	stateOrigin
)

func (l lanes) fitRange(name string, absolute bool) {
	doc := fmt.Sprintf("searches %d groups of size elements, a multiple of 4, for their scales and low ends.", l.floats())
	l.begin(name, "func(fit, scratch, tries *float32, steps, size, own int, count, levels, lo, hi float32)", doc)
	tries, steps, own := pointer("tries"), pointer("steps"), pointer("own")
	s := l.newSearch()

	TESTQ(own, own)
	JZ(LabelRef("weighed"))
	rms := s.zero()
	if !absolute {
		s.each("squares", 0, 1, func(i reg.Register, offset int) {
			x := s.load(s.at(scratchX, i, offset))
			VMULPS(x, x, x)
			VADDPS(x, rms, rms)
		})
		VDIVPS(s.param("count"), rms, rms)
		VSQRTPS(rms, rms)
	}
	mask := s.inReg(floatOf(0x7fffffff))
	s.each("weigh", 0, 1, func(i reg.Register, offset int) {
		w := s.reg()
		VANDPS(s.at(scratchX, i, offset), mask, w)
		if !absolute {
			VADDPS(w, rms, w)
		}
		VMOVUPS(w, s.at(scratchW, i, offset))
	})
	Label("weighed")

	low, high := s.load(Mem{Base: s.scratch}), s.load(Mem{Base: s.scratch})
	weight, sum := s.load(Mem{Base: s.scratch, Disp: scratchW}), s.reg()
	VMULPS(low, weight, sum)
	s.each("span", 1, 1, func(i reg.Register, offset int) {
		x, w := s.load(s.at(scratchX, i, offset)), s.load(s.at(scratchW, i, offset))
		VMINPS(low, x, low)
		VMAXPS(high, x, high)
		VADDPS(w, weight, weight)
		VMULPS(x, w, w)
		VADDPS(w, sum, sum)
	})
	VMINPS(low, s.zero(), low)
	VMOVUPS(high, s.state(stateHigh))
	VMOVUPS(low, s.state(stateBottom))
	VMOVUPS(weight, s.state(stateWeight))
	VMOVUPS(weight, Mem{Base: s.fit, Disp: fitWeight})
	VMOVUPS(sum, s.state(stateSum))

	// errors adds up those of the codes in scratchCodes.
	errors := func(label string, scale, low reg.VecVirtual) reg.VecVirtual {
		err := s.zero()
		s.each(label, 0, 4, func(i reg.Register, offset int) {
			d := s.reg()
			VMULPS(s.at(scratchCodes, i, offset), scale, d)
			VADDPS(low, d, d)
			VSUBPS(s.at(scratchX, i, offset), d, d)
			if absolute {
				s.absolute(d)
			} else {
				VMULPS(d, d, d)
			}
			VMULPS(s.at(scratchW, i, offset), d, d)
			VADDPS(d, err, err)
		})
		return err
	}
	tried := s.param("levels")
	span := s.reg()
	VSUBPS(low, high, span)
	VDIVPS(span, tried, tried)
	VMOVUPS(tried, s.state(stateInverse))
	VMOVUPS(low, s.state(stateOrigin))
	s.each("first", 0, 4, func(i reg.Register, offset int) {
		x := s.load(s.at(scratchX, i, offset))
		VSUBPS(low, x, x)
		VMULPS(tried, x, x)
		s.code(x)
		VMOVUPS(x, s.at(scratchCodes, i, offset))
	})
	scale := s.inReg(1)
	VDIVPS(tried, scale, scale)
	VMOVUPS(scale, s.state(stateScale))
	VMOVUPS(errors("firstErrors", scale, low), s.state(stateBest))

	Label("step")
	VBROADCASTSS(Mem{Base: tries}, tried)
	ADDQ(Imm(4), tries)
	VMOVUPS(s.state(stateHigh), span)
	VSUBPS(low, span, span)
	VDIVPS(span, tried, tried)
	sumL, squareL, mixed := s.zero(), s.zero(), s.zero()
	s.each("codes", 0, 4, func(i reg.Register, offset int) {
		x, w := s.reg(), s.reg()
		VMOVUPS(s.at(scratchX, i, offset), x)
		VSUBPS(low, x, x)
		VMULPS(tried, x, x)
		s.code(x)
		VMOVUPS(x, s.at(scratchCodes, i, offset))
		VMULPS(s.at(scratchW, i, offset), x, w)
		VADDPS(w, sumL, sumL)
		VMULPS(w, x, x)
		VADDPS(x, squareL, squareL)
		VMULPS(s.at(scratchX, i, offset), w, w)
		VADDPS(w, mixed, mixed)
	})
	// Weighted least squares; with the low end kept from rising above zero.
	det, newScale, newLow, t := s.reg(), s.reg(), s.reg(), s.reg()
	VMULPS(s.state(stateWeight), squareL, det)
	VMULPS(sumL, sumL, t)
	VSUBPS(t, det, det)
	VMULPS(s.state(stateWeight), mixed, newScale)
	VMULPS(s.state(stateSum), sumL, t)
	VSUBPS(t, newScale, newScale)
	VDIVPS(det, newScale, newScale)
	VMULPS(s.state(stateSum), squareL, newLow)
	VMULPS(mixed, sumL, t)
	VSUBPS(t, newLow, newLow)
	VDIVPS(det, newLow, newLow)
	zero := s.zero()
	better := s.compare(greater, det, zero)
	above := s.compare(greater, newLow, zero)
	VDIVPS(squareL, mixed, t)
	s.choose(above, t, newScale)
	s.drop(above, newLow)
	err := errors("errors", newScale, newLow)
	best := s.load(s.state(stateBest))
	s.both(s.compare(lessThan, err, best), better)
	keep := func(state int, v reg.VecVirtual) {
		old := s.load(s.state(state))
		s.choose(better, v, old)
		VMOVUPS(old, s.state(state))
	}
	keep(stateBest, err)
	keep(stateScale, newScale)
	keep(stateInverse, tried)
	keep(stateOrigin, low)
	s.choose(better, newLow, low)
	DECQ(steps)
	JNZ(LabelRef("step"))

	// Groups of one value, and that not above zero, have no scale.
	bottom := s.load(s.state(stateBottom))
	flat := s.compare(equal, bottom, s.state(stateHigh))
	s.choose(flat, bottom, low)
	for _, part := range [][2]int{{stateScale, 0}, {stateInverse, fitInverse}, {stateOrigin, fitOrigin}} {
		v := s.load(s.state(part[0]))
		s.drop(flat, v)
		VMOVUPS(v, Mem{Base: s.fit, Disp: part[1]})
	}
	if s.wide() {
		VXORPS(s.inReg(floatOf(1<<31)), low, low)
	} else {
		VXORPS(s.data(floatOf(1<<31)), low, low)
	}
	VMOVUPS(low, Mem{Base: s.fit, Disp: fitLow})
	end()
}

func (l lanes) weigh() {
	l.begin("Weigh", "func(weights, x, importance *float32, spread float32, n int)",
		"multiplies importance by the square root of the sum of spread and the square of x.")
	weights, x, importance, n := pointer("weights"), pointer("x"), pointer("importance"), pointer("n")
	spread := l.param("spread")
	l.loop(n, 2, func(a at) {
		v := a.load(x)
		VMULPS(v, v, v)
		VADDPS(v, spread, v)
		VSQRTPS(v, v)
		VMULPS(a.from(importance), v, v)
		a.store(v, weights)
	})
	end()
}

// round makes the loop that divides groups by their scales.
func (l lanes) round(name string, low bool) {
	params, doc := "codes *byte, x, scales *float32, groups, size int, lo, hi float32, levels int", "divides groups of size elements, a multiple of 16, by their scales and rounds to codes."
	if low {
		params, doc = "codes *byte, x, scales, lows *float32, groups, size int, lo, hi float32", "adds to groups of size elements, a multiple of 16, their low ends, divides by their scales and rounds to codes."
	}
	l.begin(name, "func("+params+")", doc)
	codes, x, scales, groups, size := pointer("codes"), pointer("x"), pointer("scales"), pointer("groups"), pointer("size")
	var lows reg.GPVirtual
	if low {
		lows = pointer("lows")
	}
	s := &search{lanes: l}
	s.rounding()
	add := s.reg()
	if !low {
		levels := XMM()
		VMOVD(Load(Param("levels"), GP64()).(reg.GPVirtual).As32(), levels)
		VPBROADCASTD(levels, add)
	}
	Label("group")
	left, bits := GP64(), GP32()
	MOVQ(size, left)
	MOVL(Mem{Base: scales}, bits)
	ADDL(bits, bits)
	JNZ(LabelRef("divide"))
	LEAQ(Mem{Base: x, Index: size, Scale: 4}, x)
	ADDQ(size, codes)
	JMP(LabelRef("next"))
	Label("divide")
	scale, bottom := s.reg(), s.reg()
	VBROADCASTSS(Mem{Base: scales}, scale)
	if low {
		VBROADCASTSS(Mem{Base: lows}, bottom)
	}
	code := func(at int) reg.VecVirtual {
		v := s.load(Mem{Base: x, Disp: at})
		if low {
			VADDPS(bottom, v, v)
		}
		VDIVPS(scale, v, v)
		s.nearest(v)
		VMAXPS(s.lo, v, v)
		VMINPS(s.hi, v, v)
		if !low {
			VPADDD(add, v, v)
		}
		return v
	}
	Label("loop")
	if s.wide() {
		VPMOVDB(code(0), Mem{Base: codes})
	} else {
		// The last byte of each number, in order.
		a, b := code(0), code(32)
		VPSHUFB(lastBytes(), a, a)
		VPSHUFB(lastBytes(), b, b)
		ax, bx := XMM(), XMM()
		VEXTRACTI128(Imm(1), a, ax)
		VPUNPCKLDQ(ax, a.AsX(), ax)
		VEXTRACTI128(Imm(1), b, bx)
		VPUNPCKLDQ(bx, b.AsX(), bx)
		VPUNPCKLQDQ(bx, ax, ax)
		VMOVDQU(ax, Mem{Base: codes})
	}
	ADDQ(Imm(64), x)
	ADDQ(Imm(16), codes)
	SUBQ(Imm(16), left)
	JNZ(LabelRef("loop"))
	Label("next")
	ADDQ(Imm(4), scales)
	if low {
		ADDQ(Imm(4), lows)
	}
	DECQ(groups)
	JNZ(LabelRef("group"))
	end()
}

// lastBytes brings the last byte of each of four numbers together.
func lastBytes() Mem {
	if m, ok := constants["lastBytes"]; ok {
		return m
	}
	const none = 0x80808080
	m := words("lastBytes", 0x0c080400, none, none, none, 0x0c080400, none, none, none)
	constants["lastBytes"] = m
	return m
}
