package main

import (
	"fmt"
	"math"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["coded"] = codedLoops }

// coded is a format of which rows are multiplied, or decoded, as they are stored.
type coded struct {
	name         string
	elems, bytes int // of a block

	// unroll is how many blocks a turn of the loop takes. scaled says that they begin with
	// a float16, which are widened together.
	unroll int
	scaled bool

	// rowScale says that each row has a scale.
	rowScale bool

	// decodes says that there is a loop that only decodes.
	decodes bool

	// constants loads what the loop needs, and block decodes a block that begins at src:
	// it calls d.put with each vector of elements.
	constants func(d *decoder)
	block     func(d *decoder, src Mem, at int)
}

// codedLoops has the products of one or a few rows of x with rows of each format, and
// what decodes those that are not decoded elsewhere. A loop is made by the same code in
// either case, so that products are with the values that decoding gives.
func codedLoops() {
	for _, f := range []coded{
		{name: "F32", elems: 64, bytes: 256, block: (*decoder).f32},
		{name: "F16", elems: 64, bytes: 128, block: (*decoder).f16},
		{name: "BF16", elems: 64, bytes: 128, block: (*decoder).bf16},
		{name: "Int8", elems: 64, bytes: 64, rowScale: true, constants: (*decoder).perRow, block: (*decoder).int8},
		{name: "E4M3", elems: 64, bytes: 64, rowScale: true, constants: (*decoder).perRowE4M3, block: (*decoder).e4M3},
		{name: "E5M2", elems: 64, bytes: 64, rowScale: true, constants: (*decoder).perRow, block: (*decoder).e5M2},
		{name: "Q8_0", elems: 32, bytes: 34, unroll: 4, scaled: true, block: (*decoder).q8_0},
		{name: "Q4_0", elems: 32, bytes: 18, unroll: 4, scaled: true, decodes: true, constants: (*decoder).eights, block: (*decoder).q4_0},
		{name: "Q5_0", elems: 32, bytes: 22, unroll: 4, scaled: true, decodes: true, constants: (*decoder).sixteens, block: (*decoder).q5_0},
		{name: "MXFP4", elems: 32, bytes: 17, unroll: 2, decodes: true, constants: (*decoder).valuesE2M1, block: (*decoder).mxfp4},
		{name: "IQ4_NL", elems: 32, bytes: 18, unroll: 4, scaled: true, decodes: true, constants: (*decoder).valuesIQ4, block: (*decoder).iq4_NL},
		{name: "IQ4_XS", elems: 256, bytes: 136, decodes: true, constants: (*decoder).valuesIQ4, block: (*decoder).iq4_XS},
		{name: "Q2_K", elems: 256, bytes: 84, decodes: true, block: (*decoder).q2_K},
		{name: "Q3_K", elems: 256, bytes: 110, decodes: true, block: (*decoder).q3_K},
		{name: "Q4_K", elems: 256, bytes: 144, decodes: true, constants: (*decoder).fours, block: (*decoder).q4_K},
		{name: "Q5_K", elems: 256, bytes: 176, decodes: true, block: (*decoder).q5_K},
		{name: "Q6_K", elems: 256, bytes: 210, decodes: true, block: (*decoder).q6_K},
	} {
		for _, l := range []lanes{avx512, avx2} {
			if f.decodes {
				f.decode(l)
			}
			f.dot(l, 1)
			if l.wide() {
				f.dot(l, 2)
				f.dot(l, 4)
			}
		}
	}
}

// sums is how many vectors of 16 sums each row of x has: elements i and i+16*sums go to
// the same one. It is the same in all variants, and so are the bits.
const sumsOfRow = 4

// decoder is a function in the making.
type decoder struct {
	l    lanes
	rows int // of x; 0 decodes

	src  reg.GPVirtual
	x    reg.GPVirtual // or where to
	ldx  reg.GPVirtual
	ldx3 reg.GPVirtual
	acc  []reg.VecVirtual

	room Mem // on the stack, of whole cache lines; made when first asked for

	// Of some formats.
	table         reg.VecVirtual
	nan           reg.VecVirtual // magnitudes of E4M3, the largest of each lane
	scale, factor reg.VecVirtual
	values        [16]int8

	// number is that of the block in a turn; together says that its scale is on the stack.
	number   int
	together bool
}

// put takes the decoded elements from number at of a turn on.
func (d *decoder) put(at int, v reg.VecVirtual) {
	if d.rows == 0 {
		VMOVUPS(v, Mem{Base: d.x, Disp: 4 * at})
		return
	}
	f := d.l.floats()
	n := at/16%sumsOfRow*(16/f) + at%16/f
	for r := range d.rows {
		m := Mem{Base: d.x, Disp: 4 * at}
		switch r {
		case 1, 2:
			m.Index, m.Scale = d.ldx, uint8(r)
		case 3:
			m.Index, m.Scale = d.ldx3, 1
		}
		VFMADD231PS(m, v, d.acc[r*sumsOfRow*(16/f)+n])
	}
}

