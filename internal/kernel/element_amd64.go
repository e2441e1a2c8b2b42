//go:build amd64 && !purego

package kernel

import (
	"math"

	"github.com/seed18967229/nibble/internal/kernel/simd"
)

var elementAVX2 = elementLoops{
	add:          over2(simd.AddAVX2),
	addScaled:    scaled(simd.AddScaledAVX2),
	scale:        with1(simd.ScaleAVX2),
	adamW:        adamW(simd.AdamWAVX2),
	dot:          dotLoop(simd.DotAVX2),
	max:          maxLoop(simd.MaxAVX2),
	sum:          sumLoop(simd.SumAVX2),
	sumSquares:   squaresLoop(simd.SumSquaresAVX2),
	norm:         norm(simd.NormAVX2),
	normBias:     normBias(simd.NormBiasAVX2),
	normDots:     normDots(simd.NormDotsAVX2),
	normGrad:     normGrad(simd.NormGradAVX2),
	normWeight:   normWeight(simd.NormWeightAVX2),
	rotateHalves: rotateHalves(simd.RotateHalvesAVX2),
	rotatePairs:  rotatePairs(simd.RotatePairsAVX2),
	expSum:       expSum(simd.ExpSumAVX2),
	sumExp:       sumExp(simd.SumExpAVX2),
	expScale:     expScale(simd.ExpScaleAVX2),
	softCap:      with1(simd.SoftCapAVX2),
	softCapGrad:  with2(simd.SoftCapGradAVX2),
	act: [activationCount]activationLoops{
		SiLU:     {over2(simd.SiLUAVX2), over3(simd.SiLUGradAVX2), over3(simd.SiLUGatedAVX2), over5(simd.SiLUGatedGradAVX2)},
		GELUTanh: {over2(simd.GELUTanhAVX2), over3(simd.GELUTanhGradAVX2), over3(simd.GELUTanhGatedAVX2), over5(simd.GELUTanhGatedGradAVX2)},
		GELU:     {over2(simd.GELUAVX2), over3(simd.GELUGradAVX2), over3(simd.GELUGatedAVX2), over5(simd.GELUGatedGradAVX2)},
	},
	encode8:   encode8(simd.Encode8AVX2),
	magnitude: magnitude(simd.MagnitudeAVX2),
}

var elementAVX512 = elementLoops{
	add:          over2(simd.AddAVX512),
	addScaled:    scaled(simd.AddScaledAVX512),
	scale:        with1(simd.ScaleAVX512),
	adamW:        adamW(simd.AdamWAVX512),
	dot:          dotLoop(simd.DotAVX512),
	max:          maxLoop(simd.MaxAVX512),
	sum:          sumLoop(simd.SumAVX512),
	sumSquares:   squaresLoop(simd.SumSquaresAVX512),
	norm:         norm(simd.NormAVX512),
	normBias:     normBias(simd.NormBiasAVX512),
	normDots:     normDots(simd.NormDotsAVX512),
	normGrad:     normGrad(simd.NormGradAVX512),
	normWeight:   normWeight(simd.NormWeightAVX512),
	rotateHalves: rotateHalves(simd.RotateHalvesAVX512),
	rotatePairs:  rotatePairs(simd.RotatePairsAVX512),
	expSum:       expSum(simd.ExpSumAVX512),
	sumExp:       sumExp(simd.SumExpAVX512),
	expScale:     expScale(simd.ExpScaleAVX512),
	softCap:      with1(simd.SoftCapAVX512),
	softCapGrad:  with2(simd.SoftCapGradAVX512),
	act: [activationCount]activationLoops{
		SiLU:     {over2(simd.SiLUAVX512), over3(simd.SiLUGradAVX512), over3(simd.SiLUGatedAVX512), over5(simd.SiLUGatedGradAVX512)},
		GELUTanh: {over2(simd.GELUTanhAVX512), over3(simd.GELUTanhGradAVX512), over3(simd.GELUTanhGatedAVX512), over5(simd.GELUTanhGatedGradAVX512)},
		GELU:     {over2(simd.GELUAVX512), over3(simd.GELUGradAVX512), over3(simd.GELUGatedAVX512), over5(simd.GELUGatedGradAVX512)},
	},
	encode8:   encode8(simd.Encode8AVX512),
	magnitude: magnitude(simd.MagnitudeAVX512),
}

