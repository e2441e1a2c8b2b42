package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

func init() { groups["convert"] = convert }

// convert has the loops between number formats. Each takes a multiple of its step.
func convert() {
	TEXT("DecodeBF16AVX2", NOSPLIT, "func(dst *float32, src *byte, n int)")
	Doc("DecodeBF16AVX2 widens n bfloat16 values, a multiple of 16.")
	Pragma("noescape")
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	a, b := YMM(), YMM()
	VPMOVZXWD(Mem{Base: src}, a)
	VPMOVZXWD(Mem{Base: src, Disp: 16}, b)
	VPSLLD(Imm(16), a, a)
	VPSLLD(Imm(16), b, b)
	VMOVDQU(a, Mem{Base: dst})
	VMOVDQU(b, Mem{Base: dst, Disp: 32})
	ADDQ(Imm(32), src)
	ADDQ(Imm(64), dst)
	SUBQ(Imm(16), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}
