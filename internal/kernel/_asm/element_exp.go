package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// exp is what e^x needs: the constants of kernel.Exp.
type exp struct {
	l            lanes
	lo, hi       reg.VecVirtual
	log2e, round Op
	ln2Hi, ln2Lo Op
	one          Op
	p            [6]Op
	bias         Op
}

func (l lanes) exp() *exp {
	e := &exp{l: l, lo: l.inReg(-87.33654), hi: l.inReg(89)}
	e.log2e, e.round = l.konst(1.44269504088896341), l.konst(0x1.8p23)
	e.ln2Hi, e.ln2Lo = l.konst(0.693359375), l.konst(-2.12194440e-4)
	e.one = l.konst(1)
	for i, c := range []float32{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		e.p[i] = l.konst(c)
	}
	if !l.wide() {
		e.bias = l.data(floatOf(127))
	}
	return e
}

// copyOf is a constant in a register that may be changed.
func (l lanes) copyOf(c Op) reg.VecVirtual {
	x := l.reg()
	VMOVUPS(c, x)
	return x
}

// of emits e^x by the method of kernel.Exp, with fused operations. x is kept.
func (e *exp) of(x reg.VecVirtual) reg.VecVirtual {
	l := e.l
	r, n := l.reg(), l.copyOf(e.round)
	// The operand that comes first is the result where one is NaN.
	VMINPS(x, e.hi, r)
	VMAXPS(r, e.lo, r)
	VFMADD231PS(e.log2e, r, n)
	VSUBPS(e.round, n, n)
	VFNMADD231PS(e.ln2Hi, n, r)
	VFNMADD231PS(e.ln2Lo, n, r)
	y := l.copyOf(e.p[0])
	for _, c := range e.p[1:] {
		VFMADD213PS(c, r, y)
	}
	square := l.reg()
	VMULPS(r, r, square)
	VFMADD213PS(r, square, y)
	VADDPS(e.one, y, y)
	if l.wide() {
		VSCALEFPS(n, y, y)
		k := K()
		VCMPPS(Imm(5), e.lo, x, k) // not less
		VMOVAPS_Z(y, k, y)
		return y
	}
	// Twice half the exponent, as in Go.
	half := l.reg()
	VCVTPS2DQ(n, n)
	VPSRAD(Imm(1), n, half)
	VPSUBD(half, n, n)
	VPADDD(e.bias, half, half)
	VPADDD(e.bias, n, n)
	VPSLLD(Imm(23), half, half)
	VPSLLD(Imm(23), n, n)
	VMULPS(half, y, y)
	VMULPS(n, y, y)
	VCMPPS(Imm(5), e.lo, x, n)
	VANDPS(n, y, y)
	return y
}

// ofNegative emits e^-x.
func (e *exp) ofNegative(x reg.VecVirtual) reg.VecVirtual {
	t := e.l.zeros(1)[0]
	VSUBPS(x, t, t)
	return e.of(t)
}

// sigmoid emits 1/(1+e^-x).
func (e *exp) sigmoid(x reg.VecVirtual) reg.VecVirtual {
	y := e.ofNegative(x)
	VADDPS(e.one, y, y)
	s := e.l.copyOf(e.one)
	VDIVPS(y, s, s)
	return s
}

func exponentials(l lanes) {
	l.begin("ExpSum", "func(y, x *float32, n int, shift float32) float32", "computes y = e^(x-shift) and returns its sum.")
	y, x, n, shift := pointer("y"), pointer("x"), pointer("n"), l.param("shift")
	e, acc := l.exp(), l.zeros(1)[0]
	l.loop(n, 1, func(a at) {
		v := a.load(x)
		VSUBPS(shift, v, v)
		v = e.of(v)
		a.store(v, y)
		a.keep(v)
		VADDPS(v, acc, acc)
	})
	result(l.sum(acc))

	l.begin("SumExp", "func(x *float32, n int, shift float32) float32", "returns the sum of e^(x-shift).")
	x, n, shift = pointer("x"), pointer("n"), l.param("shift")
	e, acc = l.exp(), l.zeros(1)[0]
	l.loop(n, 1, func(a at) {
		v := a.load(x)
		VSUBPS(shift, v, v)
		v = e.of(v)
		a.keep(v)
		VADDPS(v, acc, acc)
	})
	result(l.sum(acc))

	l.begin("ExpScale", "func(x *float32, n int, shift, rest, s float32)", "replaces x by s * e^(x-shift-rest).")
	x, n, shift = pointer("x"), pointer("n"), l.param("shift")
	rest, s := l.param("rest"), l.param("s")
	e = l.exp()
	l.loop(n, 1, func(a at) {
		v := a.load(x)
		VSUBPS(shift, v, v)
		VSUBPS(rest, v, v)
		v = e.of(v)
		VMULPS(s, v, v)
		a.store(v, x)
	})
	end()
}

// activation emits a function's value, or its slope and its value.
type activation struct {
	name string
	make func(l lanes) (value func(x reg.VecVirtual) reg.VecVirtual, slope func(x reg.VecVirtual) (slope, value reg.VecVirtual))
}

