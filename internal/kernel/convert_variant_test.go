package kernel

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// floatsOf returns the float32 values that bytes are.
func floatsOf(b []byte) []float32 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4)
}

func TestDecodeBF16Variants(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{4 * n, 2 * n}, func(b [][]byte) {
				for i := range b[1] {
					b[1][i] = byte(rng.Uint32())
				}
				want := make([]float32, n)
				decodeBF16Go(want, b[1])
				got := floatsOf(b[0])
				DecodeBF16(got, b[1])
				for i := range want {
					require.Equal(t, bitsOf(want[i]), bitsOf(got[i]), "%d of %d", i, n)
				}
			})
		}
	})
}
