package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// decodeQ8 writes a loop that decodes blocks of 32 signed bytes behind a float16 scale.
func decodeQ8(name string, lanes int, vec func() VecVirtual) {
	TEXT(name, NOSPLIT, "func(dst *float32, src *byte, blocks int)")
	Doc(name + " decodes blocks of Q8_0: a float16 scale and 32 signed bytes.")
	Pragma("noescape")
	list := pointers("dst", "src", "blocks")
	dst, src, blocks := list[0], list[1], list[2]
	Label("block")
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	half := GP32()
	MOVWLZX(Mem{Base: src}, half)
	x, d := XMM(), vec()
	VMOVD(half, x)
	VCVTPH2PS(x, x)
	VBROADCASTSS(x, d)
	for at := 0; at < 32; at += lanes {
		v := vec()
		VPMOVSXBD(Mem{Base: src, Disp: 2 + at}, v)
		VCVTDQ2PS(v, v)
		VMULPS(d, v, v)
		VMOVUPS(v, Mem{Base: dst, Disp: 4 * at})
	}
	ADDQ(Imm(34), src)
	ADDQ(Imm(128), dst)
	DECQ(blocks)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}
