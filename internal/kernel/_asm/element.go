package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func init() { groups["element"] = element }

// element has the loops over vectors. Each takes any number of elements; the last few
// are read and written under a mask. Every result may be where an argument is.
func element() {
	for _, l := range []lanes{avx2, avx512} {
		dot(l)
		maximum(l)
		sum(l)
		sumSquares(l)
		add(l)
		addScaled(l)
		scale(l)
		adamW(l)
		norms(l)
		rotations(l)
		exponentials(l)
		activations(l)
		softCap(l)
		adamW8(l)
	}
}

func dot(l lanes) {
	l.begin("Dot", "func(x, y *float32, n int) float32", "returns the dot product of n elements.")
	x, y, n := pointer("x"), pointer("y"), pointer("n")
	acc := l.zeros(4)
	l.loop(n, 4, func(a at) {
		VFMADD231PS(a.from(y), a.load(x), acc[a.turn])
	})
	result(l.sum(acc...))
}

// result returns x, which is in the lowest lane.
func result(x reg.Register) {
	VZEROUPPER()
	Store(x, ReturnIndex(0))
	RET()
}

func maximum(l lanes) {
	l.begin("Max", "func(x *float32, n int) float32", "returns the greatest of n elements, or NaN if one is; -Inf for none.")
	x, n := pointer("x"), pointer("n")
	low := l.data(floatOf(0xff800000))
	// The instruction forgets a NaN that is not the last.
	var acc, nan []reg.VecVirtual
	const turns = 4
	for range turns {
		r := l.reg()
		if l.wide() {
			VBROADCASTSS(low, r)
		} else {
			VMOVUPS(low, r)
		}
		acc = append(acc, r)
	}
	nan = l.zeros(1)
	l.loop(n, turns, func(a at) {
		v := a.load(x)
		top := acc[a.turn]
		// A lane beyond the end gets what is there.
		switch {
		case a.mask == nil:
		case l.wide():
			VMOVAPS(top, v)
			VMOVUPS(a.mem(x), a.mask, v)
		default:
			VBLENDVPS(a.mask, v, top, v)
		}
		VMAXPS(top, v, top)
		if l.wide() {
			k := K()
			VCMPPS(Imm(3), v, v, k)
			VMOVAPS(v, k, nan[0])
			return
		}
		un := l.reg()
		VCMPPS(Imm(3), v, v, un)
		VORPS(un, nan[0], nan[0])
	})
	best := l.merge(acc, VMAXPS)
	high := l.fold(best, VMAXPS)
	VMOVSHDUP(best.AsX(), high)
	VMAXSS(high, best.AsX(), best.AsX())
	// 0 or NaN in each lane.
	VADDSS(l.sum(nan[0]), best.AsX(), best.AsX())
	result(best.AsX())
}

// widen returns the two halves of a vector as float64.
func (l lanes) widen(x reg.VecVirtual) [2]reg.VecVirtual {
	lo, hi := l.reg(), l.reg()
	if l.wide() {
		half := YMM()
		VEXTRACTF64X4(Imm(1), x, half)
		VCVTPS2PD(x.AsY(), lo)
		VCVTPS2PD(half, hi)
	} else {
		half := XMM()
		VEXTRACTF128(Imm(1), x, half)
		VCVTPS2PD(x.AsX(), lo)
		VCVTPS2PD(half, hi)
	}
	return [2]reg.VecVirtual{lo, hi}
}

// keep64 sets the lanes beyond the end to 0 in the halves of a vector.
func (a at) keep64(x [2]reg.VecVirtual) {
	if a.mask == nil {
		return
	}
	if a.l.wide() {
		k := K()
		KSHIFTRW(Imm(8), a.mask, k)
		VMOVAPD_Z(x[0], a.mask, x[0])
		VMOVAPD_Z(x[1], k, x[1])
		return
	}
	m, half := YMM(), XMM()
	mask := a.mask.(reg.VecVirtual)
	VPMOVSXDQ(mask.AsX(), m)
	VANDPD(m, x[0], x[0])
	VEXTRACTF128(Imm(1), mask, half)
	VPMOVSXDQ(half, m)
	VANDPD(m, x[1], x[1])
}

func sum(l lanes) {
	l.begin("Sum", "func(x *float32, n int) float64", "returns the sum of n elements in float64.")
	x, n := pointer("x"), pointer("n")
	acc := l.zeros(4)
	l.loop(n, 2, func(a at) {
		v := l.widen(a.load(x))
		VADDPD(v[0], acc[2*a.turn], acc[2*a.turn])
		VADDPD(v[1], acc[2*a.turn+1], acc[2*a.turn+1])
	})
	result(l.sum64(acc...))
}

