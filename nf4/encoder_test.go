package nf4

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// sample returns n values over many magnitudes, with some blocks of zeros and
// some of values too small to be divided by.
func sample(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	scale := 1.0
	for i := range x {
		if rng.IntN(40) == 0 {
			scale = []float64{0, 1e-44, 1e-39, 1e-20, 0.02, 1, 1e20, 1e38}[rng.IntN(8)]
		}
		x[i] = float32(scale * rng.NormFloat64() / 8)
	}
	return x
}

// reference quantizes as bitsandbytes 0.50's backends/default/ops.py is written:
// whole arrays, one operation after the other.
func reference(e int, size int, x []float32) (codes []byte, absmax []float32) {
	var scaled []float32
	for at := 0; at < len(x); at += size {
		block := x[at:min(at+size, len(x))]
		var top float32
		for _, v := range block {
			top = max(top, float32(math.Abs(float64(v))))
		}
		clamped := max(top, float32(1e-38))
		if len(block) == size {
			inv := float32(1) / clamped
			for _, v := range block {
				scaled = append(scaled, min(max(float32(v*inv), -1), 1))
			}
			absmax = append(absmax, top)
		} else {
			for _, v := range block {
				scaled = append(scaled, min(max(float32(v/clamped), -1), 1))
			}
			absmax = append(absmax, clamped)
		}
	}
	if len(scaled)%2 != 0 {
		scaled = append(scaled, 0)
	}
	for i := 0; i < len(scaled); i += 2 {
		hi := nearest(encodings[e].thresholds, encodings[e].order, scaled[i])
		lo := nearest(encodings[e].thresholds, encodings[e].order, scaled[i+1])
		codes = append(codes, hi<<4|lo)
	}
	return codes, absmax
}

func quantize(t testing.TB, d tensor.DType, size int, x []float32) ([]byte, *Encoder) {
	t.Helper()
	enc, err := NewEncoder(d, size, int64(len(x)))
	require.NoError(t, err)
	codes, err := enc.Append(nil, x)
	require.NoError(t, err)
	codes, err = enc.Finish(codes)
	require.NoError(t, err)
	return codes, enc
}

func TestEncoderMatchesReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for e, enc := range encodings {
		for size := MinBlock; size <= MaxBlock; size *= 2 {
			for _, n := range []int{1, 2, size - 1, size, size + 1, 3*size + rng.IntN(size), 7 * size, 12345} {
				x := sample(rng, n)
				codes, got := quantize(t, enc.book.dtype, size, x)
				want, absmax := reference(e, size, x)
				require.Equal(t, want, codes, "%v block size %d, %d elements", enc.book.dtype, size, n)
				require.Equal(t, absmax, got.Absmax())
			}
		}
	}
}

// How a tensor is cut into panels must not show.
func TestEncoderPanels(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	x := sample(rng, 172*9+1)
	want, whole := quantize(t, tensor.NF4, 64, x)
	for range 50 {
		enc, err := NewEncoder(tensor.NF4, 64, int64(len(x)))
		require.NoError(t, err)
		var codes []byte
		for rest := x; len(rest) > 0; {
			n := min(len(rest), rng.IntN(300))
			codes, err = enc.Append(codes, rest[:n])
			require.NoError(t, err)
			require.Len(t, codes, int(enc.done)/2)
			rest = rest[n:]
		}
		codes, err = enc.Finish(codes)
		require.NoError(t, err)
		require.Equal(t, want, codes)
		require.Equal(t, whole.Absmax(), enc.Absmax())
		require.Equal(t, whole.RelRMS(nil), enc.RelRMS(nil))
	}
}

// What has been decoded encodes to the same codes and absmax.
func TestEncodeDecoded(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, d := range []tensor.DType{tensor.NF4, tensor.FP4} {
		for range 30 {
			x := make([]float32, 1+rng.IntN(1000))
			for i := range x {
				x[i] = float32(rng.NormFloat64() * 0.02)
			}
			codes, enc := quantize(t, d, 32, x)
			y := decodeAll(t, d, 32, enc.Absmax(), codes, len(x))
			again, enc2 := quantize(t, d, 32, y)
			if d == tensor.NF4 {
				require.Equal(t, codes, again)
			} else {
				z := decodeAll(t, d, 32, enc2.Absmax(), again, len(x)) // two codes mean 0
				require.Equal(t, y, z)
			}
			require.Equal(t, enc.Absmax(), enc2.Absmax())
		}
	}
}

func decodeAll(t testing.TB, d tensor.DType, size int64, absmax []float32, codes []byte, n int) []float32 {
	t.Helper()
	h := Header{BlockSize: size, Source: tensor.F32}
	shape := tensor.Shape{int64(n)}
	rows, err := codecs.Open(h.Info("w", d, shape), blob(h, int64(n), nil, nil, f32Bytes(absmax), codes))
	require.NoError(t, err)
	x := make([]float32, n)
	require.NoError(t, rows.ReadRows(x, 0))
	return x
}