// onStack has room for local data.
func (d *decoder) onStack() Mem {
	if d.room.Base == nil {
		p := GP64()
		LEAQ(AllocLocal(448).Offset(63), p)
		ANDQ(I8(-64), p)
		d.room = Mem{Base: p}
	}
	return d.room
}

func (f *coded) decode(l lanes) {
	l.begin("Decode"+f.name, "func(dst *float32, src *byte, blocks int)", "decodes blocks of "+f.name+".")
	d := &decoder{l: l, x: pointer("dst"), src: pointer("src")}
	blocks := pointer("blocks")
	f.start(d)
	f.blocks(d, blocks)
	end()
}

func (f *coded) dot(l lanes, rows int) {
	name := fmt.Sprintf("Dot%sx%d", f.name, rows)
	extra := ""
	if f.rowScale {
		extra = ", scales *float32, factor float32"
	}
	l.begin(name, "func(y *float32, ldy int, x *float32, ldx int, src *byte, skip, rows, blocks int"+extra+")",
		fmt.Sprintf("adds to y the dot products of %d rows of x, ldx bytes apart, with rows of blocks of %s, with skip bytes between; rows of y are ldy bytes apart.", rows, f.name))
	param := func(name string) Mem {
		b, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return b.Addr
	}
	d := &decoder{l: l, rows: rows, x: GP64(), src: pointer("src")}
	y, left, yp, n := pointer("y"), GP64(), GP64(), pointer("rows")
	if rows > 1 {
		d.ldx = pointer("ldx")
	}
	if rows > 3 {
		d.ldx3 = GP64()
		LEAQ(Mem{Base: d.ldx, Index: d.ldx, Scale: 2}, d.ldx3)
	}
	f.start(d)
	f32s := 16 / l.floats()
	for range rows * sumsOfRow * f32s {
		d.acc = append(d.acc, l.reg())
	}
	Label("row")
	for _, a := range d.acc {
		if l.wide() {
			VPXORD(a, a, a)
		} else {
			VXORPS(a, a, a)
		}
	}
	if d.nan != nil {
		VPXOR(d.nan.AsX(), d.nan.AsX(), d.nan.AsX())
	}
	if f.rowScale {
		p := GP64()
		MOVQ(param("scales"), p)
		VBROADCASTSS(Mem{Base: p}, d.scale)
		if f.name != "Int8" {
			VMULPS(d.factor, d.scale, d.scale)
		}
		ADDQ(Imm(4), p)
		MOVQ(p, param("scales"))
	}
	MOVQ(param("x"), d.x)
	MOVQ(param("blocks"), left)
	f.blocks(d, left)
	MOVQ(y, yp)
	for r := range rows {
		own := d.acc[r*sumsOfRow*f32s : (r+1)*sumsOfRow*f32s]
		for half := range f32s {
			at := func(i int) reg.VecVirtual { return own[i*f32s+half] }
			VADDPS(at(2), at(0), at(0))
			VADDPS(at(3), at(1), at(1))
			VADDPS(at(1), at(0), at(0))
		}
		w := w512
		if !l.wide() {
			VADDPS(own[1], own[0], own[0])
			w = w256
		}
		z := sumLanes(own[0], w)
		if d.nan != nil {
			d.spoil(z)
		}
		VADDSS(Mem{Base: yp}, z, z)
		VMOVSS(z, Mem{Base: yp})
		if r < rows-1 {
			ADDQ(param("ldy"), yp)
		}
	}
	ADDQ(Imm(4), y)
	ADDQ(param("skip"), d.src)
	DECQ(n)
	JNZ(LabelRef("row"))
	end()
}

func (f *coded) start(d *decoder) {
	if f.constants != nil {
		f.constants(d)
	}
	if f.elems == 256 || f.scaled || f.name == "MXFP4" {
		d.onStack()
	}
}

// blocks is the loop over blocks, as many as left says.
func (f *coded) blocks(d *decoder, left reg.GPVirtual) {
	turn := func(blocks int) {
		soon, distance := d.src, aheadCodes
		if d.rows > 1 {
			// More is done with a byte, and near the end of a part of a row the next is not what
			// lies behind it.
			distance /= d.rows
			soon = GP64()
			skip, err := Param("skip").Resolve()
			if err != nil {
				panic(err)
			}
			MOVQ(skip.Addr, soon)
			ADDQ(d.src, soon)
			CMPQ(left, U32((distance+f.bytes-1)/f.bytes))
			CMOVQGT(d.src, soon)
		}
		for at := 0; at < blocks*f.bytes; at += 64 {
			PREFETCHT0(Mem{Base: soon, Disp: distance + at})
		}
		d.together = f.scaled && blocks > 1
		if d.together {
			d.halves4(f.bytes)
		}
		for i := range blocks {
			d.number = i
			f.block(d, Mem{Base: d.src, Disp: i * f.bytes}, i*f.elems)
		}
		ADDQ(I32(blocks*f.bytes), d.src)
		ADDQ(I32(4*blocks*f.elems), d.x)
	}
	if f.unroll > 1 {
		Label("turn")
		CMPQ(left, Imm(uint64(f.unroll)))
		JL(LabelRef("last"))
		turn(f.unroll)
		SUBQ(Imm(uint64(f.unroll)), left)
		JMP(LabelRef("turn"))
		Label("last")
	} else {
		Label("last")
	}
	TESTQ(left, left)
	JZ(LabelRef("end"))
	turn(1)
	DECQ(left)
	JMP(LabelRef("last"))
	Label("end")
}