func sumSquares(l lanes) {
	l.begin("SumSquares", "func(x *float32, n int, mean float64) float64", "returns the sum of the squares of n elements less mean, in float64.")
	x, n := pointer("x"), pointer("n")
	mean := l.reg()
	p, err := Param("mean").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSD(p.Addr, mean)
	acc := l.zeros(4)
	l.loop(n, 2, func(a at) {
		v := l.widen(a.load(x))
		VSUBPD(mean, v[0], v[0])
		VSUBPD(mean, v[1], v[1])
		a.keep64(v)
		VFMADD231PD(v[0], v[0], acc[2*a.turn])
		VFMADD231PD(v[1], v[1], acc[2*a.turn+1])
	})
	result(l.sum64(acc...))
}

func add(l lanes) {
	l.begin("Add", "func(y, x *float32, n int)", "adds n elements of x to y.")
	y, x, n := pointer("y"), pointer("x"), pointer("n")
	l.loop(n, 4, func(a at) {
		v := a.load(y)
		VADDPS(a.from(x), v, v)
		a.store(v, y)
	})
	end()
}

func addScaled(l lanes) {
	l.begin("AddScaled", "func(y, x *float32, n int, s float32)", "adds s times n elements of x to y, the product rounded as in Go.")
	y, x, n, s := pointer("y"), pointer("x"), pointer("n"), l.param("s")
	l.loop(n, 4, func(a at) {
		v := l.reg()
		VMULPS(a.from(x), s, v)
		VADDPS(a.from(y), v, v)
		a.store(v, y)
	})
	end()
}

func scale(l lanes) {
	l.begin("Scale", "func(x *float32, n int, s float32)", "multiplies n elements of x by s.")
	x, n, s := pointer("x"), pointer("n"), l.param("s")
	l.loop(n, 4, func(a at) {
		v := l.reg()
		VMULPS(a.from(x), s, v)
		a.store(v, x)
	})
	end()
}

// adamW has no fused operations, so that its bits are those of the Go code.
func adamW(l lanes) {
	l.begin("AdamW", "func(w, m, v, dw *float32, n int, c *float32)", "is a step for n weights; c has b1, 1-b1, b2, 1-b2, decay, size, root, eps.")
	w, m, v, g, n, c := pointer("w"), pointer("m"), pointer("v"), pointer("dw"), pointer("n"), pointer("c")
	var k [8]reg.VecVirtual
	for i := range k {
		k[i] = l.reg()
		VBROADCASTSS(Mem{Base: c, Disp: 4 * i}, k[i])
	}
	l.loop(n, 1, func(a at) {
		x, mean, square, t := a.load(g), l.reg(), l.reg(), l.reg()
		VMULPS(a.from(m), k[0], mean)
		VMULPS(x, k[1], t)
		VADDPS(t, mean, mean)
		a.store(mean, m)
		VMULPS(a.from(v), k[2], square)
		VMULPS(x, k[3], t)
		VMULPS(x, t, t)
		VADDPS(t, square, square)
		a.store(square, v)
		VSQRTPS(square, t)
		VDIVPS(k[6], t, t)
		VADDPS(k[7], t, t)
		VDIVPS(t, mean, t)
		VMULPS(k[5], t, t)
		VMULPS(a.from(w), k[4], x)
		VSUBPS(t, x, x)
		a.store(x, w)
	})
	end()
}

