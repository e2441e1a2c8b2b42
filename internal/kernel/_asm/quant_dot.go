package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A width is one size of vector registers.
type width struct {
	name  string
	bytes int
	reg   func() VecVirtual
}

var (
	w512 = width{"AVX512", 64, ZMM}
	w256 = width{"AVX2", 32, YMM}
)

// dots makes the loops of products with few rows: dot products of mr rows of x with
// nr rows of w.
func dots() {
	for mr := 1; mr <= 4; mr++ {
		for _, nr := range []int{1, 4} {
			dotsOf(w512, mr, nr)
		}
		for _, nr := range []int{1, 2} {
			dotsOf(w256, mr, nr)
		}
	}
}

func dotsOf(w width, mr, nr int) {
	name := fmt.Sprintf("Dots%dx%d%s", mr, nr, w.name)
	TEXT(name, NOSPLIT, "func(out, x *float32, ldx int, w *float32, ldw, k int)")
	Doc(fmt.Sprintf("%s computes the dot products of %d rows of x with %d of w, rows ldx and ldw floats", name, mr, nr),
		fmt.Sprintf("apart, over k floats, a multiple of %d. out gets those of the first row of x first.", w.bytes/4))
	Pragma("noescape")
	p := pointers("out", "x", "ldx", "w", "ldw", "k")
	out, x, ldx, wp, ldw, k := p[0], p[1], p[2], p[3], p[4], p[5]
	SHLQ(Imm(2), ldx)
	SHLQ(Imm(2), ldw)
	at := func(base, ld, ld3 Register, row, disp int) Mem {
		switch row {
		case 0:
			return Mem{Base: base, Disp: disp}
		case 3:
			return Mem{Base: base, Index: ld3, Scale: 1, Disp: disp}
		}
		return Mem{Base: base, Index: ld, Scale: uint8(row), Disp: disp}
	}
	var ldx3, ldw3 Register
	if mr == 4 {
		ldx3 = GP64()
		LEAQ(Mem{Base: ldx, Index: ldx, Scale: 2}, ldx3)
	}
	if nr == 4 {
		ldw3 = GP64()
		LEAQ(Mem{Base: ldw, Index: ldw, Scale: 2}, ldw3)
	}

	// A sum takes 4 cycles and two start in each: eight of them keep the machine busy.
	unroll := max(1, min(4, 8/(mr*nr)))
	acc := make([]VecVirtual, unroll*mr*nr)
	for i := range acc {
		acc[i] = w.reg()
		zero(acc[i], w)
	}
	step := func(u int) {
		ws := make([]VecVirtual, nr)
		for j := range ws {
			ws[j] = w.reg()
			VMOVUPS(at(wp, ldw, ldw3, j, u*w.bytes), ws[j])
		}
		for i := range mr {
			xi := Op(at(x, ldx, ldx3, i, u*w.bytes))
			if nr > 1 {
				r := w.reg()
				VMOVUPS(xi, r)
				xi = r
			}
			for j := range ws {
				VFMADD231PS(xi, ws[j], acc[(u*mr+i)*nr+j])
			}
		}
	}
	loop := func(label string, steps int) {
		Label(label)
		CMPQ(k, U32(steps*w.bytes/4))
		JL(LabelRef(label + "End"))
		for u := range steps {
			step(u)
		}
		ADDQ(U32(steps*w.bytes), x)
		ADDQ(U32(steps*w.bytes), wp)
		SUBQ(U32(steps*w.bytes/4), k)
		JMP(LabelRef(label))
		Label(label + "End")
	}
	if unroll > 1 {
		loop("many", unroll)
	}
	loop("one", 1)
	for i := range mr * nr {
		for u := 1; u < unroll; u++ {
			VADDPS(acc[u*mr*nr+i], acc[i], acc[i])
		}
		VMOVSS(sumLanes(acc[i], w), Mem{Base: out, Disp: 4 * i})
	}
	VZEROUPPER()
	RET()
}

