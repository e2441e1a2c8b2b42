package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// pack4 makes the loop that decodes a tile of 4-bit codes by columns. What is transposed is
// the codes, of which a word holds eight, and not the values that they stand for.
func pack4(w width) {
	rows := w.bytes / 4 // and as many words of each
	name := "Pack4" + w.name
	TEXT(name, NOSPLIT, "func(dst *float32, ld uintptr, codes *byte, stride uintptr, values, absmax *float32, skip uintptr, block, cols int, ahead uintptr)")
	Doc(fmt.Sprintf("%s decodes %d rows of 4-bit codes, stride bytes apart, and writes column k of them to dst,", name, rows),
		"ld bytes from column to column. absmax has the scales of the first block of each row; those of",
		fmt.Sprintf("the next are skip bytes on. cols is a multiple of %d, block of 8 and a divisor or multiple of cols.", 8*rows),
		"Meanwhile it fetches what is ahead bytes behind the codes.")
	Pragma("noescape")
	dst, ld := Load(Param("dst"), GP64()), Load(Param("ld"), GP64())
	row := column{stride: GP64(), by3: GP64(), at: []GPVirtual{GP64()}}
	Load(Param("codes"), row.at[0])
	Load(Param("stride"), row.stride)
	LEAQ(Mem{Base: row.stride, Index: row.stride, Scale: 2}, row.by3)
	for r := rowsOfAPoint; r < rows; r += rowsOfAPoint {
		p := GP64()
		LEAQ(Mem{Base: row.at[len(row.at)-1], Index: row.stride, Scale: 4}, p)
		ADDQ(row.stride, p)
		row.at = append(row.at, p)
	}
	absmax, left := Load(Param("absmax"), GP64()), Load(Param("block"), GP64())
	param := func(name string) Mem {
		b, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return b.Addr // there are not registers enough
	}
	lo, hi := w.reg(), w.reg()
	values := Load(Param("values"), GP64())
	VMOVUPS(Mem{Base: values}, lo)
	if w.bytes == 32 {
		VMOVUPS(Mem{Base: values, Disp: 32}, hi)
	}
	ahead := Load(Param("ahead"), GP64())

	Label("loop")
	x := make([]VecVirtual, rows)
	for i := range x {
		x[i] = w.reg()
		VMOVUPS(row.row(i), x[i])
	}
	for _, p := range row.at {
		ADDQ(ahead, p)
	}
	for i := range x {
		PREFETCHT1(row.row(i))
	}
	for _, p := range row.at {
		SUBQ(ahead, p)
		ADDQ(Imm(uint64(w.bytes)), p)
	}
	words := func(yield func(v VecVirtual) bool) {
		if w.bytes == 64 {
			for _, v := range transpose16([16]VecVirtual(x)) {
				yield(v)
			}
			return
		}
		u := transposeHalves([8]VecVirtual(x))
		for half := range 2 {
			for j := range 4 {
				v := w.reg()
				VPERM2F128(Imm(uint64(0x20+0x11*half)), u[4+j], u[j], v)
				yield(v)
			}
		}
	}
	n := 0
	for v := range words {
		for _, shift := range []uint64{4, 0, 12, 8, 20, 16, 28, 24} {
			idx := v
			if shift > 0 {
				idx = w.reg()
				VPSRLD(Imm(shift), v, idx)
			}
			a := w.reg()
			if w.bytes == 64 {
				VPERMPS(lo, idx, a)
			} else {
				if shift == 0 {
					idx = w.reg()
					VMOVAPS(v, idx)
				}
				lookup16(idx, lo, hi, a, w.reg())
			}
			VMULPS(Mem{Base: absmax}, a, a)
			VMOVUPS(a, Mem{Base: dst})
			ADDQ(ld, dst)
		}
		same := fmt.Sprintf("same%d", n)
		n++
		SUBQ(Imm(8), left)
		JNZ(LabelRef(same))
		MOVQ(param("block"), left)
		ADDQ(param("skip"), absmax)
		Label(same)
	}
	SUBQ(Imm(uint64(8*rows)), param("cols"))
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
