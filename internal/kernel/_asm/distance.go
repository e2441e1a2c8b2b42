package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func init() { groups["distance"] = distances }

// distances has the loops that compare values in float64. Both have eight lanes and add
// them up in the same order, so that their results are the same.
func distances() {
	abs := words("magnitudeMask", 0x7fffffff)
	distance("DistanceAVX2", abs, 2, func() VecVirtual { return YMM() })
	distance("DistanceAVX512", abs, 1, func() VecVirtual { return ZMM() })
}

// distance has its eight lanes in so many registers.
func distance(name string, abs Mem, registers int, register func() VecVirtual) {
	TEXT(name, NOSPLIT, "func(out *float64, x, y *float32, n int)")
	Doc(name+" compares n elements, a multiple of 8 and not 0. It writes the sums of the squares of x",
		"and of the differences, the largest of the latter, and, in 4 bytes each, the largest",
		"magnitudes in x and y.")
	Pragma("noescape")
	p := pointers("out", "x", "y", "n")
	out, x, y, n := p[0], p[1], p[2], p[3]

	mask, topX, topY := YMM(), YMM(), YMM()
	VBROADCASTSS(abs, mask)
	VPXOR(topX, topX, topX)
	VPXOR(topY, topY, topY)
	zero := func() VecVirtual {
		r := register()
		if registers == 1 {
			VPXORQ(r, r, r)
		} else {
			VPXOR(r, r, r)
		}
		return r
	}
	var square, err, topErr []VecVirtual
	for range registers {
		square, err, topErr = append(square, zero()), append(err, zero()), append(topErr, zero())
	}
	Label("loop")
	{
		a, b := YMM(), YMM()
		VMOVUPS(Mem{Base: x}, a)
		VMOVUPS(Mem{Base: y}, b)
		VANDPS(mask, a, a)
		VPMAXUD(a, topX, topX)
		VANDPS(mask, b, b)
		VPMAXUD(b, topY, topY)
	}
	for i := range registers {
		u, v := register(), register()
		VCVTPS2PD(Mem{Base: x, Disp: 16 * i}, u)
		VCVTPS2PD(Mem{Base: y, Disp: 16 * i}, v)
		VSUBPD(v, u, v)
		VMULPD(u, u, u)
		VADDPD(u, square[i], square[i])
		VMULPD(v, v, v)
		VADDPD(v, err[i], err[i])
		VMAXPD(v, topErr[i], topErr[i])
	}
	ADDQ(Imm(32), x)
	ADDQ(Imm(32), y)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))

	// fold leaves in the lowest lane what op makes of all.
	fold := func(lanes []VecVirtual, op func(ops ...Op)) VecVirtual {
		half := YMM()
		if registers == 1 {
			VEXTRACTF64X4(Imm(1), lanes[0], half)
			op(half, lanes[0].AsY(), half)
		} else {
			op(lanes[1], lanes[0], half)
		}
		quarter, last := XMM(), XMM()
		VEXTRACTF128(Imm(1), half, quarter)
		op(quarter, half.AsX(), quarter)
		VUNPCKHPD(quarter, quarter, last)
		op(last, quarter, quarter)
		return quarter
	}
	for i, r := range []VecVirtual{fold(square, VADDPD), fold(err, VADDPD), fold(topErr, VMAXPD)} {
		VMOVSD(r.AsX(), Mem{Base: out, Disp: 8 * i})
	}
	for i, top := range []VecVirtual{topX, topY} {
		half, other := XMM(), XMM()
		VEXTRACTI128(Imm(1), top, half)
		VPMAXUD(half, top.AsX(), half)
		VPSRLDQ(Imm(8), half, other)
		VPMAXUD(other, half, half)
		VPSRLDQ(Imm(4), half, other)
		VPMAXUD(other, half, half)
		VMOVD(half, Mem{Base: out, Disp: 24 + 4*i})
	}
	VZEROUPPER()
	RET()
}