func zero(v VecVirtual, w width) {
	if w.bytes == 64 {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
}

// sumLanes returns the sum of the lanes of v.
func sumLanes(v VecVirtual, w width) VecVirtual {
	z := XMM()
	if w.bytes == 64 {
		y := YMM()
		VEXTRACTF64X4(Imm(1), v, y)
		VADDPS(y, v.AsY(), y)
		VEXTRACTF32X4(Imm(1), y, z)
		VADDPS(z, y.AsX(), z)
	} else {
		VEXTRACTF128(Imm(1), v, z)
		VADDPS(z, v.AsX(), z)
	}
	addLanes(z)
	return z
}

func splitAVX512() {
	var even, odd []uint32
	for i := range uint32(16) {
		even, odd = append(even, 2*i), append(odd, 2*i+1)
	}
	evens, odds := words("evens", even...), words("odds", odd...)
	TEXT("SplitAVX512", NOSPLIT, "func(dst, x *float32, n int)")
	Doc("SplitAVX512 moves the even elements of each 32 floats before the odd ones.")
	Pragma("noescape")
	p := pointers("dst", "x", "n")
	dst, x, n := p[0], p[1], p[2]
	e, o := ZMM(), ZMM()
	VMOVDQU32(evens, e)
	VMOVDQU32(odds, o)
	Label("loop")
	a, b := ZMM(), ZMM()
	VMOVUPS(Mem{Base: x}, a)
	for i, idx := range []VecVirtual{e, o} {
		VMOVAPS(idx, b)
		VPERMI2PS(Mem{Base: x, Disp: 64}, a, b)
		VMOVUPS(b, Mem{Base: dst, Disp: 64 * i})
	}
	ADDQ(U32(128), x)
	ADDQ(U32(128), dst)
	SUBQ(Imm(32), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func splitAVX2() {
	TEXT("SplitAVX2", NOSPLIT, "func(dst, x *float32, n int)")
	Doc("SplitAVX2 moves the even elements of each 16 floats before the odd ones.")
	Pragma("noescape")
	p := pointers("dst", "x", "n")
	dst, x, n := p[0], p[1], p[2]
	Label("loop")
	a, b := YMM(), YMM()
	VMOVUPS(Mem{Base: x}, a)
	for i, which := range []int{0x88, 0xdd} {
		VSHUFPS(Imm(uint64(which)), Mem{Base: x, Disp: 32}, a, b)
		VPERMPD(Imm(0xd8), b, b)
		VMOVUPS(b, Mem{Base: dst, Disp: 32 * i})
	}
	ADDQ(Imm(64), x)
	ADDQ(Imm(64), dst)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// aheadCodes is how many bytes ahead codes are asked for: what the processor fetches by
// itself stops at the end of a page, which is two rows.
const aheadCodes = 3072

// dot4 makes the loop of a product with mr rows of x from 4-bit codes. No value is
// written to memory: a byte is widened to a lane, its low nibble looks up an odd
// element and its high nibble an even one.
func dot4(w width, mr int) {
	name := fmt.Sprintf("Dot4x%d%s", mr, w.name)
	per := w.bytes / 2 // elements of a step
	TEXT(name, NOSPLIT, "func(y *float32, ldy int, x *float32, ldx int, codes *byte, codesSkip int, values, absmax *float32, absmaxSkip, rows, blocks, block int)")
	Doc(fmt.Sprintf("%s adds to y the dot products of %d rows of x, in the order of Split%s, with rows of", name, mr, w.name),
		"blocks of codes; row j of them adds to element j of a row of y. All that is between rows is in",
		fmt.Sprintf("bytes: ldy and ldx from row to row, the skips from the end of one to the next. block is a multiple of %d.", 2*per))
	Pragma("noescape")
	// What the inner loop does not need stays where it was passed.
	param := func(name string) Mem {
		b, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return b.Addr
	}
	p := pointers("y", "x", "ldx", "codes", "absmax", "rows")
	y, x, ldx, codes, absmax, rows := p[0], p[1], p[2], p[3], p[4], p[5]
	xp, yp, left, in := GP64(), GP64(), GP64(), GP64()
	var ldx3, values Register
	if mr == 4 {
		ldx3 = GP64()
		LEAQ(Mem{Base: ldx, Index: ldx, Scale: 2}, ldx3)
	}
	values = Load(Param("values"), GP64())
	var table VecVirtual
	if w.bytes == 64 {
		table = ZMM()
		VMOVUPS(Mem{Base: values}, table)
	}
	at := func(row, disp int) Mem {
		switch row {
		case 0:
			return Mem{Base: xp, Disp: disp}
		case 3:
			return Mem{Base: xp, Index: ldx3, Scale: 1, Disp: disp}
		}
		return Mem{Base: xp, Index: ldx, Scale: uint8(row), Disp: disp}
	}
	sets := 1 // of sums: eight of them, or four for one row, keep the machine busy
	if mr < 3 {
		sets = 2
	}
	acc := make([]VecVirtual, sets*2*mr)
	for i := range acc {
		acc[i] = w.reg()
	}
	Label("row")
	TESTQ(rows, rows)
	JZ(LabelRef("done"))
	DECQ(rows)
	for _, a := range acc {
		zero(a, w)
	}
	MOVQ(x, xp)
	MOVQ(param("blocks"), left)
	Label("block")
	PREFETCHT0(Mem{Base: codes, Disp: aheadCodes})
	// The products are with the values that decoding gives.
	lo, hi := w.reg(), w.reg()
	if w.bytes == 64 {
		VMULPS_BCST(Mem{Base: absmax}, table, lo)
	} else {
		VBROADCASTSS(Mem{Base: absmax}, hi)
		VMULPS(Mem{Base: values}, hi, lo)
		VMULPS(Mem{Base: values, Disp: 32}, hi, hi)
	}
	ADDQ(Imm(4), absmax)
	MOVQ(param("block"), in)
	Label("loop")
	for i := range 2 {
		odd, even := w.reg(), w.reg()
		VPMOVZXBD(Mem{Base: codes, Disp: i * per / 2}, odd)
		VPSRLD(Imm(4), odd, even)
		for half, idx := range []VecVirtual{even, odd} {
			v := idx
			if w.bytes == 64 {
				VPERMPS(lo, idx, v)
			} else {
				t := w.reg()
				v = w.reg()
				lookup16(idx, lo, hi, v, t)
			}
			for r := range mr {
				VFMADD231PS(at(r, 4*i*per+half*w.bytes), v, acc[(i%sets*2+half)*mr+r])
			}
		}
	}
	ADDQ(U32(8*per), xp)
	ADDQ(Imm(uint64(per)), codes)
	SUBQ(Imm(uint64(2*per)), in)
	JNZ(LabelRef("loop"))
	DECQ(left)
	JNZ(LabelRef("block"))
	MOVQ(y, yp)
	for r := range mr {
		for n := len(acc) / mr / 2; n > 0; n /= 2 {
			for i := range n {
				VADDPS(acc[(i+n)*mr+r], acc[i*mr+r], acc[i*mr+r])
			}
		}
		z := sumLanes(acc[r], w)
		VADDSS(Mem{Base: yp}, z, z)
		VMOVSS(z, Mem{Base: yp})
		ADDQ(param("ldy"), yp)
	}
	ADDQ(Imm(4), y)
	ADDQ(param("codesSkip"), codes)
	ADDQ(param("absmaxSkip"), absmax)
	JMP(LabelRef("row"))
	Label("done")
	VZEROUPPER()
	RET()
}
