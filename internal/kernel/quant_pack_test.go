package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Columns of a tile have the bits that its rows decode to, and nothing beside them is
// touched.
func TestPack4Variants(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 42))
	eachVariant(t, func(t *testing.T) {
		for _, size := range [][3]int{{16, 128, 64}, {32, 256, 64}, {32, 256, 32}, {16, 256, 128}, {48, 128, 4096}, {16, 384, 8}, {0, 128, 64}, {16, 0, 64}, {5, 34, 64}, {16, 128, 4}} {
			rows, cols, block := size[0], size[1], size[2]
			stride, ld, blocks := cols/2+rng.IntN(3), rows+rng.IntN(3), (cols+block-1)/block
			sizes := []int{4 * ((cols-1)*ld + rows), (rows-1)*stride + cols/2, 4 * blocks * rows}
			if rows*cols == 0 {
				Pack4(nil, ld, nil, stride, &nf4Values, nil, block, rows, cols, 0)
				continue
			}
			guarded(t, sizes, func(b [][]byte) {
				dst, absmax := normals(rng, floatsOf(b[0])), normals(rng, floatsOf(b[2]))
				fillBytes(rng, b[1])
				old := append([]float32(nil), dst...)
				Pack4(dst, ld, b[1], stride, &nf4Values, absmax, block, rows, cols, 1<<20)
				row := make([]float32, cols)
				for j := range rows {
					scales := make([]float32, blocks)
					for i := range scales {
						scales[i] = absmax[i*rows+j]
					}
					decode4Go(row, b[1][j*stride:], &nf4Values, scales, block)
					for k := range cols {
						require.Equal(t, bitsOf(row[k]), bitsOf(dst[k*ld+j]))
						old[k*ld+j] = dst[k*ld+j]
					}
				}
				require.Equal(t, old, dst)
			})
		}
		pack := func(dst, codes, absmax int) {
			Pack4(make([]float32, dst), 16, make([]byte, codes), 64, &nf4Values, make([]float32, absmax), 64, 16, 128, 0)
		}
		pack(128*16, 16*64, 32)
		require.Panics(t, func() { pack(128*16-1, 16*64, 32) })
		require.Panics(t, func() { pack(128*16, 16*64-1, 32) })
		require.Panics(t, func() { pack(128*16, 16*64, 31) })
	})
}