// The functions below make loops over slices of loops over pointers. They do nothing
// for no elements, and panic where another slice is shorter than the first.

func over2(loop func(y, x *float32, n int)) func(y, x []float32) {
	return func(y, x []float32) {
		if n := len(y); n > 0 {
			x = x[:n]
			loop(&y[0], &x[0], n)
		}
	}
}

func over3(loop func(z, y, x *float32, n int)) func(z, y, x []float32) {
	return func(z, y, x []float32) {
		if n := len(z); n > 0 {
			y, x = y[:n], x[:n]
			loop(&z[0], &y[0], &x[0], n)
		}
	}
}

func over5(loop func(a, b, c, d, e *float32, n int)) func(a, b, c, d, e []float32) {
	return func(a, b, c, d, e []float32) {
		if n := len(a); n > 0 {
			b, c, d, e = b[:n], c[:n], d[:n], e[:n]
			loop(&a[0], &b[0], &c[0], &d[0], &e[0], n)
		}
	}
}

func with1(loop func(x *float32, n int, s float32)) func(x []float32, s float32) {
	return func(x []float32, s float32) {
		if len(x) > 0 {
			loop(&x[0], len(x), s)
		}
	}
}

func with2(loop func(y, x *float32, n int, s float32)) func(y, x []float32, s float32) {
	return func(y, x []float32, s float32) {
		if n := len(y); n > 0 {
			x = x[:n]
			loop(&y[0], &x[0], n, s)
		}
	}
}

func scaled(loop func(y, x *float32, n int, s float32)) func(y []float32, s float32, x []float32) {
	return func(y []float32, s float32, x []float32) {
		if n := len(y); n > 0 {
			x = x[:n]
			loop(&y[0], &x[0], n, s)
		}
	}
}

func adamW(loop func(w, m, v, g *float32, n int, c *float32)) func(w, m, v, g []float32, c *adamWConstants) {
	return func(w, m, v, g []float32, c *adamWConstants) {
		if n := len(w); n > 0 {
			m, v, g = m[:n], v[:n], g[:n]
			// The constants are 8 float32 values, of which this is the first.
			loop(&w[0], &m[0], &v[0], &g[0], n, &c.b1)
		}
	}
}

func dotLoop(loop func(x, y *float32, n int) float32) func(x, y []float32) float32 {
	return func(x, y []float32) float32 {
		n := len(x)
		if n == 0 {
			return 0
		}
		y = y[:n]
		return loop(&x[0], &y[0], n)
	}
}

func maxLoop(loop func(x *float32, n int) float32) func(x []float32) float32 {
	return func(x []float32) float32 {
		if len(x) == 0 {
			return maxGo(x)
		}
		return loop(&x[0], len(x))
	}
}

func sumLoop(loop func(x *float32, n int) float64) func(x []float32) float64 {
	return func(x []float32) float64 {
		if len(x) == 0 {
			return 0
		}
		return loop(&x[0], len(x))
	}
}

func squaresLoop(loop func(x *float32, n int, mean float64) float64) func(x []float32, mean float64) float64 {
	return func(x []float32, mean float64) float64 {
		if len(x) == 0 {
			return 0
		}
		return loop(&x[0], len(x), mean)
	}
}

func norm(loop func(y, x, w *float32, n int, s, plus float32)) func(y, x, w []float32, s, plus float32) {
	return func(y, x, w []float32, s, plus float32) {
		if n := len(y); n > 0 {
			x, w = x[:n], w[:n]
			loop(&y[0], &x[0], &w[0], n, s, plus)
		}
	}
}

func normBias(loop func(y, x, w, b *float32, n int, mean, s, plus float32)) func(y, x, w, b []float32, mean, s, plus float32) {
	return func(y, x, w, b []float32, mean, s, plus float32) {
		if n := len(y); n > 0 {
			x, w, b = x[:n], w[:n], b[:n]
			loop(&y[0], &x[0], &w[0], &b[0], n, mean, s, plus)
		}
	}
}