func (d *decoder) f32(src Mem, at int) {
	for i := 0; i < 64; i += d.l.floats() {
		v := d.l.reg()
		VMOVUPS(src.Offset(4*i), v)
		d.put(at+i, v)
	}
}

func (d *decoder) f16(src Mem, at int) {
	for i := 0; i < 64; i += d.l.floats() {
		v := d.l.reg()
		VCVTPH2PS(src.Offset(2*i), v)
		d.put(at+i, v)
	}
}

func (d *decoder) bf16(src Mem, at int) {
	for i := 0; i < 64; i += d.l.floats() {
		v := d.l.reg()
		VPMOVZXWD(src.Offset(2*i), v)
		VPSLLD(Imm(16), v, v)
		d.put(at+i, v)
	}
}

// perRow is for rows with a scale: scales has that of the next one.
func (d *decoder) perRow() { d.scale, d.factor = d.l.reg(), d.l.param("factor") }

func (d *decoder) int8(src Mem, at int) {
	for i := 0; i < 64; i += d.l.floats() {
		v := d.l.reg()
		VPMOVSXBD(src.Offset(i), v)
		VCVTDQ2PS(v, v)
		VMULPS(d.scale, v, v)
		VMULPS(d.factor, v, v)
		d.put(at+i, v)
	}
}

// perRowE4M3 is perRow, with what finds NaNs.
func (d *decoder) perRowE4M3() {
	d.perRow()
	d.nan = d.l.reg()
}

// eight decodes 8-bit floats by way of float16, of which they are a part: words of theirs become
// those by shift. The factor is that of float16 for them.
func (d *decoder) eight(at int, src Mem, shift uint64, keep uint32) {
	for i := 0; i < 64; i += d.l.floats() {
		v := d.l.reg()
		h := v.AsX()
		if d.l.wide() {
			h = v.AsY()
		}
		VPMOVSXBW(src.Offset(i), h)
		VPSLLW(Imm(shift), h, h)
		if keep != 0 {
			if d.l.wide() {
				VPANDD_BCST(d.l.data(floatOf(keep)), h, h)
			} else {
				VPAND(d.l.data(floatOf(keep)), h, h)
			}
		}
		VCVTPH2PS(h, v)
		VMULPS(d.scale, v, v)
		d.put(at+i, v)
	}
}

func (d *decoder) e5M2(src Mem, at int) { d.eight(at, src, 8, 0) }

// e4M3 has the sign in two bits of a word, of which it keeps one. The largest magnitude, which
// a float16 has a number for, is NaN: it is looked for when the row ends.
func (d *decoder) e4M3(src Mem, at int) {
	for i := 0; i < 64; i += d.l.bytes {
		t := d.l.reg()
		if d.l.wide() {
			VMOVDQU32(src, t)
			VPANDD_BCST(d.l.data(floatOf(repeated(0x7f))), t, t)
		} else {
			VMOVDQU(src.Offset(i), t)
			VPAND(d.l.data(floatOf(repeated(0x7f))), t, t)
		}
		VPMAXUB(t, d.nan, d.nan)
	}
	d.eight(at, src, 7, 0xbf80bf80)
}

// spoil makes a sum NaN if one of its terms was.
func (d *decoder) spoil(z reg.VecVirtual) {
	label := fmt.Sprintf("finite%d", d.number)
	d.number++
	if d.l.wide() {
		k, t := K(), ZMM()
		VPBROADCASTD(d.l.data(floatOf(repeated(0x7f))), t)
		VPCMPEQB(t, d.nan, k)
		KORTESTQ(k, k)
	} else {
		t, m := YMM(), GP32()
		VPCMPEQB(d.l.data(floatOf(repeated(0x7f))), d.nan, t)
		VPMOVMSKB(t, m)
		TESTL(m, m)
	}
	JZ(LabelRef(label))
	VADDSS(d.l.data(floatOf(0x7fc00000)), z, z)
	Label(label)
}

// half has a float16 in all lanes.
func (d *decoder) half(src Mem) reg.VecVirtual {
	v := d.l.reg()
	if d.l.wide() {
		VPBROADCASTW(src, v.AsY())
		VCVTPH2PS(v.AsY(), v)
	} else {
		VPBROADCASTW(src, v.AsX())
		VCVTPH2PS(v.AsX(), v)
	}
	return v
}

// halves4 widens the float16 at the beginnings of four blocks, to the stack.
func (d *decoder) halves4(size int) {
	all, h, x := GP64(), GP64(), XMM()
	for i := 3; i >= 0; i-- {
		MOVWQZX(Mem{Base: d.src, Disp: i * size}, h)
		if i == 3 {
			MOVQ(h, all)
			continue
		}
		SHLQ(Imm(16), all)
		ORQ(h, all)
	}
	VMOVQ(all, x)
	VCVTPH2PS(x, x)
	VMOVUPS(x, d.onStack())
}

