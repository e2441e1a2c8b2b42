package ggml

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func TestCodecs(t *testing.T) {
	require.Len(t, Codecs(), len(types()))
	tensor.NewCodecs(Codecs()...) // panics if a type is there twice
	for _, typ := range types() {
		t.Run(typ.dtype.String(), func(t *testing.T) { tensortest.TestEncoder(t, typ, typ.budget) })
	}
}

// golden returns the rows of rows.bin, ggml's blocks of them and the values
// ggml reads from these.
func golden(t *testing.T, d tensor.DType) (rows []float32, stored []byte, values []float32) {
	rows = floats(readFile(t, "rows.bin"))
	b := readFile(t, strings.ToLower(d.String())+".bin")
	elems, size := d.Block()
	n := int64(len(rows)) / elems * size
	require.Len(t, b, int(n)+4*len(rows))
	return rows, b[:n], floats(b[n:])
}

func readFile(t testing.TB, name string) []byte {
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return b
}

func floats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	kernel.DecodeF32(out, b)
	return out
}

func TestEqualsGGML(t *testing.T) {
	for _, typ := range types() {
		t.Run(typ.dtype.String(), func(t *testing.T) {
			rows, stored, values := golden(t, typ.dtype)
			elems, size := typ.dtype.Block()
			got := make([]byte, len(stored))
			typ.Encode(got, rows)
			for i := 0; i < len(stored); i += int(size) {
				at := i / int(size) * int(elems)
				require.Equal(t, stored[i:i+int(size)], got[i:i+int(size)], "block of %v", rows[at:at+int(elems)])
			}
			back := make([]float32, len(values))
			typ.decode(back, stored)
			for i, want := range values {
				if math.IsNaN(float64(want)) {
					require.True(t, math.IsNaN(float64(back[i])), "value %d", i)
					continue
				}
				require.Equal(t, math.Float32bits(want), math.Float32bits(back[i]), "value %d", i)
			}
		})
	}
}

// The blocks are those of a real model, the values gguf-py's.
func TestRealModel(t *testing.T) {
	b := readFile(t, "smollm2_q8_0.bin")
	head := b[:16]
	require.Equal(t, uint32(8), binary.LittleEndian.Uint32(head))
	n, size := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[8:])
	stored, want := b[16:16+size], b[16+size:]
	values := make([]float32, n)
	decodeQ8_0(values, stored)
	got := make([]byte, len(want))
	kernel.EncodeBF16(got, values)
	require.Equal(t, want, got)

	again := make([]byte, size)
	encodeQ8_0(again, values)
	require.Equal(t, stored, again)
}

// The error is bounded block by block for any finite values that the scale can
// hold.
func TestBudget(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, typ := range types() {
		elems, size := typ.dtype.Block()
		x, y, q := make([]float32, elems), make([]float32, elems), make([]byte, size)
		worst := 0.0
		for range 20000 {
			scale := math.Exp2(float64(rng.IntN(20) - 5))
			for i := range x {
				x[i] = float32((2*rng.Float64() - 1) * scale)
			}
			typ.encode(q, x)
			typ.decode(y, q)
			top := float64(absmax(x))
			for i := range x {
				worst = max(worst, math.Abs(float64(x[i])-float64(y[i]))/top)
			}
		}
		require.LessOrEqual(t, worst, typ.budget, "%v", typ.dtype)
		require.Greater(t, worst, 0.8*typ.budget, "%v: the budget is too generous", typ.dtype)
	}
}

// What cannot be stored does not pass for something that can.
func TestNotFinite(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, typ := range types() {
		elems, size := typ.dtype.Block()
		for _, bad := range []float32{nan, -nan, inf, -inf, math.MaxFloat32} {
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

func TestRoundInt8(t *testing.T) {
	for x, want := range map[float32]int8{
		0: 0, 0.49999997: 0, 0.5: 1, -0.5: -1, 1.5: 2, 2.5: 3, -2.5: -3, 126.49999: 126, 127: 127, -127: -127,
		127.00001: 127, 1e-45: 0, -1e-45: 0, float32(math.Inf(1)): 0, float32(math.Inf(-1)): 0, float32(math.NaN()): 0,
	} {
		require.Equal(t, want, roundInt8(x), "%v", x)
	}
	for i := range 1 << 16 { // every tie and its neighbours
		x := float32(i-1<<15) / 256
		for _, v := range []float32{math.Nextafter32(x, -200), x, math.Nextafter32(x, 200)} {
			if math.Abs(float64(v)) <= 127 {
				require.Equal(t, int8(math.Round(float64(v))), roundInt8(v), "%v", v)
			}
		}
	}
}

// FuzzDecode checks that decoding any bytes works and settles: what has been
// decoded and stored again decodes to the same, unless it overflows.
func FuzzDecode(f *testing.F) {
	b := readFile(f, "q8_0.bin")
	for i := 0; i < 34*64; i += 34 * 4 {
		f.Add(b[i : i+34*4])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, typ := range types() {
			elems, size := typ.dtype.Block()
			n := int64(len(b)) / size
			x := make([]float32, n*elems)
			typ.decode(x, b[:n*size])
			stored, y := make([]byte, n*size), make([]float32, n*elems)
			typ.encode(stored, x)
			typ.decode(y, stored)
			again, z := make([]byte, n*size), make([]float32, n*elems)
			typ.encode(again, y)
			typ.decode(z, again)
			for i := int64(0); i < n; i++ {
				// A scale that a float16 cannot hold is infinite, and nothing settles there.
				if block := y[i*elems : (i+1)*elems]; absmax(block) <= math.MaxFloat32 {
					require.Equal(t, block, z[i*elems:(i+1)*elems], "block %d", i)
				}
			}
		}
	})
}

func BenchmarkQ8_0(b *testing.B) {
	x := make([]float32, 1<<20)
	for i := range x {
		x[i] = float32(i%255) - 127
	}
	q := make([]byte, len(x)/q8_0Block*q8_0Bytes)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(4 * len(x)))
		for b.Loop() {
			encodeQ8_0(q, x)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(4 * len(x)))
		for b.Loop() {
			decodeQ8_0(x, q)
		}
	})
}
