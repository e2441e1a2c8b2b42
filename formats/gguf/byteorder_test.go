package gguf

import (
	"encoding/binary"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// A file of either byte order is read the same, whatever is in it.
func TestByteOrder(t *testing.T) {
	big, little := mustParse(t, readFile(t, "big.gguf")), mustParse(t, readFile(t, "little.gguf"))
	require.Equal(t, little.Meta(), big.Meta())
	u64s, _ := tensor.Lookup[[]uint64](big.Meta(), "many.u64")
	require.Equal(t, []uint64{0, math.MaxUint64, 1}, u64s)
	f32, _ := tensor.Lookup[float32](big.Meta(), "one.f32")
	require.Equal(t, float32(math.MaxFloat32), f32)

	infos := slices.Collect(big.All())
	require.Equal(t, slices.Collect(little.All()), infos)
	seen := make(map[tensor.DType]bool)
	for _, info := range infos {
		require.Equal(t, tensortest.Bytes(t, little, info.Name), tensortest.Bytes(t, big, info.Name), "%s", info.Name)
		seen[info.DType] = true
	}
	for _, d := range dtypes {
		require.True(t, d == tensor.Invalid || seen[d], "%v is not tested", d)
	}
	tensortest.TestSource(t, big)
	roundTrip(t, readFile(t, "big.gguf"))
}

// The fields of the table lie within their blocks and do not overlap.
func TestWide(t *testing.T) {
	for _, d := range dtypes {
		if d == tensor.Invalid {
			continue
		}
		fields, ok := wide[d]
		require.True(t, ok, "%v", d)
		_, size := d.Block()
		taken := make([]bool, size)
		for _, f := range fields {
			for i := range f.n {
				for j := range f.size {
					at := f.at + i*f.step + j
					require.False(t, taken[at], "%v, byte %d", d, at)
					taken[at] = true
				}
			}
		}
	}
}

// A tensor of any size is put in order a piece at a time.
func TestSwappedInPieces(t *testing.T) {
	const n = 1 << 20
	want := make([]float32, n)
	for i := range want {
		want[i] = float32(i)
	}
	o := layout{binary.BigEndian}
	b := append(pad(o.head(1, 0, o.info("w", gF32, 0, n)), 32, 0), o.pack(want)...)
	src := mustParse(t, b)
	require.Equal(t, want, tensortest.Floats(t, src, "w"))
	r, err := src.Raw("w")
	require.NoError(t, err)
	allocs := testing.AllocsPerRun(3, func() {
		_, err := r.ReadAt(b[:4*n], 0)
		require.NoError(t, err)
	})
	require.Less(t, allocs, 10.0, "it is put in order in place")
}

// What has been cut off a file since its header was read is missing.
func TestSwappedCut(t *testing.T) {
	o := layout{binary.BigEndian}
	b := append(pad(o.head(1, 0, o.info("w", gF32, 0, 8)), 32, 0), make([]byte, 32)...)
	src, err := Parse(shrinking{b, len(b) - 5}, int64(len(b)))
	require.NoError(t, err)
	r, err := src.Raw("w")
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// shrinking says that it has the whole of b, and has n bytes of it.
type shrinking struct {
	b []byte
	n int
}

func (s shrinking) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(s.n) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:s.n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