func f32Bytes(x []float32) []byte {
	b := make([]byte, 4*len(x))
	enc, _ := codecs.Encoder(tensor.F32)
	enc.Encode(b, x)
	return b
}

// The error computed on the way is that of the decoded tensor.
func TestRelRMS(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	x := make([]float32, 64*300+11)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * 0.02)
	}
	codes, enc := quantize(t, tensor.NF4, 64, x)
	dq := Double(enc.Absmax(), Mean(enc.Absmax()))
	for _, dq := range []*DoubleQuant{nil, dq} {
		scales := enc.Absmax()
		if dq != nil {
			scales = scalesOf(dq)
		}
		var num, den float64
		for i, v := range decodeAll(t, tensor.NF4, 64, scales, codes, len(x)) {
			d := float64(v) - float64(x[i])
			num += d * d
			den += float64(x[i]) * float64(x[i])
		}
		require.InEpsilon(t, math.Sqrt(num/den), enc.RelRMS(dq), 1e-5)
	}
	require.InDelta(t, 0.0918, enc.RelRMS(nil), 0.002) // normal values, block size 64

	_, zero := quantize(t, tensor.NF4, 64, make([]float32, 100))
	require.Zero(t, zero.RelRMS(nil))
	huge := []float32{3e38, -3e38, 1e38, 0}
	_, big := quantize(t, tensor.NF4, 64, huge)
	require.Less(t, big.RelRMS(nil), 0.1)
}

func scalesOf(d *DoubleQuant) (scales []float32) {
	for i := range d.Absmax {
		scales = append(scales, d.Scale(i))
	}
	return scales
}

func TestDoubleEmptyAndConstant(t *testing.T) {
	require.Zero(t, Mean(nil))
	require.Empty(t, Double(nil, 0).Absmax)
	absmax := make([]float32, 300)
	for i := range absmax {
		absmax[i] = 0.25
	}
	d := Double(absmax, Mean(absmax))
	require.Equal(t, absmax, scalesOf(d))
	require.Equal(t, []float32{0, tiny}, d.NestedAbsmax) // a full and a partial block of zeros
}

func TestNonFinite(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, at := range []int{0, 63, 64, 130, 149} {
			x := make([]float32, 150)
			x[at] = float32(bad)
			x[149] = float32(math.NaN())
			enc, err := NewEncoder(tensor.NF4, 64, 150)
			require.NoError(t, err)
			codes, err := enc.Append(nil, x[:70])
			if err == nil {
				codes, err = enc.Append(codes, x[70:])
			}
			if err == nil {
				_, err = enc.Finish(codes)
			}
			var e *tensor.NonFiniteError
			require.ErrorAs(t, err, &e)
			require.ErrorIs(t, err, tensor.ErrMalformed)
			require.EqualValues(t, at, e.Index)
			require.Equal(t, math.Float32bits(x[at]), math.Float32bits(e.Value))
			require.Contains(t, err.Error(), fmt.Sprintf("element %d is %v", at, x[at]))
		}
	}
}

func TestEncoderErrors(t *testing.T) {
	for _, size := range []int{-64, 0, 1, 16, 48, 65, 8192} {
		_, err := NewEncoder(tensor.NF4, size, 10)
		require.ErrorIs(t, err, tensor.ErrUnsupported, "block size %d", size)
	}
	_, err := NewEncoder(tensor.Q8_0, 64, 10)
	require.ErrorIs(t, err, tensor.ErrUnsupported)

	enc, err := NewEncoder(tensor.NF4, 64, 10)
	require.NoError(t, err)
	_, err = enc.Append(nil, make([]float32, 11))
	require.ErrorContains(t, err, "more than the 10 elements")
	_, err = enc.Append(nil, make([]float32, 9))
	require.NoError(t, err)
	_, err = enc.Finish(nil)
	require.ErrorContains(t, err, "9 of the 10 elements")
}

func BenchmarkEncode(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	x := make([]float32, 1<<18)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * 0.02)
	}
	for _, d := range []tensor.DType{tensor.NF4, tensor.FP4} {
		b.Run(d.String(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			codes := make([]byte, 0, len(x)/2)
			for b.Loop() {
				enc, err := NewEncoder(d, 64, int64(len(x)))
				require.NoError(b, err)
				_, err = enc.Append(codes, x)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkDouble(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	absmax := make([]float32, 1<<14)
	for i := range absmax {
		absmax[i] = float32(0.05 + 0.01*rng.NormFloat64())
	}
	b.SetBytes(int64(4 * len(absmax)))
	for b.Loop() {
		Double(absmax, Mean(absmax))
	}
}
