package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// lanes is an instruction set, by the width of its vectors.
type lanes struct {
	name  string
	bytes int
}

var (
	avx2   = lanes{"AVX2", 32}
	avx512 = lanes{"AVX512", 64}
)

func (l lanes) floats() int { return l.bytes / 4 }

func (l lanes) wide() bool { return l.bytes == 64 }

// reg returns a new vector register.
func (l lanes) reg() reg.VecVirtual {
	if l.wide() {
		return ZMM()
	}
	return YMM()
}

// begin starts a function and loads its pointers and counts in order. Arguments that
// are floats are for l.param.
func (l lanes) begin(name, signature, doc string) {
	TEXT(name+l.name, NOSPLIT, signature)
	Doc(name + l.name + " " + doc)
	Pragma("noescape")
}

func pointer(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// param has an argument of 32 bits in all lanes.
func (l lanes) param(name string) reg.VecVirtual {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	x := l.reg()
	VBROADCASTSS(a.Addr, x)
	return x
}

// konst is a constant as an operand that may come first in an instruction: a register
// where there are many, memory where there are few. It is to be called ahead of the
// loop.
func (l lanes) konst(v float32) Op {
	if !l.wide() {
		return l.data(v)
	}
	return l.inReg(v)
}

// inReg is a constant in a register.
func (l lanes) inReg(v float32) reg.VecVirtual {
	x := l.reg()
	if l.wide() {
		VBROADCASTSS(l.data(v), x)
	} else {
		VMOVUPS(l.data(v), x)
	}
	return x
}

// constants are the data that exist; avo keeps them per file and so does this.
var constants = map[string]Mem{}

// data is a constant in memory, repeated to fill 32 bytes.
func (l lanes) data(v float32) Mem {
	name := fmt.Sprintf("f%08x", math.Float32bits(v))
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(math.Float32bits(v)))
	}
	constants[name] = m
	return m
}

// tailMasks are what a register of masks is loaded from for 0 to floats-1 elements.
func (l lanes) tailMasks() Mem {
	name := "masks" + l.name
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	if l.wide() {
		for i := range 16 {
			DATA(2*i, U16(1<<i-1))
		}
	} else {
		for i := range 16 {
			v := uint32(0xffffffff)
			if i >= 8 {
				v = 0
			}
			DATA(4*i, U32(v))
		}
	}
	constants[name] = m
	return m
}

// at is where a pass of a loop is: at element index plus offset of each vector. Beyond
// the last whole vector it has a mask.
type at struct {
	l      lanes
	index  reg.Register
	offset int
	mask   Op

	// turn numbers the copies of an unrolled body.
	turn int
}

func (a at) mem(p reg.Register) Mem {
	return Mem{Base: p, Index: a.index, Scale: 4, Disp: 4 * a.offset}
}

// load reads a vector; lanes beyond the end are 0.
func (a at) load(p reg.Register) reg.VecVirtual {
	x := a.l.reg()
	switch {
	case a.mask == nil:
		VMOVUPS(a.mem(p), x)
	case a.l.wide():
		VMOVUPS_Z(a.mem(p), a.mask, x)
	default:
		VMASKMOVPS(a.mem(p), a.mask, x)
	}
	return x
}

// from is an operand for a vector that is read once: memory if the vector is whole.
func (a at) from(p reg.Register) Op {
	if a.mask == nil {
		return a.mem(p)
	}
	return a.load(p)
}

func (a at) store(x, p reg.Register) {
	switch {
	case a.mask == nil:
		VMOVUPS(x, a.mem(p))
	case a.l.wide():
		VMOVUPS(x, a.mask, a.mem(p))
	default:
		VMASKMOVPS(x, a.mask, a.mem(p))
	}
}

// keep sets the lanes of x beyond the end to 0.
func (a at) keep(x reg.VecVirtual) {
	switch {
	case a.mask == nil:
	case a.l.wide():
		VMOVAPS_Z(x, a.mask, x)
	default:
		VANDPS(x, a.mask, x)
	}
}

// loop runs body over n floats: unroll vectors at a time, then one, then what is left
// over under a mask. It changes n.
func (l lanes) loop(n reg.GPVirtual, unroll int, body func(a at)) { l.loopNamed("", n, unroll, body) }

// loopNamed is loop for the functions that have several.
func (l lanes) loopNamed(name string, n reg.GPVirtual, unroll int, body func(a at)) {
	i, end := GP64(), GP64()
	XORQ(i, i)
	for _, u := range []int{unroll, 1} {
		if u == 1 && unroll == 0 {
			break
		}
		step := u * l.floats()
		label := fmt.Sprintf("%sby%d", name, u)
		MOVQ(n, end)
		ANDQ(I32(-step), end)
		CMPQ(i, end)
		JGE(LabelRef(label + "Done"))
		Label(label)
		for t := range u {
			body(at{l: l, index: i, offset: t * l.floats(), turn: t})
		}
		ADDQ(I32(step), i)
		CMPQ(i, end)
		JL(LabelRef(label))
		Label(label + "Done")
		if unroll == 1 {
			break
		}
	}
	SUBQ(i, n)
	JZ(LabelRef(name + "done"))
	table := GP64()
	LEAQ(l.tailMasks(), table)
	a := at{l: l, index: i}
	if l.wide() {
		k := K()
		KMOVW(Mem{Base: table, Index: n, Scale: 2}, k)
		a.mask = k
	} else {
		m, back := YMM(), GP64()
		MOVQ(n, back)
		NEGQ(back)
		VMOVUPS(Mem{Base: table, Index: back, Scale: 4, Disp: 32}, m)
		a.mask = m
	}
	body(a)
	Label(name + "done")
}

// end returns from a function without a result.
func end() {
	VZEROUPPER()
	RET()
}

// fold brings x and y together until one lane has the result: op is applied to the
// halves.
func (l lanes) fold(x reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	if l.wide() {
		high := YMM()
		VEXTRACTF64X4(Imm(1), x, high)
		op(high, x.AsY(), x.AsY())
	}
	high := XMM()
	VEXTRACTF128(Imm(1), x.AsY(), high)
	op(high, x.AsX(), x.AsX())
	VPERMILPD(Imm(1), x.AsX(), high)
	op(high, x.AsX(), x.AsX())
	return high
}

// sum adds up the lanes of float32 accumulators, in a fixed order.
func (l lanes) sum(acc ...reg.VecVirtual) reg.Register {
	x := l.merge(acc, VADDPS)
	high := l.fold(x, VADDPS)
	VMOVSHDUP(x.AsX(), high)
	VADDSS(high, x.AsX(), x.AsX())
	return x.AsX()
}

// sum64 adds up the lanes of float64 accumulators, in a fixed order.
func (l lanes) sum64(acc ...reg.VecVirtual) reg.Register {
	x := l.merge(acc, VADDPD)
	l.fold(x, VADDPD)
	return x.AsX()
}

func (l lanes) merge(acc []reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	for n := len(acc); n > 1; n /= 2 {
		for i := range n / 2 {
			op(acc[i+n/2], acc[i], acc[i])
		}
	}
	return acc[0]
}

// zeros returns n accumulators.
func (l lanes) zeros(n int) []reg.VecVirtual {
	var list []reg.VecVirtual
	for range n {
		x := l.reg()
		if l.wide() {
			VPXORQ(x, x, x)
		} else {
			VXORPS(x, x, x)
		}
		list = append(list, x)
	}
	return list
}

func floatOf(bits uint32) float32 { return math.Float32frombits(bits) }
