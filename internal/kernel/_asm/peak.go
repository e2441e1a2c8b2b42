package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["peak"] = peak }

// peak has what the machine is measured with: the most multiply-adds, reads and
// writes that it does. None of it computes anything of use.
func peak() {
	ymm := func() reg.VecVirtual { return YMM() }
	zmm := func() reg.VecVirtual { return ZMM() }
	fma("FMAAVX2", 12, 32, ymm)
	fma("FMAAVX512", 24, 64, zmm)
	read("ReadAVX2", 32, ymm)
	read("ReadAVX512", 64, zmm)
	stream("StreamAVX2", 32, ymm)
	stream("StreamAVX512", 64, zmm)
}

// fma writes a loop of multiply-adds into chains accumulators. With a latency of
// four cycles and two units, eight chains are enough; more hide what gets in between.
func fma(name string, chains, width int, vec func() reg.VecVirtual) {
	TEXT(name, NOSPLIT, "func(sum, a, b *float32, n int)")
	Doc(fmt.Sprintf("%s adds %d*n times a*b to sum, each of %d values, in %d chains.", name, 2*chains, width/4, chains))
	Pragma("noescape")
	ptr := Load(Param("sum"), GP64())
	a, b := vec(), vec()
	VMOVUPS(Mem{Base: Load(Param("a"), GP64())}, a)
	VMOVUPS(Mem{Base: Load(Param("b"), GP64())}, b)
	n := Load(Param("n"), GP64())
	acc := make([]reg.VecVirtual, chains)
	for i := range acc {
		acc[i] = vec()
		VXORPS(acc[i], acc[i], acc[i])
	}
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	for range 2 {
		for _, c := range acc {
			VFMADD231PS(a, b, c)
		}
	}
	DECQ(n)
	JMP(LabelRef("loop"))
	Label("done")
	for _, c := range acc[1:] {
		VADDPS(c, acc[0], acc[0])
	}
	VADDPS(Mem{Base: ptr}, acc[0], acc[0])
	VMOVUPS(acc[0], Mem{Base: ptr})
	VZEROUPPER()
	RET()
}

// read writes a loop that reads as wide as it can and does as little as it can with
// what it reads.
func read(name string, width int, vec func() reg.VecVirtual) {
	const chains = 8
	TEXT(name, NOSPLIT, "func(sums *uint64, src *byte, n int)")
	Doc(fmt.Sprintf("%s adds the 64-bit words of n bytes, a multiple of %d, to %d sums in turn.", name, chains*width, width/8))
	Pragma("noescape")
	ptr, src, n := Load(Param("sums"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	acc := make([]reg.VecVirtual, chains)
	for i := range acc {
		acc[i] = vec()
		if width == 64 {
			VPXORQ(acc[i], acc[i], acc[i])
		} else {
			VPXOR(acc[i], acc[i], acc[i])
		}
	}
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	for i, c := range acc {
		VPADDQ(Mem{Base: src, Disp: i * width}, c, c)
	}
	ADDQ(U32(chains*width), src)
	SUBQ(U32(chains*width), n)
	JMP(LabelRef("loop"))
	Label("done")
	for _, c := range acc[1:] {
		VPADDQ(c, acc[0], acc[0])
	}
	VPADDQ(Mem{Base: ptr}, acc[0], acc[0])
	VMOVUPS(acc[0], Mem{Base: ptr})
	VZEROUPPER()
	RET()
}

// stream writes a copy whose stores go past the caches.
func stream(name string, width int, vec func() reg.VecVirtual) {
	const ahead = 4
	TEXT(name, NOSPLIT, "func(dst, src *byte, n int)")
	Doc(fmt.Sprintf("%s copies n bytes, a multiple of %d, to dst, a multiple of %d, past the caches.", name, ahead*width, width))
	Pragma("noescape")
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	var list []reg.VecVirtual
	for i := range ahead {
		v := vec()
		VMOVUPS(Mem{Base: src, Disp: i * width}, v)
		list = append(list, v)
	}
	for i, v := range list {
		VMOVNTPS(v, Mem{Base: dst, Disp: i * width})
	}
	ADDQ(U32(ahead*width), src)
	ADDQ(U32(ahead*width), dst)
	SUBQ(U32(ahead*width), n)
	JMP(LabelRef("loop"))
	Label("done")
	SFENCE()
	VZEROUPPER()
	RET()
}
