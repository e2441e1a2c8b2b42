//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var attentionAVX2 = attentionLoops{
	maxRow: func(x []float32, scale float32) float32 { return simd.MaxRowAVX2(&x[0], len(x), scale) },
	expRow: func(x []float32, scale, top float32) float32 {
		if len(x) == 0 {
			return 0
		}
		return simd.ExpRowAVX2(&x[0], len(x), scale, top)
	},
	gradRow: func(dp, p []float32, dot, scale float32) {
		if len(p) > 0 {
			simd.GradRowAVX2(&dp[:len(p)][0], &p[0], len(p), dot, scale)
		}
	},
	scaleRow: func(x []float32, s float32) {
		if len(x) > 0 {
			simd.ScaleRowAVX2(&x[0], len(x), s)
		}
	},
	dotRows: func(s, x, y []float32, ld int) {
		if len(s) > 0 {
			simd.DotRowsAVX2(&s[0], &x[0], &y[0], ld, len(s), len(x))
		}
	},
	addRows: func(y, w, x []float32, ld int) {
		if len(w) > 0 {
			simd.AddRowsAVX2(&y[0], &w[0], &x[0], ld, len(w), len(y))
		}
	},
}

var attentionAVX512 = attentionLoops{
	maxRow: func(x []float32, scale float32) float32 { return simd.MaxRowAVX512(&x[0], len(x), scale) },
	expRow: func(x []float32, scale, top float32) float32 {
		if len(x) == 0 {
			return 0
		}
		return simd.ExpRowAVX512(&x[0], len(x), scale, top)
	},
	gradRow: func(dp, p []float32, dot, scale float32) {
		if len(p) > 0 {
			simd.GradRowAVX512(&dp[:len(p)][0], &p[0], len(p), dot, scale)
		}
	},
	scaleRow: func(x []float32, s float32) {
		if len(x) > 0 {
			simd.ScaleRowAVX512(&x[0], len(x), s)
		}
	},
	dotRows: func(s, x, y []float32, ld int) {
		if len(s) > 0 {
			simd.DotRowsAVX512(&s[0], &x[0], &y[0], ld, len(s), len(x))
		}
	},
	addRows: func(y, w, x []float32, ld int) {
		if len(w) > 0 {
			simd.AddRowsAVX512(&y[0], &w[0], &x[0], ld, len(w), len(y))
		}
	},
}
