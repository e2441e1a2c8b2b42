package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func init() { groups["quant"] = quant }

// quant has the loops of the 4-bit and 8-bit block formats. Those of 4 bits take the
// 16 values of the codes, so that NF4 and FP4 share them.
func quant() {
	decode4AVX512()
	decode4AVX2()
	encodeConstants()
	encode4AVX512("Encode4AVX512", false)
	encode4AVX512("Encode4GridAVX512", true)
	encode4AVX2()
	encode8AVX512()
	encode8AVX2()
	decodeQ8("DecodeQ8AVX2", 8, func() VecVirtual { return YMM() })
	decodeQ8("DecodeQ8AVX512", 16, func() VecVirtual { return ZMM() })
	dots()
	pack4(w512)
	pack4(w256)
	splitAVX512()
	splitAVX2()
	for mr := 1; mr <= 4; mr++ {
		dot4(w512, mr)
		dot4(w256, mr)
	}
}

// words makes read-only data of 32-bit words.
func words(name string, list ...uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i, w := range list {
		DATA(4*i, U32(w))
	}
	return m
}

// nibbleShifts bring the nibbles of 32 bits, the high one of each byte first, to the
// low end of 8 lanes. The shift is that of two such groups.
func nibbleShifts() Mem {
	return words("nibbleShifts", 4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24)
}

var shifts Mem

func pointers(names ...string) []Register {
	var list []Register
	for _, name := range names {
		list = append(list, Load(Param(name), GP64()))
	}
	return list
}

func decode4AVX512() {
	shifts = nibbleShifts()
	TEXT("Decode4AVX512", NOSPLIT, "func(dst *float32, codes *byte, values, absmax *float32, blocks, block int)")
	Doc("Decode4AVX512 decodes blocks of 4-bit codes, each of a multiple of 16 elements; values",
		"are those of the 16 codes. The high nibble of a byte comes first.")
	Pragma("noescape")
	p := pointers("dst", "codes", "values", "absmax", "blocks", "block")
	dst, codes, values, absmax, blocks, block := p[0], p[1], p[2], p[3], p[4], p[5]

	count, table, scaled := ZMM(), ZMM(), ZMM()
	VMOVDQU32(shifts, count)
	VMOVUPS(Mem{Base: values}, table)
	upper := K()
	x := GP32()
	MOVL(U32(0xff00), x)
	KMOVW(x, upper)

	// Eight bytes become the indices of 16 lanes; the permutation looks at the low
	// four bits of a lane only.
	step := func(at int) {
		idx := ZMM()
		VPBROADCASTD(Mem{Base: codes, Disp: at / 2}, idx)
		VPBROADCASTD(Mem{Base: codes, Disp: at/2 + 4}, upper, idx)
		VPSRLVD(count, idx, idx)
		VPERMPS(scaled, idx, idx)
		VMOVUPS(idx, Mem{Base: dst, Disp: 4 * at})
	}
	left := GP64()
	Label("block")
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	VMULPS_BCST(Mem{Base: absmax}, table, scaled)
	ADDQ(Imm(4), absmax)
	DECQ(blocks)
	MOVQ(block, left)
	Label("pair")
	CMPQ(left, Imm(32))
	JL(LabelRef("single"))
	step(0)
	step(16)
	ADDQ(Imm(128), dst)
	ADDQ(Imm(16), codes)
	SUBQ(Imm(32), left)
	JMP(LabelRef("pair"))
	Label("single")
	TESTQ(left, left)
	JZ(LabelRef("block"))
	step(0)
	ADDQ(Imm(64), dst)
	ADDQ(Imm(8), codes)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

func decode4AVX2() {
	TEXT("Decode4AVX2", NOSPLIT, "func(dst *float32, codes *byte, values, absmax *float32, blocks, block int)")
	Doc("Decode4AVX2 is Decode4AVX512 with 256 bits.")
	Pragma("noescape")
	p := pointers("dst", "codes", "values", "absmax", "blocks", "block")
	dst, codes, values, absmax, blocks, block := p[0], p[1], p[2], p[3], p[4], p[5]

	count, lo, hi := YMM(), YMM(), YMM()
	VMOVDQU(shifts, count)
	left := GP64()
	Label("block")
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	scale := YMM()
	VBROADCASTSS(Mem{Base: absmax}, scale)
	VMULPS(Mem{Base: values}, scale, lo)
	VMULPS(Mem{Base: values, Disp: 32}, scale, hi)
	ADDQ(Imm(4), absmax)
	DECQ(blocks)
	MOVQ(block, left)
	Label("loop")
	for i := range 2 {
		idx, a, b := YMM(), YMM(), YMM()
		VPBROADCASTD(Mem{Base: codes, Disp: 4 * i}, idx)
		VPSRLVD(count, idx, idx)
		lookup16(idx, lo, hi, a, b)
		VMOVUPS(a, Mem{Base: dst, Disp: 32 * i})
	}
	ADDQ(Imm(64), dst)
	ADDQ(Imm(8), codes)
	SUBQ(Imm(16), left)
	JNZ(LabelRef("loop"))
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

// lookup16 gives each lane of a the entry of a table of 16 that the low four bits of
// idx say. It changes idx and b.
func lookup16(idx VecVirtual, lo, hi Op, a, b VecVirtual) {
	VPERMPS(lo, idx, a)
	VPERMPS(hi, idx, b)
	VPSLLD(Imm(28), idx, idx)
	VBLENDVPS(idx, b, a, a)
}
