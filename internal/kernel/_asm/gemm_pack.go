package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// transpose512 transposes up to 16 rows, 16 columns at a time. How many rows is
// known here, or 0 for a loop that is told.
func transpose512(name string, known int) {
	name = "Transpose" + name + "AVX512"
	params, what := "dst *float32, ldd uintptr, src *float32, ld uintptr, cols int", fmt.Sprint(known)
	if known == 0 {
		params, what = params+", rows int", "rows, at most 16,"
	}
	TEXT(name, NOSPLIT, "func("+params+")")
	Doc(fmt.Sprintf("%s writes the columns of %s rows of src, ld bytes apart, to dst, ldd bytes apart.", name, what))
	Pragma("noescape")
	dst, ldd := Load(Param("dst"), GP64()), Load(Param("ldd"), GP64())
	ld := GP64()
	row := column{stride: ld, by3: GP64(), at: []GPVirtual{GP64()}}
	Load(Param("src"), row.at[0])
	Load(Param("ld"), ld)
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, row.by3)
	for r := rowsOfAPoint; r < 16; r += rowsOfAPoint {
		p := GP64()
		LEAQ(Mem{Base: row.at[len(row.at)-1], Index: ld, Scale: 4}, p)
		ADDQ(ld, p)
		row.at = append(row.at, p)
	}
	cols := Load(Param("cols"), GP64())
	write := K()
	var rows GPVirtual
	all := GP32()
	if known == 0 {
		rows = GP64()
		Load(Param("rows"), rows)
		MOVQ(rows, RCX)
		MOVL(I32(1), all)
		SHLL(CL, all)
		DECL(all)
		KMOVW(all, write)
	} else {
		MOVL(I32(1<<known-1), all)
		KMOVW(all, write)
	}

	Label("loop")
	TESTQ(cols, cols)
	JLE(LabelRef("done"))
	here, read := GP32(), K()
	MOVL(I32(0xffff), here)
	CMPQ(cols, Imm(16))
	JGE(LabelRef("read"))
	MOVQ(cols, RCX)
	MOVL(I32(1), here)
	SHLL(CL, here)
	DECL(here)
	Label("read")
	KMOVW(here, read)
	var x [16]VecVirtual
	for i := range x {
		x[i] = ZMM()
		switch {
		case known == 0:
			// Nothing is read of a row that is not there.
			bits, mask := GP32(), K()
			XORL(bits, bits)
			CMPQ(rows, Imm(uint64(i)))
			CMOVLGT(here, bits)
			KMOVW(bits, mask)
			VMOVUPS_Z(row.row(i), mask, x[i])
		case i < known:
			VMOVUPS_Z(row.row(i), read, x[i])
		default:
			VPXORD(x[i], x[i], x[i])
		}
	}
	for _, p := range row.at {
		ADDQ(Imm(64), p)
	}
	out := transpose16(x)
	for i := range out {
		VMOVUPS(out[i], write, Mem{Base: dst})
		ADDQ(ldd, dst)
		DECQ(cols)
		JZ(LabelRef("done"))
	}
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// transpose16 makes the columns of 16 x 16 words of their rows.
func transpose16(x [16]VecVirtual) (out [16]VecVirtual) {
	var u [16]VecVirtual
	for g := 0; g < 16; g += 4 {
		// Four rows become four columns in each quarter.
		var t [4]VecVirtual
		for i := range t {
			t[i] = ZMM()
			u[g+i] = ZMM()
		}
		VUNPCKLPS(x[g+1], x[g], t[0])
		VUNPCKHPS(x[g+1], x[g], t[1])
		VUNPCKLPS(x[g+3], x[g+2], t[2])
		VUNPCKHPS(x[g+3], x[g+2], t[3])
		VUNPCKLPD(t[2], t[0], u[g])
		VUNPCKHPD(t[2], t[0], u[g+1])
		VUNPCKLPD(t[3], t[1], u[g+2])
		VUNPCKHPD(t[3], t[1], u[g+3])
	}
	for j := range 4 {
		// Then quarters change places.
		var t [4]VecVirtual
		for i := range t {
			t[i] = ZMM()
			out[4*i+j] = ZMM()
		}
		VSHUFF32X4(Imm(0x88), u[4+j], u[j], t[0])
		VSHUFF32X4(Imm(0xdd), u[4+j], u[j], t[1])
		VSHUFF32X4(Imm(0x88), u[12+j], u[8+j], t[2])
		VSHUFF32X4(Imm(0xdd), u[12+j], u[8+j], t[3])
		VSHUFF32X4(Imm(0x88), t[2], t[0], out[j])
		VSHUFF32X4(Imm(0x88), t[3], t[1], out[4+j])
		VSHUFF32X4(Imm(0xdd), t[2], t[0], out[8+j])
		VSHUFF32X4(Imm(0xdd), t[3], t[1], out[12+j])
	}
	return out
}

