package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func encode8AVX512() {
	TEXT("EncodeMap8AVX512", NOSPLIT, "func(codes *byte, x *float32, heap *float32, mul float32, n int)")
	Doc("EncodeMap8AVX512 gives n floats times mul their 8-bit codes; n is a multiple of 16.")
	Pragma("noescape")
	p := pointers("codes", "x", "heap")
	codes, x, heap := p[0], p[1], p[2]
	mul, root, one, two, three := ZMM(), ZMM(), ZMM(), ZMM(), ZMM()
	m := Load(Param("mul"), XMM())
	VBROADCASTSS(m, mul)
	n := Load(Param("n"), GP64())
	// The whole tree is in registers.
	tree := make([]VecVirtual, 16)
	for i := range tree {
		tree[i] = ZMM()
		VMOVUPS(Mem{Base: heap, Disp: 64 * i}, tree[i])
	}
	VBROADCASTSS(Mem{Base: heap, Disp: 4}, root)
	VPBROADCASTD(encodeConst.one, one)
	VPADDD(one, one, two)
	VPADDD(one, two, three)
	Label("loop")
	s, j := ZMM(), ZMM()
	VMULPS(Mem{Base: x}, mul, s)
	// above says at each level where the node was exceeded.
	above := []Register{K(), K(), K()}
	VCMPPS(Imm(greater), root, s, above[0])
	VPBLENDMD(three, two, above[0], j)
	for level := 1; level < 8; level++ {
		t := ZMM()
		if level < 5 { // nodes 2 to 15, 16 to 31
			VPERMPS(tree[level/4], j, t)
		} else {
			n := 1 << (level - 4)
			t = lookupTree(tree[n:2*n], j, above)
		}
		k := above[2]
		if level == 1 {
			k = above[1]
		}
		VCMPPS(Imm(greater), t, s, k)
		VPADDD(j, j, j)
		VPADDD(one, j, k, j)
	}
	VPMOVDB(j, Mem{Base: codes})
	ADDQ(Imm(64), x)
	ADDQ(Imm(16), codes)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// lookupTree gives each lane the entry of a table of 32, 64 or 128 in 2, 4 or 8
// registers that the low bits of idx say; the highest of them is above[0].
func lookupTree(table []VecVirtual, idx VecVirtual, above []Register) VecVirtual {
	if len(table) == 2 {
		t := ZMM()
		VMOVAPS(idx, t)
		VPERMI2PS(table[1], table[0], t)
		return t
	}
	n := len(table) / 2
	low, high := lookupTree(table[:n], idx, above[1:]), lookupTree(table[n:], idx, above[1:])
	VBLENDMPS(high, low, above[0], low)
	return low
}

func encode8AVX2() {
	TEXT("EncodeMap8AVX2", NOSPLIT, "func(codes *byte, x *float32, heap *float32, mul float32, n int)")
	Doc("EncodeMap8AVX2 is EncodeMap8AVX512 with 256 bits; n is a multiple of 8.")
	Pragma("noescape")
	p := pointers("codes", "x", "heap")
	codes, x, heap := p[0], p[1], p[2]
	mul, low, root := YMM(), YMM(), YMM()
	m := Load(Param("mul"), XMM())
	VBROADCASTSS(m, mul)
	n := Load(Param("n"), GP64())
	VMOVUPS(Mem{Base: heap}, low)
	VBROADCASTSS(Mem{Base: heap, Disp: 4}, root)
	Label("loop")
	s, j, t, all := YMM(), YMM(), YMM(), YMM()
	VMULPS(Mem{Base: x}, mul, s)
	VCMPPS(Imm(greater), root, s, t)
	VMOVDQU(encodeConst.two, j)
	VPSUBD(t, j, j)
	for level := 1; level < 8; level++ {
		if level < 3 { // nodes 2 to 7
			VPERMPS(low, j, t)
		} else {
			VPCMPEQD(all, all, all)
			VXORPS(t, t, t)
			VGATHERDPS(all, Mem{Base: heap, Index: j, Scale: 4}, t)
		}
		VCMPPS(Imm(greater), t, s, t)
		VPADDD(j, j, j)
		VPSUBD(t, j, j)
	}
	VPSHUFB(encodeConst.bytes256, j, j)
	z := XMM()
	VEXTRACTI128(Imm(1), j, z)
	VPUNPCKLDQ(z, j.AsX(), z)
	VMOVQ(z, Mem{Base: codes})
	ADDQ(Imm(32), x)
	ADDQ(Imm(8), codes)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
