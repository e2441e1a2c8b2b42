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
	prefetchRows()
}

// column is a column of A: element i is at i times the stride of a row.
type column struct {
	at          []GPVirtual // of row 0, 5 and 10
	stride, by3 GPVirtual
	next        Register // from column to column
}

// rowsOfAPoint is how many rows an address has stand for: those that scaled strides
// reach.
const rowsOfAPoint = 5

// loadColumn loads the parameters that say where the first column is.
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
func (c column) step(int) {
	for _, p := range c.at {
		ADDQ(c.next, p)
	}
}

// prefetchStep is how many products come between prefetches.
const prefetchStep = 16

// sums runs over k in steps of prefetchStep, between which it prefetches: a row of old,
// which is needed at the end, and a line of each of four rows ld bytes apart from next
// on, which the caller needs later. All at once would be more than there are buffers
// for, and what the loop itself reads would wait. Each label is a loop, whose products of
// one k are made by products and which goes on in A by step; choose goes to another than
// the first.
func sums(bytes int, b, ldb Register, labels []string, choose func(), products, step func(loop int)) {
	old, ldold := Load(Param("old"), GP64()), Load(Param("ldold"), GP64())
	next, ld, by3 := Load(Param("next"), GP64()), Load(Param("ld"), GP64()), GP64()
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, by3)
	kParam, err := Param("k").Resolve()
	if err != nil {
		panic(err)
	}
	k := kParam.Addr // there are not registers enough
	CMPQ(k, Imm(0))
	JLE(LabelRef("done"))
	choose()
	for loop, label := range labels {
		Label(label)
		PREFETCHT0(Mem{Base: old})
		// The last byte, as a row need not begin with a line.
		PREFETCHT0(Mem{Base: old, Disp: bytes - 4})
		ADDQ(ldold, old)
		PREFETCHT1(Mem{Base: next})
		PREFETCHT1(Mem{Base: next, Index: ld, Scale: 1})
		PREFETCHT1(Mem{Base: next, Index: ld, Scale: 2})
		PREFETCHT1(Mem{Base: next, Index: by3, Scale: 1})
		ADDQ(Imm(64), next)
		n := GP64()
		MOVQ(k, n)
		SUBQ(Imm(prefetchStep), k)
		CMPQ(n, Imm(prefetchStep))
		JLE(LabelRef(label + "k"))
		MOVQ(I32(prefetchStep), n)
		Label(label + "k")
		products(loop)
		ADDQ(ldb, b)
		step(loop)
		DECQ(n)
		JNZ(LabelRef(label + "k"))
		CMPQ(k, Imm(0))
		JG(LabelRef(label))
		if loop < len(labels)-1 {
			JMP(LabelRef("done"))
		}
	}
	Label("done")
}

// tileParams are the parameters that all tiles have.
const tileParams = "k int, a *float32, arow, acol uintptr, b *float32, ldb uintptr, c *float32, ldc uintptr, old *float32, ldold uintptr, next *float32, ld uintptr"

