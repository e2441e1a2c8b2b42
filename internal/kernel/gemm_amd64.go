//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

var (
	gemmAVX2 = gemmLoops{micro: &microkernel{
		rows: 6, cols: 16, step: 8, padded: true,
		sum: sumTileAVX2, transpose: transposeAVX2, copy: copyRowsAVX2,
	}}
	gemmAVX512 = gemmLoops{micro: &microkernel{
		rows: 14, cols: 32, step: 16,
		sum: sumTileAVX512, transpose: transposeAVX512, copy: copyRowsAVX512,
	}}
)

type (
	tile512 func(k int, a *float32, arow, acol uintptr, b *float32, ldb uintptr, c *float32, ldc uintptr, old *float32, ldold uintptr, next *float32, ld uintptr, load, store uint64)
	tile256 func(k int, a *float32, arow, acol uintptr, b *float32, ldb uintptr, c *float32, ldc uintptr, old *float32, ldold uintptr, next *float32, ld uintptr, load, store *int32, full bool)
)

// tiles512 and tiles256 are the loops by rows, and by columns up to the half and up
// to all.
var (
	tiles512 = [15][2]tile512{
		1:  {simd.Tile1x16AVX512, simd.Tile1x32AVX512},
		2:  {simd.Tile2x16AVX512, simd.Tile2x32AVX512},
		3:  {simd.Tile3x16AVX512, simd.Tile3x32AVX512},
		4:  {simd.Tile4x16AVX512, simd.Tile4x32AVX512},
		5:  {simd.Tile5x16AVX512, simd.Tile5x32AVX512},
		6:  {simd.Tile6x16AVX512, simd.Tile6x32AVX512},
		7:  {simd.Tile7x16AVX512, simd.Tile7x32AVX512},
		8:  {simd.Tile8x16AVX512, simd.Tile8x32AVX512},
		9:  {simd.Tile9x16AVX512, simd.Tile9x32AVX512},
		10: {simd.Tile10x16AVX512, simd.Tile10x32AVX512},
		11: {simd.Tile11x16AVX512, simd.Tile11x32AVX512},
		12: {simd.Tile12x16AVX512, simd.Tile12x32AVX512},
		13: {simd.Tile13x16AVX512, simd.Tile13x32AVX512},
		14: {simd.Tile14x16AVX512, simd.Tile14x32AVX512},
	}
	tiles256 = [7][2]tile256{
		1: {simd.Tile1x8AVX2, simd.Tile1x16AVX2},
		2: {simd.Tile2x8AVX2, simd.Tile2x16AVX2},
		3: {simd.Tile3x8AVX2, simd.Tile3x16AVX2},
		4: {simd.Tile4x8AVX2, simd.Tile4x16AVX2},
		5: {simd.Tile5x8AVX2, simd.Tile5x16AVX2},
		6: {simd.Tile6x8AVX2, simd.Tile6x16AVX2},
	}
)

func sumTileAVX512(c []float32, ldc int, old []float32, ldold int, a strided, b []float32, ldb, m, n, k int, next ahead) {
	_, _, _ = c[(m-1)*ldc+n-1], a.data[(m-1)*a.row+(k-1)*a.col], b[(k-1)*ldb+n-1]
	store := uint64(1)<<n - 1
	load := store
	if old == nil {
		load, old = 0, c
	} else {
		_ = old[(m-1)*ldold+n-1]
	}
	if next.at == nil {
		next.at = &a.data[0] // a page that there is not takes long to look up
	}
	tiles512[m][(n-1)/16](k, &a.data[0], bytes(a.row), bytes(a.col), &b[0], bytes(ldb), &c[0], bytes(ldc), &old[0], bytes(ldold), next.at, bytes(next.ld), load, store)
}

// firstOf has 16 set elements and 16 clear ones; a part of it is a mask.
var firstOf = [32]int32{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}

func sumTileAVX2(c []float32, ldc int, old []float32, ldold int, a strided, b []float32, ldb, m, n, k int, next ahead) {
	half := (n - 1) / 8
	width := 8 * (half + 1)
	_, _, _ = c[(m-1)*ldc+n-1], a.data[(m-1)*a.row+(k-1)*a.col], b[(k-1)*ldb+width-1]
	store := &firstOf[16-n]
	load := store
	if old == nil {
		load, old = &firstOf[16], c
	} else {
		_ = old[(m-1)*ldold+n-1]
	}
	if next.at == nil {
		next.at = &a.data[0]
	}
	tiles256[m][half](k, &a.data[0], bytes(a.row), bytes(a.col), &b[0], bytes(ldb), &c[0], bytes(ldc), &old[0], bytes(ldold), next.at, bytes(next.ld), load, store, n == width)
}

// bytes is the size of n floats.
func bytes(n int) uintptr { return 4 * uintptr(n) }

func transposeAVX512(dst []float32, ldd int, src []float32, ld, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	_, _ = dst[(cols-1)*ldd+rows-1], src[(rows-1)*ld+cols-1]
	for ; rows >= 16; rows -= 16 {
		simd.Transpose16AVX512(&dst[0], bytes(ldd), &src[0], bytes(ld), cols)
		if rows == 16 {
			return
		}
		dst, src = dst[16:], src[16*ld:]
	}
	if rows == 14 {
		simd.Transpose14AVX512(&dst[0], bytes(ldd), &src[0], bytes(ld), cols)
		return
	}
	simd.TransposeSomeAVX512(&dst[0], bytes(ldd), &src[0], bytes(ld), cols, rows)
}

func transposeAVX2(dst []float32, ldd int, src []float32, ld, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	_, _ = dst[(cols-1)*ldd+rows-1], src[(rows-1)*ld+cols-1]
	whole := cols &^ 7
	r := 0
	if whole > 0 {
		for ; r+8 <= rows; r += 8 {
			simd.Transpose8AVX2(&dst[r], bytes(ldd), &src[r*ld], bytes(ld), whole)
		}
		if r+6 <= rows {
			simd.Transpose6AVX2(&dst[r], bytes(ldd), &src[r*ld], bytes(ld), whole)
			r += 6
		}
	}
	if whole < cols && r > 0 {
		transposeGo(dst[whole*ldd:], ldd, src[whole:], ld, r, cols-whole)
	}
	if r < rows {
		transposeGo(dst[r:], ldd, src[r*ld:], ld, rows-r, cols)
	}
}

func copyRowsAVX512(dst []float32, ldd int, src []float32, ld, rows, width, pad int) {
	_, _ = dst[(rows-1)*ldd+pad-1], src[(rows-1)*ld+width-1]
	simd.CopyRowsAVX512(&dst[0], bytes(ldd), &src[0], bytes(ld), rows, 1<<width-1, 1<<pad-1)
}

func copyRowsAVX2(dst []float32, ldd int, src []float32, ld, rows, width, pad int) {
	_, _ = dst[(rows-1)*ldd+pad-1], src[(rows-1)*ld+width-1]
	switch {
	case width == 16:
		simd.CopyRows16AVX2(&dst[0], bytes(ldd), &src[0], bytes(ld), rows)
	case width == 6 && pad == 6:
		simd.CopyRows6AVX2(&dst[0], bytes(ldd), &src[0], bytes(ld), rows)
	default:
		for r := range rows {
			row := dst[r*ldd:][:pad]
			copy(row, src[r*ld:][:width])
			clear(row[width:])
		}
	}
}
