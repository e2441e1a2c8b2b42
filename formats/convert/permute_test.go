package convert

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRowsAreReadTogether checks that rows in another order come from where the order
// says, and that those which follow each other there are read in one piece.
func TestRowsAreReadTogether(t *testing.T) {
	const headDim, rows, size = 8, 24, 3
	stored := make([]byte, rows*size)
	for i := range stored {
		stored[i] = byte(i)
	}
	for name, order := range map[string]rowOrder{"interleaved": toInterleaved(headDim), "half split": toHalfSplit(headDim), "same": func(r int64) int64 { return r }} {
		for first := range int64(rows) {
			for n := int64(1); first+n <= rows; n++ {
				reads := 0
				got := make([]byte, n*size)
				require.NoError(t, order.read(got, first, size, func(dst []byte, from int64) error {
					reads++
					copy(dst, stored[from*size:])
					return nil
				}))
				for i := range n {
					from := order(first+i) * size
					require.Equal(t, stored[from:from+size], got[i*size:][:size], "%s, row %d of %d from %d on", name, i, n, first)
				}
				if first%headDim == 0 && n%headDim == 0 {
					require.Equal(t, 1, reads, name)
				}
			}
		}
		// Half of a head whose rows are pairs lies in two pieces.
		if name == "interleaved" {
			reads := 0
			require.NoError(t, order.read(make([]byte, headDim/2*size), 0, size, func([]byte, int64) error { reads++; return nil }))
			require.Equal(t, 2, reads)
		}
	}
}
