package tensortest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// Tensor is one tensor of a source in memory.
type Tensor struct {
	Info tensor.Info
	Data []byte
}

// NewSource returns a Source of tensors in memory.
func NewSource(t testing.TB, meta tensor.Meta, list ...Tensor) tensor.Source {
	t.Helper()
	entries := make([]tensor.Entry, len(list))
	for i, x := range list {
		require.Equal(t, x.Info.Size(), int64(len(x.Data)), "%s", x.Info.Name)
		entries[i] = tensor.Entry{Info: x.Info, Open: func() (io.ReaderAt, error) { return bytes.NewReader(x.Data), nil }}
	}
	src, err := tensor.NewTable(meta, entries)
	require.NoError(t, err)
	return src
}

// Float32 returns an F32 tensor of the given values.
func Float32(name string, shape tensor.Shape, values []float32) Tensor {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return Tensor{tensor.Info{Name: name, DType: tensor.F32, Shape: shape}, b}
}

// Normal returns an F32 tensor of normally distributed values with the given
// standard deviation; the same seed gives the same values.
func Normal(name string, shape tensor.Shape, sigma float64, seed uint64) Tensor {
	rng := rand.New(rand.NewPCG(seed, 0))
	values := make([]float32, shape.Elems())
	for i := range values {
		values[i] = float32(rng.NormFloat64() * sigma)
	}
	return Float32(name, shape, values)
}

// Floats returns the values of an F32 tensor of src.
func Floats(t testing.TB, src tensor.Source, name string) []float32 {
	t.Helper()
	info, err := src.Info(name)
	require.NoError(t, err)
	require.Equal(t, tensor.F32, info.DType, "%s", name)
	b := Bytes(t, src, name)
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// Bytes returns the stored bytes of a tensor of src.
func Bytes(t testing.TB, src tensor.Source, name string) []byte {
	t.Helper()
	r, err := src.Raw(name)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err, "%s", name)
	return b
}

// TestSource checks what every Source promises.
func TestSource(t *testing.T, src tensor.Source) {
	t.Helper()
	first := slices.Collect(src.All())
	require.Equal(t, first, slices.Collect(src.All()), "All must yield the same order each time")
	for range src.All() {
		break // an early stop must be possible
	}

	seen := make(map[string]bool)
	for _, info := range first {
		require.False(t, seen[info.Name], "name %q occurs twice", info.Name)
		seen[info.Name] = true
		require.NoError(t, info.Validate())
		got, err := src.Info(info.Name)
		require.NoError(t, err)
		require.Equal(t, info, got)

		r, err := src.Raw(info.Name)
		require.NoError(t, err)
		require.Equal(t, info.Size(), r.Size(), "%s", info.Name)
		whole := Bytes(t, src, info.Name)
		require.Len(t, whole, int(info.Size()), "%s", info.Name)
		checkRandomAccess(t, r, whole)
	}

	_, err := src.Info("no tensor has this name")
	require.ErrorIs(t, err, tensor.ErrNotFound)
	_, err = src.Raw("no tensor has this name")
	require.ErrorIs(t, err, tensor.ErrNotFound)
}

// checkRandomAccess reads odd pieces from several goroutines at a time.
func checkRandomAccess(t *testing.T, r *io.SectionReader, whole []byte) {
	t.Helper()
	if len(whole) == 0 {
		return
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for g := range errs {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), uint64(len(whole))))
			for range 8 {
				off := rng.IntN(len(whole))
				b := make([]byte, rng.IntN(len(whole)-off)+1)
				if _, err := r.ReadAt(b, int64(off)); err != nil && err != io.EOF {
					errs[g] = err
				} else if !bytes.Equal(b, whole[off:off+len(b)]) {
					errs[g] = errors.New("a piece differs from the whole")
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	n, err := r.ReadAt(make([]byte, 2), int64(len(whole))-1)
	require.Equal(t, 1, n)
	require.Equal(t, io.EOF, err)
}
