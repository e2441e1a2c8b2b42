package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["convert"] = convert }

// convertStep is what the number of elements is a multiple of.
const convertStep = 32

// convert has the loops between number formats. Where the bits of a NaN that the
// instruction gives are not those of the Go code, they are put right.
func convert() {
	for _, l := range []lanes{avx2, avx512} {
		for _, s := range []stores{{}, {streaming: true}} {
			decodeBF16(l, s)
			encodeBF16(l, s)
			decodeF16(l, s)
			encodeF16(l, s)
			decodeF64(l, s)
			encodeF64(l, s)
		}
		roundBF16(l)
	}
}

// stores is how results are stored: streaming ones go past the caches, so that a line
// need not be read to be written.
type stores struct{ streaming bool }

func (s stores) put(x, m Op) {
	if s.streaming {
		VMOVNTPS(x, m)
	} else {
		VMOVUPS(x, m)
	}
}

// conversion emits a loop over elements of in bytes that become out bytes: body is
// called for each piece of per elements of a step.
func conversion(l lanes, s stores, name, signature, doc string, in, out, per int, body func(src, dst Mem)) {
	doc += " n is a multiple of 32."
	if s.streaming {
		name += "Stream"
		doc += " dst is a multiple of 64; the stores are non-temporal."
	}
	l.begin(name, signature, doc)
	var dst, src reg.Register
	if in == out {
		dst = pointer("x")
		src = dst
	} else {
		dst, src = pointer("dst"), pointer("src")
	}
	n := pointer("n")
	loaded()
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	if s.streaming {
		for at := 0; at < convertStep*in; at += 64 {
			PREFETCHT0(Mem{Base: src, Disp: ahead + at})
		}
	}
	for i := 0; i < convertStep; i += per {
		body(Mem{Base: src, Disp: i * in}, Mem{Base: dst, Disp: i * out})
	}
	ADDQ(I32(convertStep*in), src)
	if src != dst {
		ADDQ(I32(convertStep*out), dst)
	}
	SUBQ(Imm(convertStep), n)
	JMP(LabelRef("loop"))
	Label("done")
	if s.streaming {
		SFENCE()
	}
	end()
}

// ahead is how many bytes ahead a large input is asked for: what the processor fetches
// by itself stops at the end of a page.
const ahead = 2048

// loaded is called between the arguments and the loop: for constants.
var loaded = func() {}

const (
	decoding = "func(dst *float32, src *byte, n int)"
	encoding = "func(dst *byte, src *float32, n int)"
	inPlace  = "func(x *float32, n int)"
)

// bits is a constant in a register, by its bits.
func (l lanes) bits(v uint32) reg.VecVirtual { return l.inReg(floatOf(v)) }

func decodeBF16(l lanes, s stores) {
	loaded = func() {}
	conversion(l, s, "DecodeBF16", decoding, "widens n bfloat16 values.", 2, 4, l.floats(), func(src, dst Mem) {
		x := l.reg()
		VPMOVZXWD(src, x)
		VPSLLD(Imm(16), x, x)
		s.put(x, dst)
	})
}

// bf16Rounder rounds float32 values to bfloat16, which it leaves in the high half of
// each lane with arbitrary bits below.
type bf16Rounder struct {
	l                lanes
	one, bias, quiet reg.VecVirtual
}

func (r *bf16Rounder) load() {
	r.one, r.bias, r.quiet = r.l.bits(1), r.l.bits(0x7fff), r.l.bits(0x400000)
}

func (r *bf16Rounder) round(src Mem) reg.VecVirtual {
	l := r.l
	x, odd := l.reg(), l.reg()
	VMOVUPS(src, x)
	VPSRLD(Imm(16), x, odd)
	if l.wide() {
		// A NaN is not rounded and becomes quiet.
		nan := K()
		VCMPPS(Imm(3), x, x, nan)
		VPANDD(r.one, odd, odd)
		VPADDD(r.bias, odd, odd)
		VPADDD(x, odd, odd)
		VPORD(r.quiet, x, nan, odd)
		return odd
	}
	nan := l.reg()
	VCMPPS(Imm(3), x, x, nan)
	VPAND(r.one, odd, odd)
	VPADDD(r.bias, odd, odd)
	VPADDD(x, odd, odd)
	VPOR(r.quiet, x, x)
	VBLENDVPS(nan, x, odd, odd)
	return odd
}

