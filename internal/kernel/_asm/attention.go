package main

import (
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["attention"] = attention }

// attention has the passes over a row of scores, and products of a vector with rows
// of a matrix. They take any number of elements.
func attention() {
	constants := attentionConstants()
	for _, w := range []*attentionWidth{{suffix: "AVX2", lanes: 8}, {suffix: "AVX512", lanes: 16}} {
		w.constants = constants
		w.masks = constants.Offset(4 * len(attentionNumbers))
		w.maxRow()
		w.expRow()
		w.gradRow()
		w.scaleRow()
		w.dotRows()
		w.addRows()
	}
}

// The numbers that e^x is made of, as kernel.Exp has them.
const (
	cLog2e = iota
	cLn2Hi
	cLn2Lo
	cP0
	cP1
	cP2
	cP3
	cP4
	cP5
	cOne
	cLow
	cHigh
	cBias
)

var attentionNumbers = []float32{
	1.44269504088896341, 0.693359375, -2.12194440e-4,
	1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
	1, -87.33654, 88, math.Float32frombits(127),
}

// attentionConstants writes the numbers, and then eight ones and eight zeros that
// masks are cut from.
func attentionConstants() Mem {
	m := GLOBL("attentionConstants", attr.RODATA|attr.NOPTR)
	at := 0
	for _, x := range attentionNumbers {
		DATA(at, U32(math.Float32bits(x)))
		at += 4
	}
	for i := range 16 {
		x := ^uint32(0)
		if i >= 8 {
			x = 0
		}
		DATA(at, U32(x))
		at += 4
	}
	return m
}

// attentionWidth writes loops with vectors of some width.
type attentionWidth struct {
	suffix           string
	lanes            int
	constants, masks Mem

	mask reg.Register // of the elements that are left, in a tail
}

func (w *attentionWidth) begin(name, signature, doc string) {
	TEXT(name+w.suffix, NOSPLIT, "func("+signature)
	Doc(name + w.suffix + " " + doc)
	Pragma("noescape")
}

func (w *attentionWidth) end() {
	VZEROUPPER()
	RET()
}

func (w *attentionWidth) bytes() int { return 4 * w.lanes }

func (w *attentionWidth) vec() reg.VecVirtual {
	if w.lanes == 16 {
		return ZMM()
	}
	return YMM()
}

