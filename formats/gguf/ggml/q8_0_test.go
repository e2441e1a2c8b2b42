package ggml

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
)

// The error is bounded block by block for any finite values that the scale can
// hold.
func TestLargestError(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, typ := range types() {
		if typ.encode == nil {
			continue
		}
		elems, size := typ.dtype.Block()
		x, y, q := make([]float32, elems), make([]float32, elems), make([]byte, size)
		worst, limit := 0.0, largest[typ.dtype]
		for range 640000 / elems {
			scale := math.Exp2(float64(rng.IntN(20) - 5))
			for i := range x {
				x[i] = float32((2*rng.Float64() - 1) * scale)
			}
			typ.encode(q, x)
			typ.decode(y, q)
			top := float64(kernel.Absmax(x))
			for i := range x {
				worst = max(worst, math.Abs(float64(x[i])-float64(y[i]))/top)
			}
		}
		require.LessOrEqual(t, worst, limit, "%v", typ.dtype)
		require.Greater(t, worst, 0.8*limit, "%v: the limit is too generous", typ.dtype)
	}
}

// What cannot be stored does not pass for something that can.
func TestNotFinite(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, typ := range types() {
		if typ.encode == nil {
			continue
		}
		elems, size := typ.dtype.Block()
		for _, bad := range []float32{nan, -nan, inf, -inf, math.MaxFloat32} {
			if bad == math.MaxFloat32 && slices.Contains(overflows, typ.dtype) {
				continue
			}
			for _, at := range []int64{0, elems / 2, elems - 1} {
				x := make([]float32, 2*elems)
				for i := range x {
					x[i] = float32(i) - 20
				}
				x[at] = bad
				q, y := make([]byte, 2*size), make([]float32, 2*elems)
				typ.encode(q, x)
				typ.decode(y, q)
				finite := 0
				for _, v := range y[:elems] {
					if !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) {
						finite++
					}
				}
				require.Zero(t, finite, "%v with %v at %d", typ.dtype, bad, at)
				other := make([]byte, size)
				typ.encode(other, x[elems:])
				require.Equal(t, other, q[size:], "the next block is not touched")
			}
		}
	}
}

// FuzzSettles checks that what has been decoded and stored again decodes to the
// same, unless it overflows.
func FuzzSettles(f *testing.F) {
	b := readFile(f, "q8_0.bin")
	for i := 0; i < 34*64; i += 34 * 4 {
		f.Add(b[i : i+34*4])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x := byName(t, "Q8_0").all(b[:len(b)/q8_0Bytes*q8_0Bytes])
		stored, y := make([]byte, len(x)/q8_0Block*q8_0Bytes), make([]float32, len(x))
		encodeQ8_0(stored, x)
		decodeQ8_0(y, stored)
		again, z := make([]byte, len(stored)), make([]float32, len(x))
		encodeQ8_0(again, y)
		decodeQ8_0(z, again)
		for i := 0; i < len(x); i += q8_0Block {
			// A scale that a float16 cannot hold is infinite, and nothing settles there.
			if block := y[i : i+q8_0Block]; kernel.Absmax(block) <= math.MaxFloat32 {
				require.Equal(t, block, z[i:i+q8_0Block], "block %d", i/q8_0Block)
			}
		}
	})
}