func silu(l lanes) (func(x reg.VecVirtual) reg.VecVirtual, func(x reg.VecVirtual) (slope, value reg.VecVirtual)) {
	e := l.exp()
	return func(x reg.VecVirtual) reg.VecVirtual {
			y := e.ofNegative(x)
			VADDPS(e.one, y, y)
			VDIVPS(y, x, y)
			return y
		}, func(x reg.VecVirtual) (slope, value reg.VecVirtual) {
			// s * (1 + x*(1-s))
			s := e.sigmoid(x)
			value = l.reg()
			VMULPS(s, x, value)
			slope = l.copyOf(e.one)
			VSUBPS(s, slope, slope)
			VFMADD213PS(e.one, x, slope)
			VMULPS(s, slope, slope)
			return slope, value
		}
}

func geluTanh(l lanes) (func(x reg.VecVirtual) reg.VecVirtual, func(x reg.VecVirtual) (slope, value reg.VecVirtual)) {
	e := l.exp()
	const s, c = 2 * 0.7978845608028654, 0.044715
	scale, cube, triple := l.konst(s), l.konst(c*s), l.konst(3*c*s)
	// 2u = x * (s + s*c*x*x)
	inner := func(x reg.VecVirtual) (u, square reg.VecVirtual) {
		square, u = l.reg(), l.copyOf(cube)
		VMULPS(x, x, square)
		VFMADD213PS(scale, square, u)
		VMULPS(x, u, u)
		return u, square
	}
	return func(x reg.VecVirtual) reg.VecVirtual {
			u, _ := inner(x)
			y := e.ofNegative(u)
			VADDPS(e.one, y, y)
			VDIVPS(y, x, y)
			return y
		}, func(x reg.VecVirtual) (slope, value reg.VecVirtual) {
			// sig + x*sig*(1-sig) * (s + 3*s*c*x*x)
			u, square := inner(x)
			sig := e.sigmoid(u)
			value = l.reg()
			VMULPS(sig, x, value)
			d := l.copyOf(triple)
			VFMADD213PS(scale, square, d)
			slope = l.copyOf(e.one)
			VSUBPS(sig, slope, slope)
			VMULPS(value, slope, slope)
			VFMADD213PS(sig, d, slope)
			return slope, value
		}
}

// gelu has the tail of the normal distribution beyond |x| as
//
//	q = e^(-x*x/2) * p(t) / (1 + 2z), z = |x|/sqrt(2), t = (z-3)/(z+3)
//
// p is a polynomial through Chebyshev points for 0 <= z <= 10, right to 3.3e-9; beyond
// that q is 0. The rounding of x*x is made good, since e^ would magnify it.
func gelu(l lanes) (func(x reg.VecVirtual) reg.VecVirtual, func(x reg.VecVirtual) (slope, value reg.VecVirtual)) {
	e := l.exp()
	const k = 3
	magnitude, half, minusHalf := l.konst(floatOf(0x7fffffff)), l.konst(0.5), l.konst(-0.5)
	root, shift, double, two := l.konst(float32(math.Sqrt(0.5))), l.konst(k), l.konst(2*k), l.konst(2)
	density := l.konst(float32(1 / math.Sqrt(2*math.Pi)))
	// These are too many for registers.
	var p []Mem
	for _, c := range []float32{
		-0.00013913285,
		-0.000400475894,
		0.000996260509,
		0.00128999213,
		-0.0118945589,
		0.0341468336,
		-0.0596364137,
		0.0648232688,
		-0.0237811361,
		-0.067810571,
		0.626504029,
	} {
		p = append(p, l.data(c))
	}
	// phi is the distribution's function of x, power e^(-x*x/2).
	distribution := func(x reg.VecVirtual) (phi, power reg.VecVirtual) {
		a, square, rest := l.copyOf(magnitude), l.reg(), l.reg()
		VANDPS(x, a, a)
		VMINPS(a, e.hi, a)
		VMULPS(a, a, square)
		VMOVAPS(square, rest)
		VFMSUB231PS(a, a, rest)
		VMULPS(minusHalf, square, square)
		power = e.of(square)
		VMULPS(half, rest, rest)
		VFNMADD231PS(rest, power, power)
		z, t := l.reg(), l.reg()
		VMULPS(root, a, z)
		VADDPS(shift, z, t)
		sixth := l.copyOf(double)
		VDIVPS(t, sixth, t)
		VSUBPS(t, l.copyOf(e.one), t)
		q := l.reg()
		if l.wide() {
			VBROADCASTSS(p[0], q)
		} else {
			VMOVUPS(p[0], q)
		}
		for _, c := range p[1:] {
			if l.wide() {
				VFMADD213PS_BCST(c, t, q)
			} else {
				VFMADD213PS(c, t, q)
			}
		}
		VMULPS(power, q, q)
		VFMADD213PS(e.one, l.copyOf(two), z)
		VDIVPS(z, q, q)
		phi = l.copyOf(e.one)
		VSUBPS(q, phi, phi)
		if l.wide() {
			negative := K()
			VPMOVD2M(x, negative)
			VMOVAPS(q, negative, phi)
		} else {
			VBLENDVPS(x, q, phi, phi)
		}
		return phi, power
	}
	return func(x reg.VecVirtual) reg.VecVirtual {
			phi, _ := distribution(x)
			VMULPS(x, phi, phi)
			return phi
		}, func(x reg.VecVirtual) (slope, value reg.VecVirtual) {
			phi, power := distribution(x)
			value = l.reg()
			VMULPS(x, phi, value)
			VMULPS(density, power, power)
			VFMADD231PS(x, power, phi)
			return phi, value
		}
}

