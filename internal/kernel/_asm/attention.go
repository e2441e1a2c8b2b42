package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["attention"] = attention }

// attention has the gradient of a row of scores, and products of a vector with rows
// of a matrix. They take any number of elements.
func attention() {
	masks := attentionMasks()
	for _, w := range []*attentionWidth{{suffix: "AVX2", lanes: 8, masks: masks}, {suffix: "AVX512", lanes: 16, masks: masks}} {
		w.gradRow()
		w.dotRows()
		w.addRows()
	}
}

// attentionMasks writes eight ones and eight zeros that masks are cut from.
func attentionMasks() Mem {
	m := GLOBL("attentionMasks", attr.RODATA|attr.NOPTR)
	for i := range 16 {
		x := ^uint32(0)
		if i >= 8 {
			x = 0
		}
		DATA(4*i, U32(x))
	}
	return m
}

// attentionWidth writes loops with vectors of some width.
type attentionWidth struct {
	suffix string
	lanes  int
	masks  Mem

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

// sum adds the lanes of v.
func (w *attentionWidth) sum(v reg.VecVirtual) reg.VecVirtual {
	half := v
	if w.lanes == 16 {
		half = YMM()
		VEXTRACTF64X4(Imm(1), v, half)
		VADDPS(v.AsY(), half, half)
	}
	x, t := XMM(), XMM()
	VEXTRACTF128(Imm(1), half.AsY(), x)
	VADDPS(half.AsX(), x, x)
	VMOVHLPS(x, x, t)
	VADDPS(t, x, x)
	VMOVSHDUP(x, t)
	VADDPS(t, x, x)
	return x
}

func (w *attentionWidth) gradRow() {
	w.begin("GradRow", "dp, p *float32, n int, dot float32)", "replaces dp, of which there are n, by p*(dp-dot).")
	dot := w.spread(NewParamAddr("dot", 24))
	dp, p := Load(Param("dp"), GP64()).(reg.GPVirtual), Load(Param("p"), GP64()).(reg.GPVirtual)
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	w.each("row", n, func(tail bool) {
		v, u := w.vec(), w.vec()
		w.load(Mem{Base: dp}, v, tail)
		w.load(Mem{Base: p}, u, tail)
		VSUBPS(dot, v, v)
		VMULPS(u, v, v)
		w.store(v, Mem{Base: dp}, tail)
	}, dp, p)
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
			VMOVSS(w.sum(v), Mem{Base: s, Disp: 4 * i})
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
	}{{"eight", 8}, {"four", 4}, {"one", 1}} {
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