// copy512 copies parts of rows.
func copy512() {
	TEXT("CopyRowsAVX512", NOSPLIT, "func(dst *float32, ldd uintptr, src *float32, ld uintptr, rows int, load, store uint64)")
	Doc("CopyRowsAVX512 copies rows of up to 32 floats, ld bytes apart, to dst, ldd bytes apart.",
		"Bits of load say which there are, those of store which are written, as 0 where there are none.")
	Pragma("noescape")
	dst, ldd := Load(Param("dst"), GP64()), Load(Param("ldd"), GP64())
	src, ld := Load(Param("src"), GP64()), Load(Param("ld"), GP64())
	rows := Load(Param("rows"), GP64())
	mask := func(param string) (lo, hi Register) {
		bits := Load(Param(param), GP64()).(GPVirtual)
		lo, hi = K(), K()
		KMOVW(bits.As32(), lo)
		SHRQ(Imm(16), bits)
		KMOVW(bits.As32(), hi)
		return lo, hi
	}
	l0, l1 := mask("load")
	s0, s1 := mask("store")
	high := GP64()
	Load(Param("store"), high)
	SHRQ(Imm(16), high)
	TESTQ(high, high)
	JZ(LabelRef("narrow"))
	Label("loop")
	TESTQ(rows, rows)
	JZ(LabelRef("done"))
	a, b := ZMM(), ZMM()
	VMOVUPS_Z(Mem{Base: src}, l0, a)
	VMOVUPS_Z(Mem{Base: src, Disp: 64}, l1, b)
	VMOVUPS(a, s0, Mem{Base: dst})
	VMOVUPS(b, s1, Mem{Base: dst, Disp: 64})
	ADDQ(ld, src)
	ADDQ(ldd, dst)
	DECQ(rows)
	JMP(LabelRef("loop"))
	// A masked store of nothing is slow.
	Label("narrow")
	TESTQ(rows, rows)
	JZ(LabelRef("done"))
	VMOVUPS_Z(Mem{Base: src}, l0, a)
	VMOVUPS(a, s0, Mem{Base: dst})
	ADDQ(ld, src)
	ADDQ(ldd, dst)
	DECQ(rows)
	JMP(LabelRef("narrow"))
	Label("done")
	VZEROUPPER()
	RET()
}

// transpose256 transposes rows, 8 columns at a time.
func transpose256(rows int) {
	name := fmt.Sprintf("Transpose%dAVX2", rows)
	TEXT(name, NOSPLIT, "func(dst *float32, ldd uintptr, src *float32, ld uintptr, cols int)")
	Doc(fmt.Sprintf("%s writes the columns, a multiple of 8, of %d rows of src, ld bytes apart,", name, rows),
		"to dst, ldd bytes apart.")
	Pragma("noescape")
	dst, ldd := Load(Param("dst"), GP64()), Load(Param("ldd"), GP64())
	ld := GP64()
	row := column{stride: ld, by3: GP64(), at: []GPVirtual{GP64()}}
	Load(Param("src"), row.at[0])
	Load(Param("ld"), ld)
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, row.by3)
	p := GP64()
	LEAQ(Mem{Base: row.at[0], Index: ld, Scale: 4}, p)
	ADDQ(ld, p)
	row.at = append(row.at, p)
	cols := Load(Param("cols"), GP64())
	Label("loop")
	TESTQ(cols, cols)
	JLE(LabelRef("done"))
	var x [8]VecVirtual
	for i := range x {
		x[i] = YMM()
		if i < rows {
			VMOVUPS(row.row(i), x[i])
		} else {
			VXORPS(x[i], x[i], x[i])
		}
	}
	for _, p := range row.at {
		ADDQ(Imm(32), p)
	}
	u := transposeHalves(x)
	for half := range 2 {
		for j := range 4 {
			out := YMM()
			VPERM2F128(Imm(uint64(0x20+0x11*half)), u[4+j], u[j], out)
			if rows == 8 {
				VMOVUPS(out, Mem{Base: dst})
			} else {
				VMOVUPS(out.AsX(), Mem{Base: dst})
				VEXTRACTF128(Imm(1), out, out.AsX())
				VMOVLPS(out.AsX(), Mem{Base: dst, Disp: 16})
			}
			ADDQ(ldd, dst)
		}
	}
	SUBQ(Imm(8), cols)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// transposeHalves makes the columns of both halves of 8 rows of 8 words: column j of rows
