//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var attentionAVX2 = attentionLoops{
	gradRow: func(dp, p []float32, dot float32) {
		if len(p) > 0 {
			simd.GradRowAVX2(&dp[:len(p)][0], &p[0], len(p), dot)
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
	gradRow: func(dp, p []float32, dot float32) {
		if len(p) > 0 {
			simd.GradRowAVX512(&dp[:len(p)][0], &p[0], len(p), dot)
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