func activations(l lanes) {
	for _, f := range []activation{{"SiLU", silu}, {"GELUTanh", geluTanh}, {"GELU", gelu}} {
		l.begin(f.name, "func(y, x *float32, n int)", "computes y = f(x).")
		y, x, n := pointer("y"), pointer("x"), pointer("n")
		value, _ := f.make(l)
		l.loop(n, 1, func(a at) { a.store(value(a.load(x)), y) })
		end()

		l.begin(f.name+"Grad", "func(dx, dy, x *float32, n int)", "computes dx = dy * f'(x).")
		dx, dy, x, n := pointer("dx"), pointer("dy"), pointer("x"), pointer("n")
		_, slope := f.make(l)
		l.loop(n, 1, func(a at) {
			s, _ := slope(a.load(x))
			VMULPS(a.from(dy), s, s)
			a.store(s, dx)
		})
		end()

		l.begin(f.name+"Gated", "func(y, gate, up *float32, n int)", "computes y = f(gate) * up.")
		y, gate, up, n := pointer("y"), pointer("gate"), pointer("up"), pointer("n")
		value, _ = f.make(l)
		l.loop(n, 1, func(a at) {
			v := value(a.load(gate))
			VMULPS(a.from(up), v, v)
			a.store(v, y)
		})
		end()

		l.begin(f.name+"GatedGrad", "func(dgate, dup, dy, gate, up *float32, n int)", "computes dup = dy * f(gate) and dgate = dy * up * f'(gate).")
		dgate, dup, dy := pointer("dgate"), pointer("dup"), pointer("dy")
		gate, up, n = pointer("gate"), pointer("up"), pointer("n")
		_, slope = f.make(l)
		l.loop(n, 1, func(a at) {
			s, v := slope(a.load(gate))
			d := a.load(dy)
			VMULPS(d, v, v)
			VMULPS(a.from(up), d, d)
			VMULPS(d, s, s)
			a.store(v, dup)
			a.store(s, dgate)
		})
		end()
	}
}

// softCap is limit * tanh(x/limit). tanh is 1 - 2/(e^2x + 1), and near 0, where that
// loses digits, x plus a polynomial (Cephes tanhf's coefficients).
func softCap(l lanes) {
	l.begin("SoftCap", "func(x *float32, n int, limit float32)", "replaces x by limit * tanh(x/limit).")
	x, n, limit := pointer("x"), pointer("n"), l.param("limit")
	e := l.exp()
	near, sign := l.konst(0.625), l.konst(float32(math.Copysign(0, -1)))
	p := []Op{}
	for _, c := range []float32{-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1} {
		p = append(p, l.konst(c))
	}
	l.loop(n, 1, func(a at) {
		u, abs := a.load(x), l.reg()
		VDIVPS(limit, u, u)
		signs := l.copyOf(sign)
		VANDPS(u, signs, signs)
		VXORPS(signs, u, abs)
		twice := l.reg()
		VADDPS(abs, abs, twice)
		far, t := e.of(twice), l.copyOf(e.one)
		VADDPS(e.one, far, far)
		VADDPS(t, t, t)
		VDIVPS(far, t, far)
		VSUBPS(far, l.copyOf(e.one), far)
		VORPS(signs, far, far)
		square, small := l.reg(), l.copyOf(p[0])
		VMULPS(u, u, square)
		for _, c := range p[1:] {
			VFMADD213PS(c, square, small)
		}
		VMULPS(square, small, small)
		VFMADD213PS(u, u, small)
		if l.wide() {
			k := K()
			VCMPPS(Imm(1), near, abs, k)
			VMOVAPS(small, k, far)
		} else {
			less := l.reg()
			VCMPPS(Imm(1), near, abs, less)
			VBLENDVPS(less, small, far, far)
		}
		VMULPS(limit, far, far)
		a.store(far, x)
	})
	end()

	l.begin("SoftCapGrad", "func(dx, y *float32, n int, limit float32)", "multiplies dx by 1 - (y/limit)^2.")
	dx, y, n, limit := pointer("dx"), pointer("y"), pointer("n"), l.param("limit")
	one := l.konst(1)
	l.loop(n, 1, func(a at) {
		r, t := a.load(y), l.copyOf(one)
		VDIVPS(limit, r, r)
		VFNMADD231PS(r, r, t)
		VMULPS(a.from(dx), t, t)
		a.store(t, dx)
	})
	end()
}