// 0 to 3 and column 4+j behind it, then the same of the other rows.
func transposeHalves(x [8]VecVirtual) (u [8]VecVirtual) {
	for g := 0; g < 8; g += 4 {
		var t [4]VecVirtual
		for i := range t {
			t[i] = YMM()
			u[g+i] = YMM()
		}
		VUNPCKLPS(x[g+1], x[g], t[0])
		VUNPCKHPS(x[g+1], x[g], t[1])
		VUNPCKLPS(x[g+3], x[g+2], t[2])
		VUNPCKHPS(x[g+3], x[g+2], t[3])
		VUNPCKLPD(t[2], t[0], u[g])
		VUNPCKHPD(t[2], t[0], u[g+1])
		VUNPCKLPD(t[3], t[1], u[g+2])
		VUNPCKHPD(t[3], t[1], u[g+3])
	}
	return u
}

// copy256 copies parts of rows.
func copy256(width int) {
	name := fmt.Sprintf("CopyRows%dAVX2", width)
	TEXT(name, NOSPLIT, "func(dst *float32, ldd uintptr, src *float32, ld uintptr, rows int)")
	Doc(fmt.Sprintf("%s copies rows of %d floats, ld bytes apart, to dst, ldd bytes apart.", name, width))
	Pragma("noescape")
	dst, ldd := Load(Param("dst"), GP64()), Load(Param("ldd"), GP64())
	src, ld := Load(Param("src"), GP64()), Load(Param("ld"), GP64())
	rows := Load(Param("rows"), GP64())
	Label("loop")
	TESTQ(rows, rows)
	JZ(LabelRef("done"))
	if width == 16 {
		a, b := YMM(), YMM()
		VMOVUPS(Mem{Base: src}, a)
		VMOVUPS(Mem{Base: src, Disp: 32}, b)
		VMOVUPS(a, Mem{Base: dst})
		VMOVUPS(b, Mem{Base: dst, Disp: 32})
	} else {
		a, b := XMM(), XMM()
		VMOVUPS(Mem{Base: src}, a)
		VMOVSD(Mem{Base: src, Disp: 16}, b)
		VMOVUPS(a, Mem{Base: dst})
		VMOVSD(b, Mem{Base: dst, Disp: 16})
	}
	ADDQ(ld, src)
	ADDQ(ldd, dst)
	DECQ(rows)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// prefetchRows asks for parts of rows.
func prefetchRows() {
	TEXT("PrefetchRows", NOSPLIT, "func(p *byte, stride uintptr, rows, n int)")
	Doc("PrefetchRows fetches n bytes of each of some rows, stride bytes apart, to the second-level cache.")
	Pragma("noescape")
	p, stride := Load(Param("p"), GP64()), Load(Param("stride"), GP64())
	rows, n := Load(Param("rows"), GP64()), Load(Param("n"), GP64())
	Label("row")
	TESTQ(rows, rows)
	JLE(LabelRef("done"))
	at := GP64()
	XORQ(at, at)
	Label("line")
	PREFETCHT1(Mem{Base: p, Index: at, Scale: 1})
	ADDQ(Imm(64), at)
	CMPQ(at, n)
	JL(LabelRef("line"))
	PREFETCHT1(Mem{Base: p, Index: n, Scale: 1, Disp: -1})
	ADDQ(stride, p)
	DECQ(rows)
	JMP(LabelRef("row"))
	Label("done")
	RET()
}
