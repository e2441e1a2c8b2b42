package nf4

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// The bits bitsandbytes has, printed from Python.
var (
	nf4Bits = [16]uint32{
		0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
		0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000,
	}
	fp4Bits = [16]uint32{
		0x00000000, 0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000,
		0x00000000, 0xbbaaaaab, 0xbf2aaaab, 0xbf800000, 0xbeaaaaab, 0xbf000000, 0xbe2aaaab, 0xbe800000,
	}
	nf4Thresholds = [15]uint32{
		0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec, 0xbe0d38bc, 0xbd3a7871,
		0x3d22faff, 0x3df64862, 0x3e5067e0, 0x3e9582d4, 0x3ec753f9, 0x3f006d04, 0x3f248daf, 0x3f5c89da,
	}
	fp4Thresholds = [15]uint32{
		0xbf555556, 0xbf155556, 0xbed55556, 0xbe955556, 0xbe555556, 0xbdb00000, 0xbb2aaaab,
		0x00000000, 0x3b2aaaab, 0x3db00000, 0x3e555556, 0x3e955556, 0x3ed55556, 0x3f155556, 0x3f555556,
	}
)

var encodings = []struct {
	book       codebook
	order      [16]uint8
	bits       [16]uint32
	thresholds [15]uint32
}{
	{nf4Book, nf4Order, nf4Bits, nf4Thresholds},
	{fp4Book, fp4Order, fp4Bits, fp4Thresholds},
}

func TestCodebook(t *testing.T) {
	for _, e := range encodings {
		values, err := Codebook(e.book.dtype)
		require.NoError(t, err)
		for i, v := range values {
			require.Equal(t, e.bits[i], math.Float32bits(v), "%v code %d", e.book.dtype, i)
		}
	}
	_, err := Codebook(tensor.F32)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}

// nearest is the rule as it is written down: count the thresholds below s.
func nearest(thresholds [15]uint32, order [16]uint8, s float32) uint8 {
	rank := 0
	for rank < 15 && math.Float32frombits(thresholds[rank]) < s {
		rank++
	}
	return order[rank]
}

func TestCode(t *testing.T) {
	for _, e := range encodings {
		check := func(s float32) {
			if s >= -1 && s <= 1 {
				require.Equal(t, nearest(e.thresholds, e.order, s), e.book.Code(s), "%v %v", e.book.dtype, s)
			}
		}
		around := func(v float32) {
			lo, hi := v, v
			for range 4 {
				check(lo)
				check(hi)
				lo, hi = math.Nextafter32(lo, -2), math.Nextafter32(hi, 2)
			}
		}
		for _, b := range e.thresholds {
			around(math.Float32frombits(b))
		}
		for i := range 1025 { // where the search divides the range
			around(float32(i)/512 - 1)
		}
		around(float32(math.Copysign(0, -1)))
		rng := rand.New(rand.NewPCG(1, 2))
		for range 100000 {
			check(2*rng.Float32() - 1)
			check(float32(math.Exp(-20*rng.Float64())) * float32(1-2*rng.IntN(2)))
		}
	}
}

// FP4's zeros are where the default backend and CUDA disagree.
func TestTinyFP4(t *testing.T) {
	require.EqualValues(t, 8, fp4Book.Code(1e-30))
	require.EqualValues(t, 8, fp4Book.Code(0.0026))
	require.EqualValues(t, 0, fp4Book.Code(0))
	require.EqualValues(t, 0, fp4Book.Code(float32(math.Copysign(0, -1))))
	require.EqualValues(t, 0, fp4Book.Code(-1e-30))
	require.EqualValues(t, 0, fp4Book.Code(-0.0026))
}

func TestDynamicMap(t *testing.T) {
	m := DynamicMap()
	var b []byte
	for i, v := range m {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		if i > 0 {
			require.Greater(t, v, m[i-1])
		}
	}
	// Of create_dynamic_map under torch 2.15, and of nested_quant_map in
	// testdata/anamnesis.
	require.Equal(t, "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c", fmt.Sprintf("%x", sha256.Sum256(b)))
	require.Zero(t, m[127])
	require.EqualValues(t, 1, m[255])
}
