package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// notLess is a predicate of VCMPPS: quiet, true for NaN.
const notLess = 21

// table16 is a kernel.Table16 in registers, as far as there are enough.
type table16 struct {
	l        lanes
	at       reg.GPVirtual
	root     reg.VecVirtual
	one, two Op

	heap, values   reg.VecVirtual // of AVX-512 alone
	heaps, valuesM [2]Mem         // of AVX2: halves
}

func (l lanes) loadTable16() *table16 {
	t := &table16{l: l, at: pointer("table"), root: l.reg(), one: l.word(1), two: l.word(2)}
	VBROADCASTSS(Mem{Base: t.at, Disp: 4}, t.root)
	if l.wide() {
		t.heap, t.values = ZMM(), ZMM()
		VMOVUPS(Mem{Base: t.at}, t.heap)
		VMOVUPS(Mem{Base: t.at, Disp: 64}, t.values)
	} else {
		for i := range 2 {
			t.heaps[i], t.valuesM[i] = Mem{Base: t.at, Disp: 32 * i}, Mem{Base: t.at, Disp: 64 + 32*i}
		}
	}
	return t
}

// node goes down the tree; the low four bits of what it comes to are the number of the
// value nearest to x.
func (t *table16) node(x reg.VecVirtual) reg.VecVirtual {
	j, m := t.l.reg(), t.l.reg()
	if t.l.wide() {
		k := K()
		VCMPPS(Imm(notLess), t.root, x, k)
		VMOVDQA32(t.two.(reg.VecVirtual), j)
		VPADDD(t.one, j, k, j)
		for range 3 {
			VPERMPS(t.heap, j, m)
			VCMPPS(Imm(notLess), m, x, k)
			VPADDD(j, j, j)
			VPADDD(t.one, j, k, j)
		}
		return j
	}
	VCMPPS(Imm(notLess), t.root, x, m)
	VMOVDQU(t.two, j)
	VPSUBD(m, j, j)
	for level := range 3 {
		// Nodes 2 to 7 are in the first half of the heap, 8 to 15 in the second, where
		// the permutation finds them by the low three bits.
		VPERMPS(t.heaps[level/2], j, m)
		VCMPPS(Imm(notLess), m, x, m)
		VPADDD(j, j, j)
		VPSUBD(m, j, j)
	}
	return j
}

// value is that of a node.
func (t *table16) value(j reg.VecVirtual) reg.VecVirtual {
	v := t.l.reg()
	if t.l.wide() {
		VPERMPS(t.values, j, v)
		return v
	}
	m := YMM()
	VPERMPS(t.valuesM[0], j, v)
	VPERMPS(t.valuesM[1], j, m)
	VPSLLD(Imm(28), j, j)
	VBLENDVPS(j, m, v, v)
	return v
}

// fit16 has a scale in each lane.
func (l lanes) fit16() {
	l.begin("Fit16", "func(sums, table, inverse, x, weights *float32)", "adds up, for 16 scales, products of 32 elements and the values of a table nearest to them.")
	sums, inverse, from, weights := pointer("sums"), pointer("inverse"), pointer("x"), pointer("weights")
	t := l.loadTable16()
	i := GP64()
	// The lanes of AVX2 take two turns.
	for at := 0; at < 64; at += l.bytes {
		label := "first"
		if at > 0 {
			label = "second"
		}
		id, acc := l.reg(), l.zeros(2)
		VMOVUPS(Mem{Base: inverse, Disp: at}, id)
		MOVQ(I32(-128), i)
		if at == 0 {
			ADDQ(Imm(128), from)
			ADDQ(Imm(128), weights)
		}
		Label(label)
		x, s := l.reg(), l.reg()
		VBROADCASTSS(Mem{Base: from, Index: i, Scale: 1}, x)
		VMULPS(id, x, s)
		q, wq := t.value(t.node(s)), l.reg()
		VBROADCASTSS(Mem{Base: weights, Index: i, Scale: 1}, wq)
		VMULPS(q, wq, wq)
		addProduct(x, acc[0], wq, x)
		addProduct(q, acc[1], wq, q)
		ADDQ(Imm(4), i)
		JNZ(LabelRef(label))
		VMOVUPS(acc[0], Mem{Base: sums, Disp: at})
		VMOVUPS(acc[1], Mem{Base: sums, Disp: 64 + at})
	}
	end()
}

func (l lanes) nibbles16() {
	l.begin("Nibbles16", "func(dst *byte, table, x *float32, inverse float32)", "stores the numbers of the values of a table nearest to 32 elements.")
	b := &block{l: l, dst: pointer("dst"), from: pointer("x")}
	t, id, low, four := l.loadTable16(), l.param("inverse"), l.data(floatOf(0xff)), l.data(floatOf(repeated(15)))
	var nodes []reg.VecVirtual
	for at := 0; at < 32; at += l.floats() {
		x := l.reg()
		VMULPS(Mem{Base: b.from, Disp: 4 * at}, id, x)
		nodes = append(nodes, t.node(x))
	}
	q := b.bytesOf(nodes, low)
	VPAND(four, q, q)
	b.putLevels(q, false, 0, four)
	end()
}