// packOrder puts the 64-bit words of two packed vectors in order.
func packOrder() Mem {
	if m, ok := constants["packOrder"]; ok {
		return m
	}
	m := GLOBL("packOrder", RODATA|NOPTR)
	for i, v := range []uint64{0, 2, 4, 6, 1, 3, 5, 7} {
		DATA(8*i, U64(v))
	}
	constants["packOrder"] = m
	return m
}

func encodeBF16(l lanes, s stores) {
	r := &bf16Rounder{l: l}
	var order reg.VecVirtual
	loaded = func() {
		r.load()
		if l.wide() {
			order = l.reg()
			VMOVDQU64(packOrder(), order)
		}
	}
	conversion(l, s, "EncodeBF16", encoding, "rounds n values to bfloat16.", 4, 2, 2*l.floats(), func(src, dst Mem) {
		a := r.round(src)
		b := r.round(src.Offset(l.bytes))
		VPSRLD(Imm(16), a, a)
		VPSRLD(Imm(16), b, b)
		// The instruction packs within 128 bits.
		VPACKUSDW(b, a, a)
		if l.wide() {
			VPERMQ(a, order, a)
		} else {
			VPERMQ(Imm(0xd8), a, a)
		}
		s.put(a, dst)
	})
}

func roundBF16(l lanes) {
	r := &bf16Rounder{l: l}
	var high reg.VecVirtual
	loaded = func() { r.load(); high = l.bits(0xffff0000) }
	conversion(l, stores{}, "RoundBF16", inPlace, "rounds n values to bfloat16 in place.", 4, 4, l.floats(), func(src, dst Mem) {
		x := r.round(src)
		if l.wide() {
			VPANDD(high, x, x)
		} else {
			VPAND(high, x, x)
		}
		VMOVUPS(x, dst)
	})
}

func decodeF16(l lanes, s stores) {
	// The instruction makes NaNs quiet; the Go code leaves them as they are.
	var quiet reg.VecVirtual
	loaded = func() { quiet = l.bits(0x400000) }
	conversion(l, s, "DecodeF16", decoding, "widens n half-precision values.", 2, 4, l.floats(), func(src, dst Mem) {
		x, h := l.reg(), l.reg()
		VCVTPH2PS(src, x)
		VPMOVZXWD(src, h)
		VPSLLD(Imm(13), h, h)
		if l.wide() {
			nan := K()
			VCMPPS(Imm(3), x, x, nan)
			VPANDND(quiet, h, h)
			VPANDND(x, h, nan, x)
		} else {
			nan := l.reg()
			VCMPPS(Imm(3), x, x, nan)
			VPANDN(quiet, h, h)
			VPAND(nan, h, h)
			VPANDN(x, h, x)
		}
		s.put(x, dst)
	})
}

func encodeF16(l lanes, s stores) {
	loaded = func() {}
	conversion(l, s, "EncodeF16", encoding, "rounds n values to half precision.", 4, 2, l.floats(), func(src, dst Mem) {
		x := l.reg()
		VMOVUPS(src, x)
		if !s.streaming {
			VCVTPS2PH(Imm(0), x, dst)
			return
		}
		half := x.AsX()
		if l.wide() {
			half = x.AsY()
		}
		VCVTPS2PH(Imm(0), x, half)
		s.put(half, dst)
	})
}

func decodeF64(l lanes, s stores) {
	loaded = func() {}
	conversion(l, s, "DecodeF64", decoding, "rounds n float64 values to float32.", 8, 4, l.floats()/2, func(src, dst Mem) {
		if l.wide() {
			x, y := ZMM(), YMM()
			VMOVUPD(src, x)
			VCVTPD2PS(x, y)
			s.put(y, dst)
			return
		}
		x := XMM()
		VCVTPD2PSY(src, x)
		s.put(x, dst)
	})
}

func encodeF64(l lanes, s stores) {
	loaded = func() {}
	conversion(l, s, "EncodeF64", encoding, "widens n values to float64.", 4, 8, l.floats()/2, func(src, dst Mem) {
		x := l.reg()
		VCVTPS2PD(src, x)
		s.put(x, dst)
	})
}