func normDots(loop func(dy, x, w *float32, n int, mean, plus float32) (dot, sum float64)) func(dy, x, w []float32, mean, plus float32) (dot, sum float64) {
	return func(dy, x, w []float32, mean, plus float32) (dot, sum float64) {
		n := len(dy)
		if n == 0 {
			return 0, 0
		}
		x, w = x[:n], w[:n]
		return loop(&dy[0], &x[0], &w[0], n, mean, plus)
	}
}

func normGrad(loop func(dx, dy, x, w *float32, n int, mean, s, plus, c, shift float32)) func(dx, dy, x, w []float32, mean, s, plus, c, shift float32) {
	return func(dx, dy, x, w []float32, mean, s, plus, c, shift float32) {
		if n := len(dx); n > 0 {
			dy, x, w = dy[:n], x[:n], w[:n]
			loop(&dx[0], &dy[0], &x[0], &w[0], n, mean, s, plus, c, shift)
		}
	}
}

func normWeight(loop func(dw, dy, x *float32, n int, mean, s float32)) func(dw, dy, x []float32, mean, s float32) {
	return func(dw, dy, x []float32, mean, s float32) {
		if n := len(dw); n > 0 {
			dy, x = dy[:n], x[:n]
			loop(&dw[0], &dy[0], &x[0], n, mean, s)
		}
	}
}

type rotateLoop = func(x, cos, sin *float32, heads, dim, half int, sign float32)

func rotateHalves(loop rotateLoop) func(x, cos, sin []float32, heads, dim int, sign float32) {
	return func(x, cos, sin []float32, heads, dim int, sign float32) {
		rotate(loop, x, cos, sin, heads, dim, len(cos), sign)
	}
}

func rotatePairs(loop rotateLoop) func(x, cos, sin []float32, heads, dim int, sign float32) {
	return func(x, cos, sin []float32, heads, dim int, sign float32) {
		rotate(loop, x, cos, sin, heads, dim, len(cos)/2, sign)
	}
}

func rotate(loop rotateLoop, x, cos, sin []float32, heads, dim, half int, sign float32) {
	if heads == 0 || half == 0 {
		return
	}
	if 2*half > dim {
		panic("kernel: more is rotated than a head has")
	}
	x, sin = x[:heads*dim], sin[:len(cos)]
	loop(&x[0], &cos[0], &sin[0], heads, dim, half, sign)
}

// laneGroup is how many exponentials the loops sum in float32: in 8 lanes and more.
const laneGroup = 4 * sumGroup

func expSum(loop func(y, x *float32, n int, shift float32) float32) func(y, x []float32, shift float32) float64 {
	return func(y, x []float32, shift float32) float64 {
		x = x[:len(y)]
		var sum float64
		for at := 0; at < len(y); at += laneGroup {
			sum += float64(loop(&y[at], &x[at], min(len(y)-at, laneGroup), shift))
		}
		return sum
	}
}

func sumExp(loop func(x *float32, n int, shift float32) float32) func(x []float32, shift float32) float64 {
	return func(x []float32, shift float32) float64 {
		var sum float64
		for at := 0; at < len(x); at += laneGroup {
			sum += float64(loop(&x[at], min(len(x)-at, laneGroup), shift))
		}
		return sum
	}
}

func expScale(loop func(x *float32, n int, shift, rest, s float32)) func(x []float32, shift, rest, s float32) {
	return func(x []float32, shift, rest, s float32) {
		if len(x) > 0 {
			loop(&x[0], len(x), shift, rest, s)
		}
	}
}

// step8 is what the loops between codes and values take a multiple of; Go does the rest.
const step8 = 16

func encode8(loop func(codes *uint8, x *float32, n int, top float32, first *uint8, bounds *float32, low, keys uint32)) func(codes []uint8, x []float32, d *dynamicMap, top float32) {
	return func(codes []uint8, x []float32, d *dynamicMap, top float32) {
		codes = codes[:len(x)]
		n := len(x) &^ (step8 - 1)
		if n > 0 {
			loop(&codes[0], &x[0], n, top, &d.first[0], &d.bounds[0], firstKey, mapKeys)
		}
		encode8Go(codes[n:], x[n:], d, top)
	}
}

func magnitude(loop func(x *float32, n int) uint32) func(x []float32) float32 {
	return func(x []float32) float32 {
		if len(x) == 0 {
			return 0
		}
		return math.Float32frombits(loop(&x[0], len(x)))
	}
}
