//go:build !race

package kernel

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPanelBytesCoversScratch measures what products allocate when no scratch memory is
// left from before. The race detector has pools forget what they hold.
func TestPanelBytesCoversScratch(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	eachVariant(t, func(t *testing.T) {
		for _, s := range [][3]int{{20, 64, 64}, {20, 600, 40}, {20, 40, 600}, {150, 700, 1500}, {700, 300, 300}, {40, 130, 5000}, {700, 16, 900}} {
			m, rows, cols := s[0], s[1], s[2]
			x, dy, w := make([]float32, m*cols), make([]float32, m*rows), Dense{make([]float32, rows*cols), rows, cols}
			for _, matrix := range []Matrix{w, encoded{w}, tiled{encoded{w}, 64}} {
				products := []func(){
					func() { _ = MulT(dy, x, m, matrix, false) },
					func() { _ = Mul(x, dy, m, matrix, false) },
					func() { AddOuter(w.Data, dy, x, m, rows, cols) },
				}
				for i, product := range products {
					runtime.GC()
					runtime.GC() // a pool survives one
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					product()
					runtime.ReadMemStats(&after)
					const small = 64 << 10 // closures, errors, goroutines
					require.LessOrEqual(t, int64(after.TotalAlloc-before.TotalAlloc), PanelBytes(m, rows, cols)+small, "product %d of %v, %T", i, s, matrix)
				}
			}
		}
	})
}
