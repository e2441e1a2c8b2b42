package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func init() { groups["gemm"] = gemm }

// gemm has the inner loops of products of matrices: tiles of the product that are
// kept in registers, and the packing of what they read.
//
// A tile of rows x columns sums in registers over k and is added to memory at the
// end. For each k it loads a row of B and has each element of a column of A multiply
// it. There is a loop for every number of rows up to the most that the registers
// hold, so that none beyond a matrix is read or written.
func gemm() {
	for rows := 1; rows <= 14; rows++ {
		for _, vectors := range []int{1, 2} {
			tile512(rows, vectors)
		}
	}
	for rows := 1; rows <= 6; rows++ {
		for _, vectors := range []int{1, 2} {
			tile256(rows, vectors)
		}
	}
	transpose512("16", 16)
	transpose512("14", 14)
	transpose512("Some", 0)
	copy512()
	transpose256(8)
	transpose256(6)
	copy256(16)
	copy256(6)
}

// column is a column of A: element i is at i times the stride of a row.
type column struct {
	at          []GPVirtual // of row 0, 5 and 10
	stride, by3 GPVirtual
	next        Register // from column to column
}

const rowsOfAPoint = 5

func loadColumn(rows int) column {
	c := column{stride: GP64()}
	a := Load(Param("a"), GP64()).(GPVirtual)
	Load(Param("arow"), c.stride)
	c.next = Load(Param("acol"), GP64())
	if rows > 3 {
		c.by3 = GP64()
		LEAQ(Mem{Base: c.stride, Index: c.stride, Scale: 2}, c.by3)
	}
	c.at = []GPVirtual{a}
	for r := rowsOfAPoint; r < rows; r += rowsOfAPoint {
		p := GP64()
		last := c.at[len(c.at)-1]
		LEAQ(Mem{Base: last, Index: c.stride, Scale: 4}, p)
		ADDQ(c.stride, p)
		c.at = append(c.at, p)
	}
	return c
}

// row returns the place of an element.
func (c column) row(i int) Mem {
	base := c.at[i/rowsOfAPoint]
	switch i % rowsOfAPoint {
	case 0:
		return Mem{Base: base}
	case 3:
		return Mem{Base: base, Index: c.by3, Scale: 1}
	default:
		return Mem{Base: base, Index: c.stride, Scale: uint8(i % rowsOfAPoint)}
	}
}

// step goes on to the next column.
func (c column) step() {
	for _, p := range c.at {
		ADDQ(c.next, p)
	}
}

// prefetchC has the lines of C on their way while the sums are made.
func prefetchC(c, ldc Register, rows, bytes int) {
	p := GP64()
	MOVQ(c, p)
	for i := range rows {
		PREFETCHT0(Mem{Base: p})
		// The last byte, as a row need not begin with a line.
		PREFETCHT0(Mem{Base: p, Disp: bytes - 4})
		if i < rows-1 {
			ADDQ(ldc, p)
		}
	}
}

const tileParams = "k int, a *float32, arow, acol uintptr, b *float32, ldb uintptr, c *float32, ldc uintptr"

