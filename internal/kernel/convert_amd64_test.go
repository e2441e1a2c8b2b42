//go:build amd64 && !purego

package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStreamedConversions has small results stored past the caches, from every place
// within a line.
func TestStreamedConversions(t *testing.T) {
	old := streamBytes
	streamBytes = 128
	defer func() { streamBytes = old }()
	rng := rand.New(rand.NewPCG(33, 34))
	eachVariant(t, func(t *testing.T) {
		for _, x := range conversions {
			for _, n := range lengths() {
				guarded(t, []int{x.out * n, x.in * n}, func(b [][]byte) {
					for i := range b[1] {
						b[1][i] = byte(rng.Uint32())
					}
					want := make([]byte, x.out*n)
					x.run(&convertGo, want, b[1])
					x.run(&use.convertLoops, b[0], b[1])
					require.Equal(t, want, b[0], "%s of %d", x.name, n)
				})
			}
			for off := range 64 {
				if x.out == 4 && off%4 != 0 && x.name[0] != 'E' {
					continue // float32 values are aligned
				}
				const n = 300
				src, dst, want := make([]byte, x.in*n), make([]byte, x.out*n+128), make([]byte, x.out*n)
				for i := range src {
					src[i] = byte(rng.Uint32())
				}
				x.run(&convertGo, want, src)
				got := dst[off:][:x.out*n]
				x.run(&use.convertLoops, got, src)
				require.Equal(t, want, got, "%s at %d", x.name, off)
				require.Equal(t, make([]byte, off), dst[:off])
				require.Equal(t, make([]byte, 128-off), dst[off+x.out*n:])
			}
		}
	})
}
