package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["block32"] = block32 }

// block32 has the loops that write blocks of 32 elements. Each returns how many blocks
// it did: all, or those before one that is left to Go, with a NaN or whatever else is
// rare.
func block32() {
	for _, l := range []lanes{avx512, avx2} {
		l.encodeSigned("EncodeQ4_0", 8)
		l.encodeRange("EncodeQ4_1", 15)
		l.encodeSigned("EncodeQ5_0", 16)
		l.encodeRange("EncodeQ5_1", 31)
		l.encodeQ8_0()
		l.encodeMXFP4()
		l.round8()
	}
}

const (
	sameAs    = 0 // predicates of VCMPPS
	unordered = 3 // there is a NaN
	otherThan = 4 // true for NaN
)

// block is a block in registers.
type block struct {
	l         lanes
	dst, from reg.GPVirtual
	x         []reg.VecVirtual
}

// eachBlock writes a function whose body makes a block of size bytes of 32 elements,
// or jumps to "done". constants are loaded first.
func (l lanes) eachBlock(name string, size int, constants func(), body func(b *block)) {
	l.begin(name, "func(dst *byte, src *float32, blocks int) int", "stores blocks of 32 elements, those before one that is for Go, and returns how many.")
	b := &block{l: l, dst: pointer("dst"), from: pointer("src")}
	blocks, done := pointer("blocks"), GP64()
	constants()
	XORQ(done, done)
	Label("block")
	CMPQ(done, blocks)
	JGE(LabelRef("done"))
	b.x = nil
	for at := 0; at < 32; at += l.floats() {
		x := l.reg()
		VMOVUPS(Mem{Base: b.from, Disp: 4 * at}, x)
		b.x = append(b.x, x)
	}
	body(b)
	ADDQ(Imm(128), b.from)
	ADDQ(Imm(uint64(size)), b.dst)
	INCQ(done)
	JMP(LabelRef("block"))
	Label("done")
	Store(done, ReturnIndex(0))
	end()
}

// word is a constant of 32 bits as an operand of operations on integers.
func (l lanes) word(v uint32) Op { return l.konst(floatOf(v)) }

func (l lanes) and(a Op, b, c reg.VecVirtual) {
	if l.wide() {
		VPANDD(a, b, c)
	} else {
		VPAND(a, b, c)
	}
}

func (l lanes) or(a Op, b, c reg.VecVirtual) {
	if l.wide() {
		VPORD(a, b, c)
	} else {
		VPOR(a, b, c)
	}
}

// lane folds to one lane.
func (l lanes) lane(x reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	t := l.fold(x, op)
	VMOVSHDUP(x.AsX(), t)
	op(t, x.AsX(), x.AsX())
	return x.AsX().(reg.VecVirtual)
}

// over is op of vectors two by two, which are left as they are.
func (l lanes) over(list []reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	var next []reg.VecVirtual
	for i := 0; i < len(list); i += 2 {
		t := l.reg()
		op(list[i+1], list[i], t)
		next = append(next, t)
	}
	return l.merge(next, op)
}

// magnitudes are the elements without their sign, and the bits of the largest in all
// lanes, in one, and in a general register.
func (b *block) magnitudes(abs Op) (list []reg.VecVirtual, top reg.VecVirtual, bits reg.GPVirtual) {
	for _, x := range b.x {
		a := b.l.reg()
		b.l.and(abs, x, a)
		list = append(list, a)
	}
	top = b.l.lane(b.l.over(list, VPMAXUD), VPMAXUD)
	bits = GP32()
	VMOVD(top, bits)
	return list, top, bits
}

// first loads the first element of those that compare says of; there must be one.
func (b *block) first(compare func(i int) reg.Register) reg.VecVirtual {
	mask, t := GP32(), GP32()
	for i := range b.x {
		m := compare(i)
		to := t
		if i == 0 {
			to = mask
		}
		if b.l.wide() {
			KMOVW(m, to)
		} else {
			VMOVMSKPS(m, to)
		}
		if i > 0 {
			SHLL(Imm(uint64(i*b.l.floats())), t)
			ORL(t, mask)
		}
	}
	BSFL(mask, mask)
	v := XMM()
	VMOVSS(Mem{Base: b.from, Index: mask.As64(), Scale: 4}, v)
	return v
}