func (w *attentionWidth) zero() reg.VecVirtual {
	v := w.vec()
	if w.lanes == 16 {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
	return v
}

// spread loads one number into all lanes.
func (w *attentionWidth) spread(m Op) reg.VecVirtual {
	v := w.vec()
	VBROADCASTSS(m, v)
	return v
}

// cut sets the mask to the first n elements, fewer than a vector has.
func (w *attentionWidth) cut(n reg.GPVirtual) {
	t := GP64()
	if w.lanes == 16 {
		MOVQ(n, reg.RCX)
		MOVQ(U32(1), t)
		SHLQ(reg.CL, t)
		DECQ(t)
		k := K()
		KMOVW(t.As32(), k)
		w.mask = k
		return
	}
	base, m := GP64(), YMM()
	LEAQ(w.masks.Offset(32), base)
	MOVQ(n, t)
	SHLQ(Imm(2), t)
	SUBQ(t, base)
	VMOVUPS(Mem{Base: base}, m)
	w.mask = m
}

// load reads a vector, in a tail only what the mask has, and 0 for the rest.
func (w *attentionWidth) load(m Mem, v reg.VecVirtual, tail bool) {
	switch {
	case !tail:
		VMOVUPS(m, v)
	case w.lanes == 16:
		VMOVUPS_Z(m, w.mask, v)
	default:
		VMASKMOVPS(m, w.mask, v)
	}
}

func (w *attentionWidth) store(v reg.VecVirtual, m Mem, tail bool) {
	switch {
	case !tail:
		VMOVUPS(v, m)
	case w.lanes == 16:
		VMOVUPS(v, w.mask, m)
	default:
		VMASKMOVPS(v, w.mask, m)
	}
}

// keep sets to 0 what the mask does not have.
func (w *attentionWidth) keep(v reg.VecVirtual) {
	if w.lanes == 16 {
		VMOVAPS_Z(v, w.mask, v)
	} else {
		VANDPS(w.mask, v, v)
	}
}

// each writes a loop over n elements at pointers, which it moves on; n is used up.
func (w *attentionWidth) each(name string, n reg.GPVirtual, body func(tail bool), pointers ...reg.GPVirtual) {
	Label(name)
	CMPQ(n, Imm(uint64(w.lanes)))
	JB(LabelRef(name + "Tail"))
	body(false)
	for _, p := range pointers {
		ADDQ(Imm(uint64(w.bytes())), p)
	}
	SUBQ(Imm(uint64(w.lanes)), n)
	JMP(LabelRef(name))
	Label(name + "Tail")
	TESTQ(n, n)
	JZ(LabelRef(name + "Done"))
	w.cut(n)
	body(true)
	Label(name + "Done")
}

// fold combines the lanes of v into one.
func (w *attentionWidth) fold(v reg.VecVirtual, op func(ops ...Op)) reg.VecVirtual {
	if w.lanes == 16 {
		high := YMM()
		VEXTRACTF64X4(Imm(1), v, high)
		op(v.AsY(), high, high)
		return w.foldY(high, op)
	}
	return w.foldY(v, op)
}

func (w *attentionWidth) foldY(v reg.VecVirtual, op func(ops ...Op)) reg.VecVirtual {
	x, t := XMM(), XMM()
	VEXTRACTF128(Imm(1), v.AsY(), x)
	op(v.AsX(), x, x)
	VMOVHLPS(x, x, t)
	op(t, x, x)
	VMOVSHDUP(x, t)
	op(t, x, x)
	return x
}

func (w *attentionWidth) maxRow() {
	w.begin("MaxRow", "x *float32, n int, scale float32) float32", "returns the greatest of scale*x, of which there are n, at least 1. NaN is left out where it can be.")
	scale := w.spread(NewParamAddr("scale", 16))
	x, n := Load(Param("x"), GP64()).(reg.GPVirtual), Load(Param("n"), GP64()).(reg.GPVirtual)
	top := w.vec()
	VBROADCASTSS(Mem{Base: x}, top)
	VMULPS(scale, top, top)
	w.each("row", n, func(tail bool) {
		v := w.vec()
		w.load(Mem{Base: x}, v, tail)
		VMULPS(scale, v, v)
		switch {
		case !tail:
			VMAXPS(top, v, top)
		case w.lanes == 16:
			VMAXPS(top, v, w.mask, top)
		default:
			VMAXPS(top, v, v)
			VBLENDVPS(w.mask, v, top, top)
		}
	}, x)
	Store(w.fold(top, func(ops ...Op) { VMAXPS(ops[0], ops[1], ops[2]) }), ReturnIndex(0))
	w.end()
}

func (w *attentionWidth) expRow() {
	w.begin("ExpRow", "x *float32, n int, scale, top float32) float32",
		"replaces x, of which there are n, by e^(scale*x - top) and returns the sum. What would be subnormal becomes 0; exponents over 88 count as 88.")
	scale, top := w.spread(NewParamAddr("scale", 16)), w.spread(NewParamAddr("top", 20))
	x, n := Load(Param("x"), GP64()).(reg.GPVirtual), Load(Param("n"), GP64()).(reg.GPVirtual)
	number := func(i int) Op { return w.spread(w.constants.Offset(4 * i)) }
	if w.lanes == 16 { // which has the registers to keep them
		var kept [cBias + 1]Op
		for i := range kept {
			kept[i] = number(i)
		}
		number = func(i int) Op { return kept[i] }
	}
	sum := w.zero()
	w.each("row", n, func(tail bool) {
		v, k, r, square, y := w.vec(), w.vec(), w.vec(), w.vec(), w.vec()
		w.load(Mem{Base: x}, v, tail)
		VFMSUB132PS(scale, top, v)
		// Of two numbers of which one is NaN, VMINPS takes the second source, which
		// Go's order has first.
		VMINPS(v, number(cHigh), v)
		VMULPS(number(cLog2e), v, k)
		if w.lanes == 16 {
			VRNDSCALEPS(Imm(8), k, k)
		} else {
			VROUNDPS(Imm(8), k, k)
		}
		VMOVAPS(v, r)
		VFNMADD231PS(number(cLn2Hi), k, r)
		VFNMADD231PS(number(cLn2Lo), k, r)
		VMOVAPS(number(cP0), y)
		for p := cP1; p <= cP5; p++ {
			VFMADD213PS(number(p), r, y)
		}
		VMULPS(r, r, square)
		VFMADD213PS(r, square, y)
		VADDPS(number(cOne), y, y)
		// What is not less than the least normal number stays, and NaN.
		const notLess = 0x15
		if w.lanes == 16 {
			VSCALEFPS(k, y, y)
			big := K()
			VCMPPS(Imm(notLess), number(cLow), v, big)
			VMOVAPS_Z(y, big, y)
		} else {
			VCVTPS2DQ(k, k)
			VPADDD(number(cBias), k, k)
			VPSLLD(Imm(23), k, k)
			VMULPS(k, y, y)
			VCMPPS(Imm(notLess), number(cLow), v, v)
			VANDPS(v, y, y)
		}
		w.store(y, Mem{Base: x}, tail)
		if tail {
			w.keep(y)
		}
		VADDPS(y, sum, sum)
	}, x)
	Store(w.fold(sum, func(ops ...Op) { VADDPS(ops[0], ops[1], ops[2]) }), ReturnIndex(0))
	w.end()
}

func (w *attentionWidth) gradRow() {
	w.begin("GradRow", "dp, p *float32, n int, dot, scale float32)", "replaces dp, of which there are n, by scale*p*(dp-dot).")
	dot, scale := w.spread(NewParamAddr("dot", 24)), w.spread(NewParamAddr("scale", 28))
	dp, p := Load(Param("dp"), GP64()).(reg.GPVirtual), Load(Param("p"), GP64()).(reg.GPVirtual)
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	w.each("row", n, func(tail bool) {
		v, u := w.vec(), w.vec()
		w.load(Mem{Base: dp}, v, tail)
		w.load(Mem{Base: p}, u, tail)
		VSUBPS(dot, v, v)
		VMULPS(scale, u, u)
		VMULPS(u, v, v)
		w.store(v, Mem{Base: dp}, tail)
	}, dp, p)
	w.end()
}

func (w *attentionWidth) scaleRow() {
	w.begin("ScaleRow", "x *float32, n int, s float32)", "multiplies x, of which there are n, by s.")
	s := w.spread(NewParamAddr("s", 16))
	x, n := Load(Param("x"), GP64()).(reg.GPVirtual), Load(Param("n"), GP64()).(reg.GPVirtual)
	w.each("row", n, func(tail bool) {
		v := w.vec()
		w.load(Mem{Base: x}, v, tail)
		VMULPS(s, v, v)
		w.store(v, Mem{Base: x}, tail)
	}, x)
	w.end()
}

// dotRows takes four rows at a time, so that as many sums are under way.
func (w *attentionWidth) dotRows() {
	w.begin("DotRows", "s, x, y *float32, ld, rows, d int)",
		"sets s to the dot products of the d elements of x with rows of y, which are ld elements apart.")
	s, y := Load(Param("s"), GP64()).(reg.GPVirtual), Load(Param("y"), GP64()).(reg.GPVirtual)
	ld, rows := Load(Param("ld"), GP64()).(reg.GPVirtual), Load(Param("rows"), GP64()).(reg.GPVirtual)
	x, n, far := GP64(), GP64(), GP64()
	SHLQ(Imm(2), ld)
	add := func(ops ...Op) { VADDPS(ops[0], ops[1], ops[2]) }
	block := func(name string, count int) {
		Label(name)
		CMPQ(rows, Imm(uint64(count)))
		JB(LabelRef(name + "End"))
		sums := make([]reg.VecVirtual, count)
		at := make([]Mem, count)
		for i := range sums {
			sums[i] = w.zero()
		}
		at[0] = Mem{Base: y}
		moving := []reg.GPVirtual{x, y}
		if count == 4 {
			LEAQ(Mem{Base: y, Index: ld, Scale: 2}, far)
			at[1], at[2], at[3] = Mem{Base: y, Index: ld, Scale: 1}, Mem{Base: far}, Mem{Base: far, Index: ld, Scale: 1}
			moving = append(moving, far)
		}
		begin := GP64()
		MOVQ(y, begin)
		Load(Param("x"), x)
		Load(Param("d"), n)
		w.each(name+"Columns", n, func(tail bool) {
			u := w.vec()
			w.load(Mem{Base: x}, u, tail)
			for i, m := range at {
				if tail {
					v := w.vec()
					w.load(m, v, true)
					VFMADD231PS(v, u, sums[i])
				} else {
					VFMADD231PS(m, u, sums[i])
				}
			}
		}, moving...)
		for i, v := range sums {
			VMOVSS(w.fold(v, add), Mem{Base: s, Disp: 4 * i})
		}
		ADDQ(Imm(uint64(4*count)), s)
		if count == 4 {
			LEAQ(Mem{Base: begin, Index: ld, Scale: 4}, y)
		} else {
			LEAQ(Mem{Base: begin, Index: ld, Scale: 1}, y)
		}
		SUBQ(Imm(uint64(count)), rows)
		JMP(LabelRef(name))
		Label(name + "End")
	}
	block("four", 4)
	block("one", 1)
	w.end()
}

// addRows keeps up to eight vectors of y in registers while it passes over the rows.
func (w *attentionWidth) addRows() {
	w.begin("AddRows", "y, w, x *float32, ld, rows, d int)",
		"adds to the d elements of y the rows of x, which are ld elements apart, times w.")
	y, x := Load(Param("y"), GP64()).(reg.GPVirtual), Load(Param("x"), GP64()).(reg.GPVirtual)
	ld, d := Load(Param("ld"), GP64()).(reg.GPVirtual), Load(Param("d"), GP64()).(reg.GPVirtual)
	weight, at, rows := GP64(), GP64(), GP64()
	SHLQ(Imm(2), ld)
	// columns adds to some vectors of y; in a tail to part of one.
	columns := func(name string, count int, tail bool) {
		sums := make([]reg.VecVirtual, count)
		for i := range sums {
			sums[i] = w.vec()
			w.load(Mem{Base: y, Disp: i * w.bytes()}, sums[i], tail)
		}
		Load(Param("w"), weight)
		Load(Param("rows"), rows)
		MOVQ(x, at)
		Label(name + "Rows")
		TESTQ(rows, rows)
		JZ(LabelRef(name + "Store"))
		s := w.spread(Mem{Base: weight})
		for i, sum := range sums {
			m := Mem{Base: at, Disp: i * w.bytes()}
			if tail {
				v := w.vec()
				w.load(m, v, true)
				VFMADD231PS(v, s, sum)
			} else {
				VFMADD231PS(m, s, sum)
			}
		}
		ADDQ(Imm(4), weight)
		ADDQ(ld, at)
		DECQ(rows)
		JMP(LabelRef(name + "Rows"))
		Label(name + "Store")
		for i, sum := range sums {
			w.store(sum, Mem{Base: y, Disp: i * w.bytes()}, tail)
		}
	}
	for _, c := range []struct {
		name  string
		count int
	}{{"eight", 8}, {"one", 1}} {
		Label(c.name)
		CMPQ(d, Imm(uint64(c.count*w.lanes)))
		JB(LabelRef(c.name + "End"))
		columns(c.name, c.count, false)
		ADDQ(U32(c.count*w.bytes()), x)
		ADDQ(U32(c.count*w.bytes()), y)
		SUBQ(U32(c.count*w.lanes), d)
		JMP(LabelRef(c.name))
		Label(c.name + "End")
	}
	TESTQ(d, d)
	JZ(LabelRef("done"))
	w.cut(d)
	columns("tail", 1, true)
	Label("done")
	w.end()
}