// blockScale is the scale that a block begins with, in all lanes.
func (d *decoder) blockScale(src Mem) reg.VecVirtual {
	if !d.together {
		return d.half(src)
	}
	v := d.l.reg()
	VBROADCASTSS(d.onStack().Offset(4*d.number), v)
	return v
}

func (d *decoder) q8_0(src Mem, at int) {
	scale := d.blockScale(src)
	for i := 0; i < 32; i += d.l.floats() {
		d.signed(at+i, src.Offset(2+i), scale)
	}
}

// signed puts signed bytes times a scale.
func (d *decoder) signed(at int, src Mem, scale Op) {
	v := d.l.reg()
	VPMOVSXBD(src, v)
	VCVTDQ2PS(v, v)
	VMULPS(scale, v, v)
	d.put(at, v)
}

// fours and eights load what 4 bits are, and what they are less 8.
func (d *decoder) fours() { d.loadTable("fours", func(i int) int { return i }) }

func (d *decoder) eights() { d.loadTable("eights", func(i int) int { return i - 8 }) }

// sixteens is what 4 bits of 5 are, less 16.
func (d *decoder) sixteens() {
	if d.rows > 0 {
		d.loadTable("sixteens", func(i int) int { return i - 16 })
	}
}

// loadTable loads the values of 4 bits, where there is a register that holds them.
func (d *decoder) loadTable(name string, f func(i int) int) {
	if !d.l.wide() {
		return
	}
	d.table = ZMM()
	VMOVUPS(floats16(name, f), d.table)
}

// floats16 is 16 floats.
func floats16(name string, f func(i int) int) Mem {
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, U32(math.Float32bits(float32(f(i)))))
	}
	constants[name] = m
	return m
}

// nibbles puts the values of a table of 16 by the low halves of 16 bytes, and behind
// them by a distance those by the high halves, of another table perhaps.
func (d *decoder) nibbles(at, distance int, src Mem, low, high reg.VecVirtual) {
	a, b := ZMM(), ZMM()
	VPMOVZXBD(src, a)
	VPSRLD(Imm(4), a, b)
	VPERMPS(low, a, a)
	VPERMPS(high, b, b)
	d.put(at, a)
	d.put(at+distance, b)
}

func (d *decoder) q4_0(src Mem, at int) {
	scale := d.blockScale(src)
	if d.l.wide() {
		VMULPS(scale, d.table, scale)
		d.nibbles(at, 16, src.Offset(2), scale, scale)
		return
	}
	for i := 0; i < 16; i += 8 {
		for half, v := range d.halves(src.Offset(2 + i)) {
			VPSUBD(d.l.data(floatOf(8)), v, v)
			VCVTDQ2PS(v, v)
			VMULPS(scale, v, v)
			d.put(at+16*half+i, v)
		}
	}
}

// halves are the low and the high halves of 8 bytes.
func (d *decoder) halves(src Mem) [2]reg.VecVirtual {
	a, b := YMM(), YMM()
	VPMOVZXBD(src, a)
	VPSRLD(Imm(4), a, b)
	VPAND(d.l.data(floatOf(15)), a, a)
	return [2]reg.VecVirtual{a, b}
}

// Where things are on the stack: 16 scales, 16 low ends or 8 of each, 256 codes.
const (
	lows8  = 32
	lows16 = 64
	keptAt = 128
)

// and keeps the bits of m of each byte.
func (d *decoder) and(m byte, x, to reg.VecVirtual) {
	c := d.l.data(floatOf(repeated(m)))
	if d.l.wide() {
		VPANDD(c, x, to)
	} else {
		VPAND(c, x, to)
	}
}

func (d *decoder) or(a, b, to reg.VecVirtual) {
	if d.l.wide() {
		VPORD(a, b, to)
	} else {
		VPOR(a, b, to)
	}
}

// bitsOf puts the bits of m, shifted to the left or, if negative, right, into a new
// register.
func (d *decoder) bitsOf(x reg.VecVirtual, left int, m byte) reg.VecVirtual {
	to := YMM()
	from := x
	switch {
	case left > 0:
		VPSLLW(Imm(uint64(left)), x, to)
		from = to
	case left < 0:
		VPSRLW(Imm(uint64(-left)), x, to)
		from = to
	}
	d.and(m, from, to)
	return to
}

func (d *decoder) load32(src Mem) reg.VecVirtual {
	v := YMM()
	if d.l.wide() {
		VMOVDQU32(src, v)
	} else {
		VMOVDQU(src, v)
	}
	return v
}

// keep stores 32 codes, less so much.
func (d *decoder) keep(at int, v reg.VecVirtual, less byte) {
	if less > 0 {
		VPSUBB(d.l.data(floatOf(repeated(less))), v, v)
	}
	VMOVUPS(v, d.onStack().Offset(keptAt+at))
}

// keep64 is keep of 64 codes.
func (d *decoder) keep64(at int, v reg.VecVirtual, less byte) {
	if less > 0 {
		VPSUBB(bytesOf(fmt.Sprintf("less%d", less), 64, func(int) byte { return less }), v, v)
	}
	VMOVUPS(v, d.onStack().Offset(keptAt+at))
}

