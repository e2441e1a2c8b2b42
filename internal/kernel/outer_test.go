package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tall result, which is made the other way round, has the bits of its parts, which
// are not.
func TestAddOuterNarrow(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	eachVariant(t, func(t *testing.T) {
		for _, s := range [][3]int{{1, 16, 1}, {40, 51, 3}, {300, 330, 16}, {513, 1100, 33}} {
			m, rows, cols := s[0], s[1], s[2]
			require.GreaterOrEqual(t, rows, tall*cols)
			dy, x, dw := normal(rng, m*rows), normal(rng, m*cols), normal(rng, rows*cols)
			want := append([]float32(nil), dw...)
			const parts = 3 // too low to be made the other way round
			for p := range parts {
				from, to := p*rows/parts, (p+1)*rows/parts
				part := make([]float32, 0, m*(to-from))
				for i := range m {
					part = append(part, dy[i*rows+from:i*rows+to]...)
				}
				AddOuter(want[from*cols:to*cols], part, x, m, to-from, cols)
			}
			AddOuter(dw, dy, x, m, rows, cols)
			require.Equal(t, want, dw, "%v", s)
		}
	})
}