// equalTo compares with a value in all lanes.
func (b *block) equalTo(list []reg.VecVirtual, v reg.VecVirtual) func(i int) reg.Register {
	all := b.l.reg()
	VBROADCASTSS(v, all)
	return func(i int) reg.Register {
		if b.l.wide() {
			k := K()
			VCMPPS(Imm(sameAs), all, list[i], k)
			return k
		}
		t := b.l.reg()
		VCMPPS(Imm(sameAs), all, list[i], t)
		return t
	}
}

// putHalf stores a value as a float16 where the block has it.
func (b *block) putHalf(v reg.VecVirtual, at int) {
	t, h := XMM(), GP32()
	VCVTPS2PH(Imm(0), v, t)
	VMOVD(t, h)
	MOVW(h.As16(), Mem{Base: b.dst, Disp: at})
}

// inverse is 1/d in all lanes, and 0 of zero.
func (b *block) inverse(d, zero, one reg.VecVirtual) reg.VecVirtual {
	id, t, all := XMM(), XMM(), b.l.reg()
	VDIVSS(d, one.AsX(), id)
	VCMPSS(Imm(otherThan), zero.AsX(), d, t)
	VANDPS(t, id, id)
	VBROADCASTSS(id, all)
	return all
}

// bytesOf packs the low bytes of integers of 32 bits. Of what VCVTTPS2DQ makes of what
// is no integer, they are 0.
func (b *block) bytesOf(q []reg.VecVirtual, low Op) reg.VecVirtual {
	if b.l.wide() {
		x, y := YMM(), XMM()
		VPMOVDB(q[0], x.AsX())
		VPMOVDB(q[1], y)
		VINSERTI128(Imm(1), y, x, x)
		return x
	}
	for _, v := range q {
		VPAND(low, v, v)
	}
	VPACKUSDW(q[1], q[0], q[0])
	VPACKUSDW(q[3], q[2], q[2])
	VPACKUSWB(q[2], q[0], q[0])
	t := YMM()
	VMOVDQU(packedOrder(), t)
	VPERMD(q[0], t, q[0])
	return q[0]
}

// packedOrder undoes that packing takes turns between halves.
func packedOrder() Mem {
	const name = "packedOrder"
	if _, ok := constants[name]; !ok {
		constants[name] = words(name, 0, 4, 1, 5, 2, 6, 3, 7)
	}
	return constants[name]
}

// putLevels stores numbers: their fifth bits, if they have some, where the block has
// them, and then bytes of two nibbles, of elements j and j+16.
func (b *block) putLevels(q reg.VecVirtual, fifths bool, at int, four Op) {
	if fifths {
		t, high := YMM(), GP32()
		VPSLLW(Imm(3), q, t)
		VPMOVMSKB(t, high)
		MOVL(high, Mem{Base: b.dst, Disp: at})
		VPAND(four, q, q)
		at += 4
	}
	x := XMM()
	VEXTRACTI128(Imm(1), q, x)
	VPSLLW(Imm(4), x, x)
	VPOR(x, q.AsX(), x)
	VMOVDQU(x, Mem{Base: b.dst, Disp: at})
}

func repeated(b byte) uint32 { return uint32(b) * 0x01010101 }

