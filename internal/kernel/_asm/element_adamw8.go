package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// adamW8 has what AdamW8 needs beside a step of AdamW. The loops of codes take
// multiples of 16.
func adamW8(l lanes) {
	l.begin("Magnitude", "func(x *float32, n int) uint32", "returns the bits of the greatest magnitude of n elements.")
	x, n := pointer("x"), pointer("n")
	acc, magnitude := l.zeros(4), l.konst(floatOf(0x7fffffff))
	l.loop(n, 4, func(a at) {
		v := a.load(x)
		VANDPS(magnitude, v, v)
		VPMAXUD(v, acc[a.turn], acc[a.turn])
	})
	best := l.merge(acc, VPMAXUD)
	high := l.fold(best, VPMAXUD)
	VMOVSHDUP(best.AsX(), high)
	VPMAXUD(high, best.AsX(), best.AsX())
	top := GP32()
	VMOVD(best.AsX(), top)
	VZEROUPPER()
	Store(top, ReturnIndex(0))
	RET()

	l.begin("Decode8", "func(dst *float32, codes *uint8, values *float32, n int, scale float32)", "writes n values, a multiple of 16: those of the codes times scale.")
	dst, codes, values, n := pointer("dst"), pointer("codes"), pointer("values"), pointer("n")
	scale := l.param("scale")
	l.whole(n, func(i reg.Register) {
		c, v := l.reg(), l.reg()
		VPMOVZXBD(Mem{Base: codes, Index: i, Scale: 1}, c)
		l.gather(values, c, 4, v)
		VMULPS(scale, v, v)
		VMOVUPS(v, Mem{Base: dst, Index: i, Scale: 4})
	})
	end()

	l.begin("Encode8", "func(codes *uint8, x *float32, n int, top float32, first *uint8, bounds *float32, low, keys uint32)", "writes the codes of x/top, n of them, a multiple of 16: first has the lowest by the bits from 16 on, which low is taken from, for keys positive numbers and as many negative.")
	codes, x, n = pointer("codes"), pointer("x"), pointer("n")
	divisor := l.param("top")
	first, bounds := pointer("first"), pointer("bounds")
	low, keys := l.param("low"), l.param("keys")
	last, mask, byteMask := l.reg(), l.bits(0x7fffffff), l.bits(0xff)
	VPADDD(low, keys, last)
	VPSUBD(l.bits(1), last, last)
	l.whole(n, func(i reg.Register) {
		v, k, sign, c, bound := l.reg(), l.reg(), l.reg(), l.reg(), l.reg()
		VMOVUPS(Mem{Base: x, Index: i, Scale: 4}, v)
		VDIVPS(divisor, v, v)
		VPSRAD(Imm(31), v, sign)
		if l.wide() {
			VPANDD(keys, sign, sign)
			VPANDD(mask, v, k)
		} else {
			VPAND(keys, sign, sign)
			VPAND(mask, v, k)
		}
		VPSRLD(Imm(16), k, k)
		VPMAXUD(low, k, k)
		VPMINUD(last, k, k)
		VPSUBD(low, k, k)
		VPADDD(sign, k, k)
		l.gather(first, k, 1, c)
		if l.wide() {
			VPANDD(byteMask, c, c)
		} else {
			VPAND(byteMask, c, c)
		}
		l.gather(bounds, c, 4, bound)
		if l.wide() {
			above := K()
			VCMPPS(Imm(14), bound, v, above) // greater
			VPSUBD(l.onesUnder(above), c, c)
			VPMOVDB(c, Mem{Base: codes, Index: i, Scale: 1})
			return
		}
		VCMPPS(Imm(14), bound, v, bound)
		VPSUBD(bound, c, c)
		half := XMM()
		VEXTRACTI128(Imm(1), c, half)
		VPACKUSDW(half, c.AsX(), c.AsX())
		VPACKUSWB(c.AsX(), c.AsX(), c.AsX())
		VMOVQ(c.AsX(), Mem{Base: codes, Index: i, Scale: 1})
	})
	end()
}

// onesUnder is -1 in the lanes of a mask.
func (l lanes) onesUnder(k reg.Register) reg.VecVirtual {
	x := l.reg()
	VPMOVM2D(k, x)
	return x
}

// whole runs body over n elements, a multiple of the number of lanes.
func (l lanes) whole(n reg.GPVirtual, body func(i reg.Register)) {
	i := GP64()
	XORQ(i, i)
	TESTQ(n, n)
	JZ(LabelRef("done"))
	Label("loop")
	body(i)
	ADDQ(I32(l.floats()), i)
	CMPQ(i, n)
	JL(LabelRef("loop"))
	Label("done")
}

// gather reads 32 bits in each lane from base + scale*index.
func (l lanes) gather(base reg.Register, index reg.VecVirtual, scale uint8, dst reg.VecVirtual) {
	m := Mem{Base: base, Index: index, Scale: scale}
	if l.wide() {
		k := K()
		KXNORW(k, k, k)
		VPXORD(dst, dst, dst)
		VPGATHERDD(m, k, dst)
		return
	}
	mask := l.reg()
	VPCMPEQD(mask, mask, mask)
	VXORPS(dst, dst, dst)
	VPGATHERDD(mask, m, dst)
}