// group puts size codes from the stack, all with the scale of number n there and, if lows says
// where they are, the low end. A product rounds once where decoding rounds twice.
func (d *decoder) group(at, size, n int, code int, lows int) {
	room := d.onStack()
	scale, least := d.l.reg(), Op(room.Offset(lows+4*n))
	VBROADCASTSS(room.Offset(4*n), scale)
	if lows > 0 && !d.l.wide() {
		v := YMM()
		VBROADCASTSS(least, v)
		least = v
	}
	for i := 0; i < size; i += d.l.floats() {
		v := d.l.reg()
		VPMOVSXBD(room.Offset(keptAt+code+i), v)
		VCVTDQ2PS(v, v)
		d.scaled(v, scale, least, lows > 0)
		d.put(at+i, v)
	}
}

// scaled multiplies v by a scale and takes least from it, which is in memory if the vectors are
// wide.
func (d *decoder) scaled(v, scale reg.VecVirtual, least Op, low bool) {
	wide := d.l.wide()
	switch {
	case !low:
		VMULPS(scale, v, v)
	case d.rows > 0 && wide:
		VFMSUB213PS_BCST(least, scale, v)
	case d.rows > 0:
		VFMSUB213PS(least, scale, v)
	case wide:
		VMULPS(scale, v, v)
		VSUBPS_BCST(least, v, v)
	default:
		VMULPS(scale, v, v)
		VSUBPS(least, v, v)
	}
}

// multiples stores 8 or 16 bytes, a word of four in each register, times a unit.
func (d *decoder) multiples(at int, unit Mem, words []reg.GPVirtual, signed bool) {
	u := d.half(unit)
	for i := 0; i < len(words); i += 2 {
		x, v := XMM(), YMM()
		VMOVQ(eightBytes(words[i], words[i+1]), x)
		if signed {
			VPMOVSXBD(x, v)
		} else {
			VPMOVZXBD(x, v)
		}
		VCVTDQ2PS(v, v)
		VMULPS(u.AsY(), v, v)
		VMOVUPS(v, d.onStack().Offset(at+16*i))
	}
}

// word32 loads four bytes.
func word32(src Mem) reg.GPVirtual {
	w := GP32()
	MOVL(src, w)
	return w
}

// some is the bits of m of each byte, shifted to the left or, if negative, right.
func some(w reg.GPVirtual, left int, m byte) reg.GPVirtual {
	to := GP32()
	MOVL(w, to)
	if left > 0 {
		SHLL(Imm(uint64(left)), to)
	} else if left < 0 {
		SHRL(Imm(uint64(-left)), to)
	}
	ANDL(U32(repeated(m)), to)
	return to
}

func with(a, b reg.GPVirtual) reg.GPVirtual {
	ORL(b, a)
	return a
}

// sixBits stores the scales and low ends of Q4_K and Q5_K.
func (d *decoder) sixBits(src Mem) {
	a, b, c := word32(src.Offset(4)), word32(src.Offset(8)), word32(src.Offset(12))
	scales := []reg.GPVirtual{some(a, 0, 63), with(some(c, 0, 15), some(a, -2, 48))}
	lows := []reg.GPVirtual{some(b, 0, 63), with(some(c, -4, 15), some(b, -2, 48))}
	if !d.l.wide() {
		d.multiples(0, src, scales, false)
		d.multiples(lows8, src.Offset(2), lows, false)
		return
	}
	x, v, units := XMM(), ZMM(), ZMM()
	VMOVQ(eightBytes(scales[0], scales[1]), x)
	VPINSRQ(Imm(1), eightBytes(lows[0], lows[1]), x, x)
	VPMOVZXBD(x, v)
	VCVTDQ2PS(v, v)
	d.units(src, units, floats8())
	VMULPS(units, v, v)
	VMOVUPS(v, d.onStack())
}

// units has d and dmin, which follow one another, in the lanes that an index says.
func (d *decoder) units(src Mem, units reg.VecVirtual, index Mem) {
	i := ZMM()
	VMOVDQU32(index, i)
	VMOVD(src, units.AsX())
	VCVTPH2PS(units.AsX(), units.AsX())
	VPERMPS(units, i, units)
}

// floats8 is the index of d in eight lanes and dmin in the others.
func floats8() Mem {
	var list []uint32
	for i := range uint32(16) {
		list = append(list, i/8)
	}
	return wordsOnce("halfAndHalf", list)
}

func wordsOnce(name string, list []uint32) Mem {
	m, ok := constants[name]
	if !ok {
		m = words(name, list...)
		constants[name] = m
	}
	return m
}

func eightBytes(lo, hi reg.GPVirtual) reg.GPVirtual {
	l, h := lo.As64().(reg.GPVirtual), hi.As64().(reg.GPVirtual)
	SHLQ(Imm(32), h)
	ORQ(l, h)
	return h
}

