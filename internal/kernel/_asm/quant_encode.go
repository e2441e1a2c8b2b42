package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Where kernel.codeTable has its parts.
const (
	heapAt   = 0
	codesAt  = 64
	rankedAt = 128
	boundsAt = 192
	ranksAt  = 320
)

const (
	greater  = 30         // predicate of VCMPPS: greater, quiet, false for NaN
	infinite = 0x7f800000 // the bits of +Inf
)

var encodeConst struct{ abs, one, two, oneF, minusOneF, weights, tiny, steps, magic, pairs512, pairs256, bytes256, quarters Mem }

func encodeConstants() {
	c := &encodeConst
	c.abs = words("absMask", 0x7fffffff)
	c.one = words("one", 1)
	c.two = words("two", 2, 2, 2, 2, 2, 2, 2, 2)
	c.oneF = words("oneF", 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000)
	c.minusOneF = words("minusOneF", 0xbf800000, 0xbf800000, 0xbf800000, 0xbf800000, 0xbf800000, 0xbf800000, 0xbf800000, 0xbf800000)
	// 16 times the even code plus the odd one.
	c.weights = words("nibbleWeights", 1<<16|16, 1<<16|16, 1<<16|16, 1<<16|16, 1<<16|16, 1<<16|16, 1<<16|16, 1<<16|16)
	c.tiny = words("tinyAbsmax", 0x006ce3ee) // 1e-38
	// The sum of 15 times a value and this has, as its last five bits, 16 more than
	// the product rounded.
	c.steps = words("gridSteps", 0x41700000)
	c.magic = words("gridMagic", 0x4b400010)
	// What undoes that VPACKUSDW takes turns between its operands.
	c.pairs512 = words("pairs512", 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)
	c.quarters = words("quarters", 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	c.pairs256 = words("pairs256", 0, 1, 4, 5, 2, 3, 6, 7)
	c.bytes256 = words("bytes256", 0x0c080400, 0x80808080, 0x80808080, 0x80808080, 0x0c080400, 0x80808080, 0x80808080, 0x80808080)
}

// aheadFloats is how many bytes ahead floats are asked for: what the processor fetches by
// itself stops at the end of a page.
const aheadFloats = 4096

// encode4AVX512 makes the loop that goes down the heap of thresholds, or the one for
// codes in the order of their values that looks in a grid.
func encode4AVX512(name string, grid bool) {
	c := &encodeConst
	TEXT(name, NOSPLIT, "func(codes *byte, absmax, moments, x *float32, blocks, block int, table *float32) int")
	if grid {
		Doc(name+" is Encode4AVX512 for codes in the order of their values, where no two thresholds",
			"are nearest to the same multiple of 1/15.")
	} else {
		Doc(name+" encodes blocks of a multiple of 32 elements and returns how many it did: all, or",
			"those before one with a NaN or an infinity. moments has three sums for each block.")
	}
	Pragma("noescape")
	p := pointers("codes", "absmax", "moments", "x", "blocks", "block", "table")
	codes, absmax, moments, x, blocks, block, table := p[0], p[1], p[2], p[3], p[4], p[5], p[6]

	load := func(at int) VecVirtual {
		z := ZMM()
		VMOVUPS(Mem{Base: table, Disp: at}, z)
		return z
	}
	abs, ranked, one, oneF, weights, order := ZMM(), load(rankedAt), ZMM(), ZMM(), ZMM(), ZMM()
	VPBROADCASTD(c.abs, abs)
	VPBROADCASTD(c.one, one)
	VBROADCASTSS(c.oneF, oneF)
	k := K()
	var find func(s VecVirtual) (rank VecVirtual)
	var toCode VecVirtual
	if grid {
		bounds, ranks := [2]VecVirtual{load(boundsAt), load(boundsAt + 64)}, [2]VecVirtual{load(ranksAt), load(ranksAt + 64)}
		steps, magic := ZMM(), ZMM()
		VBROADCASTSS(c.steps, steps)
		VBROADCASTSS(c.magic, magic)
		find = func(s VecVirtual) VecVirtual {
			j, bound := ZMM(), ZMM()
			VMOVAPS(s, j)
			VFMADD213PS(magic, steps, j)
			VMOVAPS(j, bound)
			VPERMI2PS(bounds[1], bounds[0], bound)
			VPERMI2D(ranks[1], ranks[0], j)
			VCMPPS(Imm(greater), bound, s, k)
			VPADDD(one, j, k, j)
			return j
		}
	} else {
		toCode = load(codesAt)
		heap, root, two, three := load(heapAt), ZMM(), ZMM(), ZMM()
		VBROADCASTSS(Mem{Base: table, Disp: heapAt + 4}, root)
		VPADDD(one, one, two)
		VPADDD(one, two, three)
		find = func(s VecVirtual) VecVirtual {
			j, t := ZMM(), ZMM()
			VCMPPS(Imm(greater), root, s, k)
			VPBLENDMD(three, two, k, j)
			for range 3 {
				VPERMPS(heap, j, t)
				VCMPPS(Imm(greater), t, s, k)
				VPADDD(j, j, j)
				VPADDD(one, j, k, j)
			}
			return j
		}
	}
	VPBROADCASTD(c.weights, weights)
	VMOVDQU32(c.pairs512, order)

	first, three := ZMM(), K()
	VMOVDQU32(c.quarters, first)

	done, left, from, bits := GP64(), GP64(), GP64(), GP32()
	MOVL(U32(7), bits)
	KMOVW(bits, three)
	XORQ(done, done)
	Label("block")
	CMPQ(done, blocks)
	JGE(LabelRef("done"))

	// As integers without their sign, a NaN is larger than an infinity and that
	// than all else.
	top, t := ZMM(), ZMM()
	VPXORD(top, top, top)
	MOVQ(block, left)
	MOVQ(x, from)
	Label("top")
	for i := range 2 {
		PREFETCHT0(Mem{Base: from, Disp: aheadFloats + 64*i})
		VPANDD(Mem{Base: from, Disp: 64 * i}, abs, t)
		VPMAXUD(t, top, top)
	}
	ADDQ(Imm(128), from)
	SUBQ(Imm(32), left)
	JNZ(LabelRef("top"))
	y, z := YMM(), XMM()
	VEXTRACTI64X4(Imm(1), top, y)
	VPMAXUD(y, top.AsY(), y)
	VEXTRACTI32X4(Imm(1), y, z)
	VPMAXUD(z, y.AsX(), z)
	maxLanes(z)
	VMOVD(z, bits)
	CMPL(bits, U32(infinite))
	JAE(LabelRef("done"))
	VMOVSS(z, Mem{Base: absmax})
	inv := ZMM()
	reciprocal(z)
	VBROADCASTSS(z, inv)

	err, mixed, square := ZMM(), ZMM(), ZMM()
	VPXORD(err, err, err)
	VPXORD(mixed, mixed, mixed)
	VPXORD(square, square, square)
	MOVQ(block, left)
	rank := func(at int) VecVirtual {
		s, d, v := ZMM(), ZMM(), ZMM()
		VMULPS(Mem{Base: x, Disp: at}, inv, s)
		VRANGEPS(Imm(2), oneF, s, s) // the smaller magnitude, with the sign of s
		j := find(s)
		VPERMPS(ranked, j, v)
		VSUBPS(v, s, d)
		addProduct(ZMM(), err, d, d)
		addProduct(ZMM(), mixed, d, v)
		addProduct(ZMM(), square, v, v)
		if !grid {
			VPERMD(toCode, j, j)
		}
		return j
	}
	Label("loop")
	a, b := rank(0), rank(64)
	VPACKUSDW(b, a, a)
	VPMADDWD(weights, a, a)
	VPERMD(a, order, a)
	VPMOVDB(a, Mem{Base: codes})
	ADDQ(Imm(16), codes)
	ADDQ(Imm(128), x)
	SUBQ(Imm(32), left)
	JNZ(LabelRef("loop"))

	// The sums of lanes i and i+8 of two registers, then those of i and i+4 of all
	// three, are made at once, so that each of them is in a quarter.
	halves, t1 := ZMM(), ZMM()
	VSHUFF32X4(Imm(0x44), mixed, err, halves)
	VSHUFF32X4(Imm(0xee), mixed, err, t1)
	VADDPS(t1, halves, halves)
	VSHUFF32X4(Imm(0xee), square, square, t1)
	VADDPS(t1, square, square)
	VSHUFF32X4(Imm(0x88), square, halves, err)
	VSHUFF32X4(Imm(0xdd), square, halves, mixed)
	VADDPS(mixed, err, err)
	VPERMILPS(Imm(0x0e), err, t1)
	VADDPS(t1, err, err)
	VMOVSHDUP(err, t1)
	VADDPS(t1, err, err)
	VPERMPS(err, first, err)
	VMOVUPS(err, three, Mem{Base: moments})
	ADDQ(Imm(4), absmax)
	ADDQ(Imm(12), moments)
	INCQ(done)
	JMP(LabelRef("block"))
	Label("done")
	Store(done, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// addProduct adds a*b to acc in two roundings, as Go does.
func addProduct(t, acc, a, b VecVirtual) {
	VMULPS(b, a, t)
	VADDPS(t, acc, acc)
}

// addLanes leaves the sum of four lanes, (0+2) + (1+3), in the first.
func addLanes(z VecVirtual) {
	t := XMM()
	VPERMILPS(Imm(0x0e), z, t)
	VADDPS(t, z, z)
	VMOVSHDUP(z, t)
	VADDSS(t, z, z)
}

// maxLanes leaves the largest of four integers in the first.
func maxLanes(z VecVirtual) {
	t := XMM()
	VPSHUFD(Imm(0x0e), z, t)
	VPMAXUD(t, z, z)
	VPSHUFD(Imm(0x01), z, t)
	VPMAXUD(t, z, z)
}

// reciprocal turns an absmax into what its block is multiplied by.
func reciprocal(z VecVirtual) {
	t := XMM()
	VMAXSS(encodeConst.tiny, z, z)
	VMOVSS(encodeConst.oneF, t)
	VDIVSS(z, t, z)
}

func encode4AVX2() {
	c := &encodeConst
	TEXT("Encode4AVX2", NOSPLIT, "func(codes *byte, absmax, moments, x *float32, blocks, block int, table *float32) int")
	Doc("Encode4AVX2 is Encode4AVX512 with 256 bits.")
	Pragma("noescape")
	p := pointers("codes", "absmax", "moments", "x", "blocks", "block", "table")
	codes, absmax, moments, x, blocks, block, table := p[0], p[1], p[2], p[3], p[4], p[5], p[6]

	done, left, from, bits := GP64(), GP64(), GP64(), GP32()
	XORQ(done, done)
	Label("block")
	CMPQ(done, blocks)
	JGE(LabelRef("done"))
	top := absmaxLoop(x, block, from, left)
	VMOVD(top, bits)
	CMPL(bits, U32(infinite))
	JAE(LabelRef("done"))
	VMOVSS(top, Mem{Base: absmax})
	inv := YMM()
	reciprocal(top)
	VBROADCASTSS(top, inv)

	// The sums of 16 lanes are in two registers each.
	var sums [3][2]VecVirtual
	for i := range sums {
		for half := range 2 {
			sums[i][half] = YMM()
			VXORPS(sums[i][half], sums[i][half], sums[i][half])
		}
	}
	MOVQ(block, left)
	rank := func(half int) VecVirtual {
		s, m, j, v := YMM(), YMM(), YMM(), YMM()
		VMULPS(Mem{Base: x, Disp: 32 * half}, inv, s)
		VMAXPS(c.minusOneF, s, s)
		VMINPS(c.oneF, s, s)
		VBROADCASTSS(Mem{Base: table, Disp: heapAt + 4}, m)
		VCMPPS(Imm(greater), m, s, m)
		VMOVDQU(c.two, j)
		VPSUBD(m, j, j)
		for level := range 3 {
			// Nodes 2 to 7 are in the first half of the heap, 8 to 15 in the second,
			// where the permutation finds them by the low three bits.
			VPERMPS(Mem{Base: table, Disp: heapAt + level/2*32}, j, m)
			VCMPPS(Imm(greater), m, s, m)
			VPADDD(j, j, j)
			VPSUBD(m, j, j)
		}
		high := YMM()
		VPSLLD(Imm(28), j, high)
		VPERMPS(Mem{Base: table, Disp: rankedAt}, j, v)
		VPERMPS(Mem{Base: table, Disp: rankedAt + 32}, j, m)
		VBLENDVPS(high, m, v, v)
		VSUBPS(v, s, s)
		addProduct(m, sums[0][half], s, s)
		addProduct(m, sums[1][half], s, v)
		addProduct(m, sums[2][half], v, v)
		VPERMPS(Mem{Base: table, Disp: codesAt}, j, v)
		VPERMPS(Mem{Base: table, Disp: codesAt + 32}, j, m)
		VBLENDVPS(high, m, v, v)
		return v
	}
	Label("loop")
	a, b := rank(0), rank(1)
	VPACKUSDW(b, a, a)
	VPMADDWD(c.weights, a, a)
	VMOVDQU(c.pairs256, b)
	VPERMD(a, b, a)
	VPSHUFB(c.bytes256, a, a)
	z := XMM()
	VEXTRACTI128(Imm(1), a, z)
	VPUNPCKLDQ(z, a.AsX(), z)
	VMOVQ(z, Mem{Base: codes})
	ADDQ(Imm(8), codes)
	ADDQ(Imm(64), x)
	SUBQ(Imm(16), left)
	JNZ(LabelRef("loop"))

	for i, acc := range sums {
		VADDPS(acc[1], acc[0], acc[0])
		z := XMM()
		VEXTRACTF128(Imm(1), acc[0], z)
		VADDPS(z, acc[0].AsX(), z)
		addLanes(z)
		VMOVSS(z, Mem{Base: moments, Disp: 4 * i})
	}
	ADDQ(Imm(4), absmax)
	ADDQ(Imm(12), moments)
	INCQ(done)
	JMP(LabelRef("block"))
	Label("done")
	Store(done, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// absmaxLoop leaves the largest magnitude of n floats, a multiple of 32, in the
// first lane. It uses from and left.
func absmaxLoop(x, n, from, left Register) VecVirtual {
	abs := YMM()
	VPBROADCASTD(encodeConst.abs, abs)
	tops := []VecVirtual{YMM(), YMM()}
	for _, top := range tops {
		VPXOR(top, top, top)
	}
	MOVQ(n, left)
	MOVQ(x, from)
	Label("top")
	for i := range 4 {
		t := YMM()
		if i%2 == 0 {
			PREFETCHT0(Mem{Base: from, Disp: aheadFloats + 32*i})
		}
		VPAND(Mem{Base: from, Disp: 32 * i}, abs, t)
		VPMAXUD(t, tops[i%2], tops[i%2])
	}
	ADDQ(Imm(128), from)
	SUBQ(Imm(32), left)
	JNZ(LabelRef("top"))
	VPMAXUD(tops[1], tops[0], tops[0])
	z := XMM()
	VEXTRACTI128(Imm(1), tops[0], z)
	VPMAXUD(z, tops[0].AsX(), z)
	maxLanes(z)
	return z
}