func tile512(rows, vectors int) {
	name := fmt.Sprintf("Tile%dx%dAVX512", rows, 16*vectors)
	TEXT(name, NOSPLIT, "func("+tileParams+", load, store uint64)")
	Doc(fmt.Sprintf("%s adds the product of A, %d x k, and B, k x %d, to C, or puts it there.", name, rows, 16*vectors),
		"Element (i, j) of A is arow*i + acol*j bytes behind a; rows of B are ldb bytes apart,",
		"those of C ldc. Bits of store say which columns there are, bits of load which are added to.")
	Pragma("noescape")
	k := Load(Param("k"), GP64())
	a := loadColumn(rows)
	b, ldb := Load(Param("b"), GP64()), Load(Param("ldb"), GP64())
	c, ldc := Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
	masks := func(param string) []Register { // 16 columns each
		bits := Load(Param(param), GP64()).(GPVirtual)
		list := []Register{K()}
		KMOVW(bits.As32(), list[0])
		if vectors == 2 {
			SHRQ(Imm(16), bits)
			list = append(list, K())
			KMOVW(bits.As32(), list[1])
		}
		return list
	}
	store, load := masks("store"), masks("load")
	prefetchC(c, ldc, rows, 64*vectors)
	sum := make([]VecVirtual, rows*vectors)
	for i := range sum {
		sum[i] = ZMM()
		VPXORD(sum[i], sum[i], sum[i])
	}
	TESTQ(k, k)
	JZ(LabelRef("done"))
	loop := func(label string, read func(from Mem, v int, to Register)) {
		Label(label)
		var row []VecVirtual
		for v := range vectors {
			row = append(row, ZMM())
			read(Mem{Base: b, Disp: 64 * v}, v, row[v])
		}
		ADDQ(ldb, b)
		for i := range rows {
			x := ZMM()
			VBROADCASTSS(a.row(i), x)
			for v := range vectors {
				VFMADD231PS(x, row[v], sum[i*vectors+v])
			}
		}
		a.step()
		DECQ(k)
		JNZ(LabelRef(label))
	}
	// A masked load takes a place that a multiplication could have.
	KORTESTW(store[vectors-1], store[vectors-1])
	JNC(LabelRef("masked"))
	loop("loop", func(from Mem, v int, to Register) { VMOVUPS(from, to) })
	JMP(LabelRef("done"))
	loop("masked", func(from Mem, v int, to Register) { VMOVUPS_Z(from, store[v], to) })
	Label("done")
	for i := range rows {
		for v := range vectors {
			s, at := sum[i*vectors+v], Mem{Base: c, Disp: 64 * v}
			VADDPS(at, s, load[v], s)
			VMOVUPS(s, store[v], at)
		}
		if i < rows-1 {
			ADDQ(ldc, c)
		}
	}
	VZEROUPPER()
	RET()
}

func tile256(rows, vectors int) {
	name := fmt.Sprintf("Tile%dx%dAVX2", rows, 8*vectors)
	TEXT(name, NOSPLIT, "func("+tileParams+", load, store *int32, full bool)")
	Doc(fmt.Sprintf("%s adds the product of A, %d x k, and B, k x %d, to C, or puts it there.", name, rows, 8*vectors),
		"Element (i, j) of A is arow*i + acol*j bytes behind a; rows of B are ldb bytes apart,",
		"those of C ldc. All columns of B are read; negative elements of store say which are stored",
		"unless full says all, those of load which are added to.")
	Pragma("noescape")
	k := Load(Param("k"), GP64())
	a := loadColumn(rows)
	b, ldb := Load(Param("b"), GP64()), Load(Param("ldb"), GP64())
	c, ldc := Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
	prefetchC(c, ldc, rows, 32*vectors)
	sum := make([]VecVirtual, rows*vectors)
	for i := range sum {
		sum[i] = YMM()
		VXORPS(sum[i], sum[i], sum[i])
	}
	TESTQ(k, k)
	JZ(LabelRef("done"))
	Label("loop")
	var row []VecVirtual
	for v := range vectors {
		row = append(row, YMM())
		VMOVUPS(Mem{Base: b, Disp: 32 * v}, row[v])
	}
	ADDQ(ldb, b)
	for i := range rows {
		x := YMM()
		VBROADCASTSS(a.row(i), x)
		for v := range vectors {
			VFMADD231PS(x, row[v], sum[i*vectors+v])
		}
	}
	a.step()
	DECQ(k)
	JNZ(LabelRef("loop"))
	Label("done")
	masks := func(param string) []Register {
		p := Load(Param(param), GP64())
		var list []Register
		for v := range vectors {
			list = append(list, YMM())
			VMOVUPS(Mem{Base: p, Disp: 32 * v}, list[v])
		}
		return list
	}
	load := masks("load")
	p := GP64()
	MOVQ(c, p)
	for i := range rows {
		for v := range vectors {
			s, x := sum[i*vectors+v], YMM()
			VMASKMOVPS(Mem{Base: p, Disp: 32 * v}, load[v], x)
			VADDPS(x, s, s)
		}
		if i < rows-1 {
			ADDQ(ldc, p)
		}
	}
	full := Load(Param("full"), GP8())
	TESTB(full, full)
	JZ(LabelRef("some"))
	MOVQ(c, p)
	for i := range rows {
		for v := range vectors {
			VMOVUPS(sum[i*vectors+v], Mem{Base: p, Disp: 32 * v})
		}
		if i < rows-1 {
			ADDQ(ldc, p)
		}
	}
	VZEROUPPER()
	RET()
	Label("some")
	store := masks("store")
	for i := range rows {
		for v := range vectors {
			VMASKMOVPS(sum[i*vectors+v], store[v], Mem{Base: c, Disp: 32 * v})
		}
		if i < rows-1 {
			ADDQ(ldc, c)
		}
	}
	VZEROUPPER()
	RET()
}