func (d *decoder) q4_K(src Mem, at int) {
	d.sixBits(src)
	room := d.onStack()
	for n := range 4 {
		q := src.Offset(16 + 32*n)
		if d.l.wide() {
			var tables [2]reg.VecVirtual
			for i := range tables {
				t := ZMM()
				scale, low := room.Offset(4*(2*n+i)), room.Offset(lows8+4*(2*n+i))
				if d.rows > 0 {
					VBROADCASTSS(low, t)
					VFMSUB231PS_BCST(scale, d.table, t)
				} else {
					VMULPS_BCST(scale, d.table, t)
					VSUBPS_BCST(low, t, t)
				}
				tables[i] = t
			}
			for i := 0; i < 32; i += 16 {
				d.nibbles(at+64*n+i, 32, q.Offset(i), tables[0], tables[1])
			}
			continue
		}
		var scales, lows [2]reg.VecVirtual
		for i := range scales {
			scales[i], lows[i] = YMM(), YMM()
			VBROADCASTSS(room.Offset(4*(2*n+i)), scales[i])
			VBROADCASTSS(room.Offset(lows8+4*(2*n+i)), lows[i])
		}
		for i := 0; i < 32; i += 8 {
			for half, v := range d.halves(q.Offset(i)) {
				VCVTDQ2PS(v, v)
				d.scaled(v, scales[half], lows[half], true)
				d.put(at+64*n+32*half+i, v)
			}
		}
	}
}

// load64 loads 64 bytes.
func load64(src Mem) reg.VecVirtual {
	v := ZMM()
	VMOVDQU32(src, v)
	return v
}

// twice has 32 bytes two times, shifted to the right: words of the first by one
// number, those of the second by another.
func twice(src Mem, first, second uint64) reg.VecVirtual {
	v := ZMM()
	VBROADCASTI64X4(src, v)
	if first|second == 0 {
		return v
	}
	name := fmt.Sprintf("shifts%dand%d", first, second)
	m, ok := constants[name]
	if !ok {
		m = GLOBL(name, RODATA|NOPTR)
		for i := range 8 {
			n := first
			if i >= 4 {
				n = second
			}
			DATA(8*i, U64(n))
		}
		constants[name] = m
	}
	VPSRLVQ(m, v, v)
	return v
}

// joined is the low halves of the bytes of a, shifted to the right by as many bits, with the bits
// of high that b has above them, shifted to the left.
func (d *decoder) joined(a reg.VecVirtual, right int, b reg.VecVirtual, left int, high byte) reg.VecVirtual {
	v, t := ZMM(), b
	if left > 0 {
		t = ZMM()
		VPSLLW(Imm(uint64(left)), b, t)
	}
	if right > 0 {
		VPSRLW(Imm(uint64(right)), a, v)
	} else {
		VMOVDQA32(a, v)
	}
	// The bits that the mask says from a, the others from b.
	const choose = 0xe2
	mask := ZMM()
	VPBROADCASTD(d.l.data(floatOf(repeated(15))), mask)
	VPTERNLOGD(Imm(choose), t, mask, v)
	VPANDD_BCST(d.l.data(floatOf(repeated(15|high))), v, v)
	return v
}

func (d *decoder) q5_K(src Mem, at int) {
	d.sixBits(src)
	// Where on the stack the codes of a group are.
	place := func(g int) int { return 32 * g }
	if d.l.wide() {
		place = func(g int) int { return g/4*128 + g%2*64 + g/2%2*32 }
		for n := 0; n < 4; n += 2 {
			q, high := load64(src.Offset(48+32*n)), twice(src.Offset(16), uint64(2*n), uint64(2*n+2))
			d.keep64(64*n, d.joined(q, 0, high, 4, 16), 0)
			d.keep64(64*n+64, d.joined(q, 4, high, 3, 16), 0)
		}
	} else {
		for n := range 4 {
			high, q := d.load32(src.Offset(16)), d.load32(src.Offset(48+32*n))
			for half := range 2 {
				v := d.bitsOf(q, -4*half, 15)
				d.or(d.bitsOf(high, 4-(2*n+half), 16), v, v)
				d.keep(64*n+32*half, v, 0)
			}
		}
	}
	for g := range 8 {
		d.group(at+32*g, 32, g, place(g), lows8)
	}
}

func (d *decoder) q6_K(src Mem, at int) {
	if d.l.wide() {
		v := ZMM()
		VPMOVSXBD(src.Offset(192), v)
		VCVTDQ2PS(v, v)
		VMULPS(d.half(src.Offset(208)), v, v)
		VMOVUPS(v, d.onStack())
		for part := range 2 {
			q, high := load64(src.Offset(64*part)), twice(src.Offset(128+32*part), 0, 2)
			d.keep64(128*part, d.joined(q, 0, high, 4, 48), 32)
			d.keep64(128*part+64, d.joined(q, 4, high, 0, 48), 32)
		}
	} else {
		var words []reg.GPVirtual
		for i := range 4 {
			words = append(words, word32(src.Offset(192+4*i)))
		}
		d.multiples(0, src.Offset(208), words, true)
		for part := range 2 {
			high := d.load32(src.Offset(128 + 32*part))
			for i := range 2 {
				q := d.load32(src.Offset(64*part + 32*i))
				for half := range 2 {
					n := 2*half + i
					v := d.bitsOf(q, -4*half, 15)
					d.or(d.bitsOf(high, 4-2*n, 48), v, v)
					d.keep(128*part+32*n, v, 32)
				}
			}
		}
	}
	for g := range 16 {
		d.group(at+16*g, 16, g, 16*g, 0)
	}
}