// encodeSigned is for blocks of which the value of the largest magnitude is -zero.
func (l lanes) encodeSigned(name string, zero int) {
	fifths := zero > 8
	size := 18
	if fifths {
		size += 4
	}
	var abs, half, low, most, four Op
	var null, one, share reg.VecVirtual
	l.eachBlock(name, size, func() {
		abs, half, low = l.word(0x7fffffff), l.konst(float32(zero)+0.5), l.data(floatOf(0xff))
		most, four = l.data(floatOf(repeated(byte(2*zero-1)))), l.data(floatOf(repeated(15)))
		null, one, share = XMM(), XMM(), XMM()
		VXORPS(null, null, null)
		VMOVSS(l.data(1), one)
		VMOVSS(l.data(-1/float32(zero)), share)
	}, func(b *block) {
		list, top, bits := b.magnitudes(abs)
		CMPL(bits, U32(infinite))
		JA(LabelRef("done"))
		d := b.first(b.equalTo(list, top))
		VADDSS(null, d, d) // of zeros the positive one
		VMULSS(share, d, d)
		b.putHalf(d, 0)
		id := b.inverse(d, null, one)
		for _, x := range b.x {
			VMULPS(id, x, x)
			VADDPS(half, x, x)
			VCVTTPS2DQ(x, x)
		}
		q := b.bytesOf(b.x, low)
		VPMINUB(most, q, q)
		b.putLevels(q, fifths, 2, four)
	})
}

// encodeRange is for blocks of numbers from the least value, 0, to the largest, top.
func (l lanes) encodeRange(name string, top int) {
	fifths := top > 15
	size := 20
	if fifths {
		size += 4
	}
	var half, low, most, four Op
	var null, one, steps reg.VecVirtual
	l.eachBlock(name, size, func() {
		half, low = l.konst(0.5), l.data(floatOf(0xff))
		most, four = l.data(floatOf(repeated(byte(top)))), l.data(floatOf(repeated(15)))
		null, one, steps = XMM(), XMM(), XMM()
		VXORPS(null, null, null)
		VMOVSS(l.data(1), one)
		VMOVSS(l.data(float32(top)), steps)
	}, func(b *block) {
		b.leaveNaN()
		high := l.lane(l.over(b.x, VMAXPS), VMAXPS)
		m := l.lane(l.over(b.x, VMINPS), VMINPS)
		// Of equal ones the first, which matters for the sign of zero.
		m = b.first(b.equalTo(b.x, m))
		d := XMM()
		VADDSS(null, high, d)
		VSUBSS(m, d, d)
		VDIVSS(steps, d, d)
		b.putHalf(d, 0)
		b.putHalf(m, 2)
		id, least := b.inverse(d, null, one), l.reg()
		VBROADCASTSS(m, least)
		for _, x := range b.x {
			VSUBPS(least, x, x)
			VMULPS(id, x, x)
			VADDPS(half, x, x)
			VCVTTPS2DQ(x, x)
		}
		q := b.bytesOf(b.x, low)
		VPMINUB(most, q, q)
		b.putLevels(q, fifths, 4, four)
	})
}

// leaveNaN leaves the block to Go if there is a NaN in it.
func (b *block) leaveNaN() {
	if b.l.wide() {
		k := K()
		VCMPPS(Imm(unordered), b.x[1], b.x[0], k)
		KORTESTW(k, k)
		JNZ(LabelRef("done"))
		return
	}
	t, u, mask := YMM(), YMM(), GP32()
	VCMPPS(Imm(unordered), b.x[1], b.x[0], t)
	VCMPPS(Imm(unordered), b.x[3], b.x[2], u)
	VORPS(t, u, t)
	VMOVMSKPS(t, mask)
	TESTL(mask, mask)
	JNZ(LabelRef("done"))
}

// roundAway rounds to integers, ties away from zero.
func (l lanes) roundAway(x, t reg.VecVirtual, sign, half Op) {
	l.and(sign, x, t)
	l.or(half, t, t)
	VADDPS(t, x, x)
	VCVTTPS2DQ(x, x)
}

const (
	signBit    = 0x80000000
	almostHalf = 0x3effffff // kernel.almostHalf
)

func (l lanes) encodeQ8_0() {
	var abs, sign, half, low Op
	var null, one, steps reg.VecVirtual
	l.eachBlock("EncodeQ8_0", 34, func() {
		abs, sign, half, low = l.word(0x7fffffff), l.word(signBit), l.word(almostHalf), l.data(floatOf(0xff))
		null, one, steps = XMM(), XMM(), XMM()
		VXORPS(null, null, null)
		VMOVSS(l.data(1), one)
		VMOVSS(l.data(127), steps)
	}, func(b *block) {
		_, d, bits := b.magnitudes(abs)
		CMPL(bits, U32(infinite))
		JA(LabelRef("done"))
		VDIVSS(steps, d, d)
		b.putHalf(d, 0)
		id, t := b.inverse(d, null, one), l.reg()
		for _, x := range b.x {
			VMULPS(id, x, x)
			l.roundAway(x, t, sign, half)
		}
		VMOVDQU(b.bytesOf(b.x, low), Mem{Base: b.dst, Disp: 2})
	})
}