// tile512 is a tile of 16 columns a vector by AVX-512, masked where there are fewer.
func tile512(rows, vectors int) {
	name := fmt.Sprintf("Tile%dx%dAVX512", rows, 16*vectors)
	TEXT(name, NOSPLIT, "func("+tileParams+", load, store uint64)")
	Doc(fmt.Sprintf("%s puts the sum of old and the product of A, %d x k, and B, k x %d, into C.", name, rows, 16*vectors),
		"Element (i, j) of A is arow*i + acol*j bytes behind a; rows of B are ldb bytes apart,",
		"those of C ldc, those of old ldold. Bits of store say which columns there are, bits of load",
		"which old has.")
	Pragma("noescape")
	a := loadColumn(rows)
	b, ldb := Load(Param("b"), GP64()), Load(Param("ldb"), GP64())
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
	sum := make([]VecVirtual, rows*vectors)
	for i := range sum {
		sum[i] = ZMM()
		VPXORD(sum[i], sum[i], sum[i])
	}
	const packed, masked = 0, 2
	choose := func() {
		// A masked load takes a place that a multiplication could have.
		KORTESTW(store[vectors-1], store[vectors-1])
		JNC(LabelRef("masked"))
		CMPQ(a.stride, Imm(4))
		JNE(LabelRef("loop"))
		CMPQ(a.next, Imm(uint64(4*rows)))
		JNE(LabelRef("loop"))
	}
	products := func(loop int) {
		var row []VecVirtual
		for v := range vectors {
			row = append(row, ZMM())
			if loop == masked {
				VMOVUPS_Z(Mem{Base: b, Disp: 64 * v}, store[v], row[v])
			} else {
				VMOVUPS(Mem{Base: b, Disp: 64 * v}, row[v])
			}
		}
		for i := range rows {
			if loop == packed {
				// A multiplication that reads its operand is one operation where a
				// broadcast before it is another: the processor takes six at a time.
				for v := range vectors {
					VFMADD231PS_BCST(Mem{Base: a.at[0], Disp: 4 * i}, row[v], sum[i*vectors+v])
				}
				continue
			}
			x := ZMM()
			VBROADCASTSS(a.row(i), x)
			for v := range vectors {
				VFMADD231PS(x, row[v], sum[i*vectors+v])
			}
		}
	}
	sums(64*vectors, b, ldb, []string{"packed", "loop", "masked"}, choose, products, func(loop int) {
		if loop == packed {
			ADDQ(Imm(uint64(4*rows)), a.at[0])
			return
		}
		a.step(loop)
	})
	c, ldc := Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
	old, ldold := Load(Param("old"), GP64()), Load(Param("ldold"), GP64())
	for i := range rows {
		for v := range vectors {
			s := sum[i*vectors+v]
			VADDPS(Mem{Base: old, Disp: 64 * v}, s, load[v], s)
			VMOVUPS(s, store[v], Mem{Base: c, Disp: 64 * v})
		}
		if i < rows-1 {
			ADDQ(ldc, c)
			ADDQ(ldold, old)
		}
	}
	VZEROUPPER()
	RET()
}

// tile256 is a tile of 8 columns a vector by AVX2, of which only stores are masked.
func tile256(rows, vectors int) {
	name := fmt.Sprintf("Tile%dx%dAVX2", rows, 8*vectors)
	TEXT(name, NOSPLIT, "func("+tileParams+", load, store *int32, full bool)")
	Doc(fmt.Sprintf("%s puts the sum of old and the product of A, %d x k, and B, k x %d, into C.", name, rows, 8*vectors),
		"Element (i, j) of A is arow*i + acol*j bytes behind a; rows of B are ldb bytes apart,",
		"those of C ldc, those of old ldold. All columns of B are read; negative elements of store",
		"say which are stored unless full says all, those of load which old has.")
	Pragma("noescape")
	a := loadColumn(rows)
	b, ldb := Load(Param("b"), GP64()), Load(Param("ldb"), GP64())
	sum := make([]VecVirtual, rows*vectors)
	for i := range sum {
		sum[i] = YMM()
		VXORPS(sum[i], sum[i], sum[i])
	}
	sums(32*vectors, b, ldb, []string{"loop"}, func() {}, func(int) {
		var row []VecVirtual
		for v := range vectors {
			row = append(row, YMM())
			VMOVUPS(Mem{Base: b, Disp: 32 * v}, row[v])
		}
		for i := range rows {
			x := YMM()
			VBROADCASTSS(a.row(i), x)
			for v := range vectors {
				VFMADD231PS(x, row[v], sum[i*vectors+v])
			}
		}
	}, a.step)
	c, ldc := Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
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
	old, ldold := Load(Param("old"), GP64()), Load(Param("ldold"), GP64())
	for i := range rows {
		for v := range vectors {
			s, x := sum[i*vectors+v], YMM()
			VMASKMOVPS(Mem{Base: old, Disp: 32 * v}, load[v], x)
			VADDPS(x, s, s)
		}
		if i < rows-1 {
			ADDQ(ldold, old)
		}
	}
	full := Load(Param("full"), GP8())
	TESTB(full, full)
	JZ(LabelRef("some"))
	for i := range rows {
		for v := range vectors {
			VMOVUPS(sum[i*vectors+v], Mem{Base: c, Disp: 32 * v})
		}
		if i < rows-1 {
			ADDQ(ldc, c)
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
