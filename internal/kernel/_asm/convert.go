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
		decodeBF16(l)
		encodeBF16(l)
		decodeF16(l)
		encodeF16(l)
		decodeF64(l)
		encodeF64(l)
		roundBF16(l)
	}
}

// conversion emits a loop over elements of in bytes that become out bytes: body is
// called for each piece of per elements of a step.
func conversion(l lanes, name, signature, doc string, in, out, per int, body func(src, dst Mem)) {
	l.begin(name, signature, doc+" n is a multiple of 32.")
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
	end()
}

// loaded is called between the arguments and the loop: for constants.
var loaded = func() {}

const (
	decoding = "func(dst *float32, src *byte, n int)"
	encoding = "func(dst *byte, src *float32, n int)"
	inPlace  = "func(x *float32, n int)"
)

// bits is a constant in a register, by its bits.
func (l lanes) bits(v uint32) reg.VecVirtual { return l.inReg(floatOf(v)) }

func decodeBF16(l lanes) {
	loaded = func() {}
	conversion(l, "DecodeBF16", decoding, "widens n bfloat16 values.", 2, 4, l.floats(), func(src, dst Mem) {
		x := l.reg()
		VPMOVZXWD(src, x)
		VPSLLD(Imm(16), x, x)
		VMOVUPS(x, dst)
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

func encodeBF16(l lanes) {
	r := &bf16Rounder{l: l}
	var order reg.VecVirtual
	loaded = func() {
		r.load()
		if l.wide() {
			order = l.reg()
			m := GLOBL("packOrder", RODATA|NOPTR)
			for i, v := range []uint64{0, 2, 4, 6, 1, 3, 5, 7} {
				DATA(8*i, U64(v))
			}
			VMOVDQU64(m, order)
		}
	}
	conversion(l, "EncodeBF16", encoding, "rounds n values to bfloat16.", 4, 2, 2*l.floats(), func(src, dst Mem) {
		a := r.round(src)
		b := r.round(src.Offset(l.bytes))
		VPSRLD(Imm(16), a, a)
		VPSRLD(Imm(16), b, b)
		// The instruction packs within 128 bits.
		VPACKUSDW(b, a, a)
		if l.wide() {
			VPERMQ(a, order, a)
			VMOVDQU64(a, dst)
		} else {
			VPERMQ(Imm(0xd8), a, a)
			VMOVDQU(a, dst)
		}
	})
}

func roundBF16(l lanes) {
	r := &bf16Rounder{l: l}
	var high reg.VecVirtual
	loaded = func() { r.load(); high = l.bits(0xffff0000) }
	conversion(l, "RoundBF16", inPlace, "rounds n values to bfloat16 in place.", 4, 4, l.floats(), func(src, dst Mem) {
		x := r.round(src)
		if l.wide() {
			VPANDD(high, x, x)
		} else {
			VPAND(high, x, x)
		}
		VMOVUPS(x, dst)
	})
}

func decodeF16(l lanes) {
	// The instruction makes NaNs quiet; the Go code leaves them as they are.
	var quiet reg.VecVirtual
	loaded = func() { quiet = l.bits(0x400000) }
	conversion(l, "DecodeF16", decoding, "widens n half-precision values.", 2, 4, l.floats(), func(src, dst Mem) {
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
		VMOVUPS(x, dst)
	})
}

func encodeF16(l lanes) {
	loaded = func() {}
	conversion(l, "EncodeF16", encoding, "rounds n values to half precision.", 4, 2, l.floats(), func(src, dst Mem) {
		x := l.reg()
		VMOVUPS(src, x)
		VCVTPS2PH(Imm(0), x, dst)
	})
}

func decodeF64(l lanes) {
	loaded = func() {}
	conversion(l, "DecodeF64", decoding, "rounds n float64 values to float32.", 8, 4, l.floats()/2, func(src, dst Mem) {
		if l.wide() {
			x, y := ZMM(), YMM()
			VMOVUPD(src, x)
			VCVTPD2PS(x, y)
			VMOVUPS(y, dst)
			return
		}
		x := XMM()
		VCVTPD2PSY(src, x)
		VMOVUPS(x, dst)
	})
}

func encodeF64(l lanes) {
	loaded = func() {}
	conversion(l, "EncodeF64", encoding, "widens n values to float64.", 4, 8, l.floats()/2, func(src, dst Mem) {
		x := l.reg()
		VCVTPS2PD(src, x)
		VMOVUPD(x, dst)
	})
}
