package tensortest

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// TestEncoder is TestStored for an Encoder that rounds, of which what has been
// decoded encodes to the same bytes again.
func TestEncoder(t *testing.T, enc tensor.Encoder, budget float64) {
	testStored(t, enc, budget, true)
}

// TestStored checks what every Encoder promises, one that searches for a good scale
// included: rows decode the same alone and together, from memory and from a reader.
// budget is the largest error allowed of a decoded value, relative to the largest
// magnitude in its block.
func TestStored(t *testing.T, enc tensor.Encoder, budget float64) {
	testStored(t, enc, budget, false)
}

func testStored(t *testing.T, enc tensor.Encoder, budget float64, settles bool) {
	block, _ := enc.DType().Block()
	for _, shape := range []tensor.Shape{{1, block}, {7, 3 * block}, {2, 5, 2 * block}, {block}} {
		info := tensor.Info{Name: "w", DType: enc.DType(), Shape: shape}
		require.NoError(t, info.Validate())
		rng := rand.New(rand.NewPCG(3, uint64(shape.Elems())))
		want := make([]float32, shape.Elems())
		for i := range want {
			want[i] = float32(rng.NormFloat64())
		}
		stored := make([]byte, info.Size())
		enc.Encode(stored, want)

		decode := func(data tensor.Bytes, rows int64) []float32 {
			r, err := enc.Open(info, data)
			require.NoError(t, err)
			got := make([]float32, len(want))
			step := rows * shape.Cols()
			for at := int64(0); at < int64(len(got)); at += step {
				end := min(at+step, int64(len(got)))
				require.NoError(t, r.ReadRows(got[at:end], at/shape.Cols()))
			}
			return got
		}
		got := decode(tensor.Memory(stored), shape.Rows())
		require.Equal(t, got, decode(tensor.Memory(stored), 1))
		require.Equal(t, got, decode(tensor.ReaderBytes{R: bytes.NewReader(stored)}, 2))

		if settles {
			again := make([]byte, len(stored))
			enc.Encode(again, got)
			require.Equal(t, stored, again, "what was decoded must encode to the same bytes")
		}

		for b := int64(0); b < int64(len(want)); b += block {
			w, g := want[b:b+block], got[b:b+block]
			var top float64
			for _, x := range w {
				top = max(top, math.Abs(float64(x)))
			}
			for i := range w {
				require.LessOrEqual(t, math.Abs(float64(w[i]-g[i])), budget*top, "element %d of block %d", i, b/block)
			}
		}

		r, err := enc.Open(info, tensor.Memory(stored))
		require.NoError(t, err)
		TestTiles(t, r, shape)
		require.Error(t, r.ReadRows(make([]float32, shape.Cols()), shape.Rows()), "a row beyond the last")
		require.Error(t, r.ReadRows(make([]float32, shape.Cols()+1), 0), "a part of a row")
		require.Error(t, r.ReadRows(make([]float32, shape.Cols()), -1), "a row before the first")
	}
}