// round8 is for numbers of elements that are a multiple of 32.
func (l lanes) round8() {
	l.begin("Round8", "func(dst *byte, src *float32, blocks int, mul float32)", "multiplies blocks of 32 elements, rounds them to signed bytes, ties away from zero.")
	b := &block{l: l, dst: pointer("dst"), from: pointer("src")}
	blocks, mul := pointer("blocks"), l.param("mul")
	sign, half, low, t := l.word(signBit), l.word(almostHalf), l.data(floatOf(0xff)), l.reg()
	Label("block")
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	for at := 0; at < 32; at += l.floats() {
		x := l.reg()
		VMULPS(Mem{Base: b.from, Disp: 4 * at}, mul, x)
		l.roundAway(x, t, sign, half)
		b.x = append(b.x, x)
	}
	VMOVDQU(b.bytesOf(b.x, low), Mem{Base: b.dst})
	ADDQ(Imm(128), b.from)
	ADDQ(Imm(32), b.dst)
	DECQ(blocks)
	JMP(LabelRef("block"))
	Label("done")
	end()
}

// encodeMXFP4 leaves blocks to Go whose scale is not the exponent of the largest
// magnitude less 2: those of zeros, of the smallest numbers, and of what a logarithm may
// round up to a power of two.
func (l lanes) encodeMXFP4() {
	var abs, one, eight, low Op
	var bounds []Op
	var null reg.VecVirtual
	l.eachBlock("EncodeMXFP4", 17, func() {
		abs, one, eight, low = l.word(0x7fffffff), l.word(1), l.word(8), l.data(floatOf(0xff))
		for _, v := range []float32{0.5, 1.5, 2.5, 3.5, 5, 7, 10} {
			bounds = append(bounds, l.data(v))
		}
		null = l.zeros(1)[0]
	}, func(b *block) {
		list, _, bits := b.magnitudes(abs)
		t := GP32()
		MOVL(bits, t)
		ANDL(U32(0x7fffff), t)
		CMPL(t, U32(0x7fffc0))
		JAE(LabelRef("done"))
		SHRL(Imm(23), bits)
		LEAL(Mem{Base: bits, Disp: -8}, t)
		CMPL(t, U32(255-8))
		JAE(LabelRef("done"))
		SUBL(Imm(2), bits)
		MOVB(bits.As8(), Mem{Base: b.dst})
		// The inverse of 2^(e-128).
		NEGL(bits)
		ADDL(U32(255), bits)
		SHLL(Imm(23), bits)
		x, unit := XMM(), l.reg()
		VMOVD(bits, x)
		VBROADCASTSS(x, unit)
		for i, a := range list {
			VMULPS(unit, a, a)
			q, sign := l.reg(), b.x[i]
			VPSRLD(Imm(28), sign, sign)
			l.and(eight, sign, sign)
			if l.wide() {
				VPXORD(q, q, q)
				k := K()
				for _, bound := range bounds {
					VCMPPS_BCST(Imm(greater), bound, a, k)
					VPADDD(one, q, k, q)
				}
				VPCMPUD(Imm(otherThan), null, q, k)
				VPORD(sign, q, k, q)
			} else {
				t := l.reg()
				VPXOR(q, q, q)
				for _, bound := range bounds {
					VCMPPS(Imm(greater), bound, a, t)
					VPSUBD(t, q, q)
				}
				VPCMPGTD(null, q, t)
				VPAND(t, sign, sign)
				VPOR(sign, q, q)
			}
			list[i] = q
		}
		b.putLevels(b.bytesOf(list, low), false, 1, nil)
	})
}