// place2 is where on the stack the codes of a group of 16 of Q2_K and Q3_K are: what has 64
// bytes makes those of both halves at once.
func (d *decoder) place2(g int) int {
	if d.l.wide() {
		return g%8/2*64 + g/8*32 + g%2*16
	}
	return 16 * g
}

// twoBits is a number of two bits of 64 bytes.
func (d *decoder) twoBits(q reg.VecVirtual, n int) reg.VecVirtual {
	v := ZMM()
	if n == 0 {
		VPANDD_BCST(d.l.data(floatOf(repeated(3))), q, v)
		return v
	}
	VPSRLW(Imm(uint64(2*n)), q, v)
	VPANDD_BCST(d.l.data(floatOf(repeated(3))), v, v)
	return v
}

func (d *decoder) q2_K(src Mem, at int) {
	if d.l.wide() {
		x, y, d0, d1 := XMM(), XMM(), ZMM(), ZMM()
		VMOVDQU32(src, x)
		VPSRLW(Imm(4), x, y)
		d.units(src.Offset(80), d0, wordsOnce("first16", make([]uint32, 16)))
		d.units(src.Offset(80), d1, wordsOnce("second16", slices.Repeat([]uint32{1}, 16)))
		for i, b := range []reg.VecVirtual{x, y} {
			v := ZMM()
			VPANDD_BCST(d.l.data(floatOf(repeated(15))), b, b)
			VPMOVZXBD(b, v)
			VCVTDQ2PS(v, v)
			VMULPS([]reg.VecVirtual{d0, d1}[i], v, v)
			VMOVUPS(v, d.onStack().Offset(i*lows16))
		}
		q := load64(src.Offset(16))
		for n := range 4 {
			d.keep64(64*n, d.twoBits(q, n), 0)
		}
	} else {
		for half, to := range []int{0, lows16} {
			var words []reg.GPVirtual
			for i := range 4 {
				words = append(words, some(word32(src.Offset(4*i)), -4*half, 15))
			}
			d.multiples(to, src.Offset(80+2*half), words, false)
		}
		for part := range 2 {
			q := d.load32(src.Offset(16 + 32*part))
			for n := range 4 {
				d.keep(128*part+32*n, d.bitsOf(q, -2*n, 3), 0)
			}
		}
	}
	for g := range 16 {
		d.group(at+16*g, 16, g, d.place2(g), lows16)
	}
}

func (d *decoder) q3_K(src Mem, at int) {
	a, b, t := word32(src.Offset(96)), word32(src.Offset(100)), word32(src.Offset(104))
	words := []reg.GPVirtual{
		with(some(a, 0, 15), some(t, 4, 48)), with(some(b, 0, 15), some(t, 2, 48)),
		with(some(a, -4, 15), some(t, 0, 48)), with(some(b, -4, 15), some(t, -2, 48)),
	}
	for i, w := range words {
		// No byte is below 32 with its top bit set, or borrows from the next.
		u := GP32()
		MOVL(w, u)
		ORL(U32(repeated(0x80)), u)
		SUBL(U32(repeated(32)), u)
		XORL(U32(repeated(0x80)), u)
		words[i] = u
	}
	d.multiples(0, src.Offset(108), words, true)
	if d.l.wide() {
		q := load64(src.Offset(32))
		for n := range 4 {
			// Of the fifth and later values of a byte the highest bit is four further up.
			v, high := d.twoBits(q, n), twice(src, uint64(n), uint64(4+n))
			VPSLLW(Imm(2), high, high)
			VPANDD_BCST(d.l.data(floatOf(repeated(4))), high, high)
			VPORD(high, v, v)
			d.keep64(64*n, v, 4)
		}
	} else {
		for part := range 2 {
			high, q := d.load32(src), d.load32(src.Offset(32+32*part))
			for n := range 4 {
				v := d.bitsOf(q, -2*n, 3)
				d.or(d.bitsOf(high, 2-(4*part+n), 4), v, v)
				d.keep(128*part+32*n, v, 4)
			}
		}
	}
	for g := range 16 {
		d.group(at+16*g, 16, g, d.place2(g), 0)
	}
}

// split is the low halves of 16 bytes, and then the high ones.
func (d *decoder) split(src Mem) reg.VecVirtual {
	a, b, v := XMM(), XMM(), YMM()
	if d.l.wide() {
		VMOVDQU32(src, a)
	} else {
		VMOVDQU(src, a)
	}
	VPSRLW(Imm(4), a, b)
	if d.l.wide() {
		VINSERTI32X4(Imm(1), b, a.AsY(), v)
	} else {
		VINSERTI128(Imm(1), b, a.AsY(), v)
	}
	d.and(15, v, v)
	return v
}