func norms(l lanes) {
	for _, bias := range []bool{false, true} {
		if bias {
			l.begin("NormBias", "func(y, x, w, b *float32, n int, mean, s, plus float32)", "computes y = (x-mean)*s*(w+plus) + b.")
		} else {
			l.begin("Norm", "func(y, x, w *float32, n int, s, plus float32)", "computes y = x*s*(w+plus).")
		}
		y, x, w := pointer("y"), pointer("x"), pointer("w")
		var b, n reg.GPVirtual
		var mean reg.VecVirtual
		if bias {
			b = pointer("b")
			mean = l.param("mean")
		}
		n = pointer("n")
		s, plus := l.param("s"), l.param("plus")
		l.loop(n, 2, func(a at) {
			v, f := a.load(x), l.reg()
			if bias {
				VSUBPS(mean, v, v)
			}
			VMULPS(s, v, v)
			VADDPS(a.from(w), plus, f)
			if bias {
				VFMADD213PS(a.from(b), f, v)
			} else {
				VMULPS(f, v, v)
			}
			a.store(v, y)
		})
		end()
	}

	l.begin("NormDots", "func(dy, x, w *float32, n int, mean, plus float32) (dot, sum float64)", "returns the sums of (x-mean)*dy*(w+plus) and of dy*(w+plus), in float64.")
	dy, x, w, n := pointer("dy"), pointer("x"), pointer("w"), pointer("n")
	mean, plus := l.param("mean"), l.param("plus")
	dots, sums := l.zeros(2), l.zeros(2)
	l.loop(n, 1, func(a at) {
		v, f := a.load(x), l.reg()
		VSUBPS(mean, v, v)
		VADDPS(a.from(w), plus, f)
		g, factor, d := l.widen(a.load(dy)), l.widen(f), l.widen(v)
		for i := range 2 {
			VMULPD(factor[i], g[i], g[i])
			VFMADD231PD(d[i], g[i], dots[i])
			VADDPD(g[i], sums[i], sums[i])
		}
	})
	d, sum := l.sum64(dots...), l.sum64(sums...)
	VZEROUPPER()
	Store(d, Return("dot"))
	Store(sum, Return("sum"))
	RET()

	l.begin("NormGrad", "func(dx, dy, x, w *float32, n int, mean, s, plus, c, shift float32)", "adds dy*(w+plus)*s - (x-mean)*c - shift to dx.")
	dx, dy, x, w, n := pointer("dx"), pointer("dy"), pointer("x"), pointer("w"), pointer("n")
	mean, s, plus, c, shift := l.param("mean"), l.param("s"), l.param("plus"), l.param("c"), l.param("shift")
	l.loop(n, 1, func(a at) {
		f, v := l.reg(), a.load(x)
		VADDPS(a.from(w), plus, f)
		VMULPS(a.from(dy), f, f)
		VFMSUB213PS(shift, s, f)
		VSUBPS(mean, v, v)
		VFNMADD231PS(c, v, f)
		VADDPS(a.from(dx), f, f)
		a.store(f, dx)
	})
	end()

	l.begin("NormWeight", "func(dw, dy, x *float32, n int, mean, s float32)", "adds dy*(x-mean)*s to dw.")
	dw, dy, x, n := pointer("dw"), pointer("dy"), pointer("x"), pointer("n")
	mean, s = l.param("mean"), l.param("s")
	l.loop(n, 2, func(a at) {
		v := a.load(x)
		VSUBPS(mean, v, v)
		VMULPS(s, v, v)
		VFMADD213PS(a.from(dw), a.load(dy), v)
		a.store(v, dw)
	})
	end()
}

// rotations have the heads of a row, dim elements each, of which half pairs are
// rotated.
func rotations(l lanes) {
	const signature = "func(x, cos, sin *float32, heads, dim, half int, sign float32)"
	for _, pairs := range []bool{false, true} {
		if pairs {
			l.begin("RotatePairs", signature, "rotates element 2i with 2i+1; cos and sin have each number twice.")
		} else {
			l.begin("RotateHalves", signature, "rotates element i with i+half.")
		}
		x, cos, sin := pointer("x"), pointer("cos"), pointer("sin")
		heads, dim, half := pointer("heads"), pointer("dim"), pointer("half")
		sign := l.param("sign")
		SHLQ(Imm(2), dim)
		y, n := GP64(), GP64()
		Label("head")
		MOVQ(half, n)
		if pairs {
			ADDQ(n, n)
		} else {
			LEAQ(Mem{Base: x, Index: half, Scale: 4}, y)
		}
		l.loop(n, 1, func(a at) {
			s := l.reg()
			VMULPS(a.from(sin), sign, s)
			if pairs {
				v, t := a.load(x), l.reg()
				VPERMILPS(Imm(0xb1), v, t)
				VMULPS(s, t, t)
				// Even lanes subtract t, odd ones add it.
				VFMADDSUB231PS(a.from(cos), v, t)
				a.store(t, x)
				return
			}
			v, u, c := a.load(x), a.load(y), a.load(cos)
			p, q := l.reg(), l.reg()
			VMULPS(s, u, p)
			VFMSUB231PS(c, v, p)
			VMULPS(s, v, q)
			VFMADD231PS(c, u, q)
			a.store(p, x)
			a.store(q, y)
		})
		ADDQ(dim, x)
		DECQ(heads)
		JNZ(LabelRef("head"))
		end()
	}
}