func (d *decoder) q5_0(src Mem, at int) {
	scale := d.blockScale(src)
	if d.table != nil {
		// Products of a float16 and five bits are exact, and so is their sum.
		more, a, b, k := ZMM(), ZMM(), ZMM(), K()
		VMULPS_BCST(d.l.data(16), scale, more)
		VMULPS(scale, d.table, scale)
		VPMOVZXBD(src.Offset(6), a)
		VPSRLD(Imm(4), a, b)
		VPERMPS(scale, a, a)
		VPERMPS(scale, b, b)
		KMOVD(src.Offset(2), k)
		VADDPS(more, a, k, a)
		KSHIFTRD(Imm(16), k, k)
		VADDPS(more, b, k, b)
		d.put(at, a)
		d.put(at+16, b)
		return
	}
	v, bits := d.split(src.Offset(6)), YMM()
	VPBROADCASTD(src.Offset(2), bits)
	VPSHUFB(bytesOf("eighths", 32, func(i int) byte { return byte(i / 8) }), bits, bits)
	// Without its fifth bit a number is 16 less.
	own := bytesOf("ownBit", 32, func(i int) byte { return 1 << (i % 8) })
	if d.l.wide() {
		VPANDND(own, bits, bits)
	} else {
		VPANDN(own, bits, bits)
	}
	VPMINUB(d.l.data(floatOf(repeated(1))), bits, bits)
	VPSLLW(Imm(4), bits, bits)
	VPSUBB(bits, v, v)
	place := 32 * (at / 32 % 8)
	d.keep(place, v, 0)
	for i := 0; i < 32; i += d.l.floats() {
		d.signed(at+i, d.onStack().Offset(keptAt+place+i), scale)
	}
}

// bytesOf is n bytes of data.
func bytesOf(name string, n int, f func(i int) byte) Mem {
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range n {
		DATA(i, U8(f(i)))
	}
	constants[name] = m
	return m
}

func (d *decoder) valuesE2M1() {
	d.values = [16]int8{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
	d.loadTable("valuesE2M1", func(i int) int { return int(d.values[i]) })
}

func (d *decoder) valuesIQ4() {
	d.values = [16]int8{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	d.loadTable("valuesIQ4", func(i int) int { return int(d.values[i]) })
}

// looked puts the values of 32 halves of 16 bytes, times a scale.
func (d *decoder) looked(at int, src Mem, scale reg.VecVirtual) {
	if d.l.wide() {
		VMULPS(scale, d.table, scale)
		d.nibbles(at, 16, src, scale, scale)
		return
	}
	v, t := d.split(src), YMM()
	table := bytesOf(fmt.Sprintf("values%x", uint8(d.values[1])), 32, func(i int) byte { return byte(d.values[i%16]) })
	VMOVDQU(table, t)
	VPSHUFB(v, t, v)
	place := 32 * (at / 32 % 8)
	d.keep(place, v, 0)
	for i := 0; i < 32; i += d.l.floats() {
		d.signed(at+i, d.onStack().Offset(keptAt+place+i), scale)
	}
}

func (d *decoder) mxfp4(src Mem, at int) {
	e, small, scale := GP32(), GP32(), d.l.reg()
	MOVBLZX(src, e)
	MOVL(U32(0x200000), small)
	t := GP32()
	MOVL(e, t)
	ANDL(Imm(1), t)
	// 0 and 1 are subnormal.
	double := GP32()
	LEAL(Mem{Base: small, Index: small, Scale: 1}, double)
	TESTL(t, t)
	CMOVLNE(double, small)
	LEAL(Mem{Base: e, Disp: -1}, t)
	SHLL(Imm(23), t)
	CMPL(e, Imm(2))
	CMOVLCS(small, t)
	m := d.onStack().Offset(4 * d.number)
	MOVL(t, m)
	VBROADCASTSS(m, scale)
	d.looked(at, src.Offset(1), scale)
}

func (d *decoder) iq4_NL(src Mem, at int) { d.looked(at, src.Offset(2), d.blockScale(src)) }

func (d *decoder) iq4_XS(src Mem, at int) {
	low, high := YMM(), YMM()
	VPBROADCASTD(src.Offset(4), low)
	VPBROADCASTW(src.Offset(2), high)
	VPSRLVD(wordsOnce("fourths", []uint32{0, 4, 8, 12, 16, 20, 24, 28}), low, low)
	VPSRLVD(wordsOnce("pairs", []uint32{0, 2, 4, 6, 8, 10, 12, 14}), high, high)
	VPSLLD(Imm(4), high, high)
	for _, x := range []struct {
		v reg.VecVirtual
		m uint32
	}{{low, 15}, {high, 48}} {
		if d.l.wide() {
			VPANDD(d.l.data(floatOf(x.m)), x.v, x.v)
		} else {
			VPAND(d.l.data(floatOf(x.m)), x.v, x.v)
		}
	}
	d.or(low, high, low)
	VPSUBD(d.l.data(floatOf(32)), low, low)
	VCVTDQ2PS(low, low)
	VMULPS(d.half(src).AsY(), low, low)
	VMOVUPS(low, d.onStack())
	for g := range 8 {
		scale := d.l.reg()
		VBROADCASTSS(d.onStack().Offset(4*g), scale)
		d.looked(at+32*g, src.Offset(8+16*g), scale)
	}
}
