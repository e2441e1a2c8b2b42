package safeio

import (
	"bytes"
	"io"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadN(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 3<<20)
	for _, n := range []int{0, 1, 10, chunk - 1, chunk, chunk + 1, len(data)} {
		got, err := ReadN(bytes.NewReader(data), uint64(n))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data[:n], got))
	}
	for _, n := range []uint64{4, 1 << 40, math.MaxInt64, math.MaxUint64} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ReadN(bytes.NewReader([]byte("abc")), n)
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*chunk), "a lying size must not be believed")
	}
}

func TestCheckedArithmetic(t *testing.T) {
	for _, c := range []struct {
		a, b int64
		add  bool
		mul  bool
	}{
		{2, 3, true, true},
		{math.MaxInt64, 0, true, true},
		{math.MaxInt64, 1, false, true},
		{1 << 32, 1 << 31, true, false},
		{1 << 31, 1 << 31, true, true},
	} {
		s, ok := Add(c.a, c.b)
		require.Equal(t, c.add, ok)
		if ok {
			require.Equal(t, c.a+c.b, s)
		}
		p, ok := Mul(c.a, c.b)
		require.Equal(t, c.mul, ok)
		if ok {
			require.Equal(t, c.a*c.b, p)
		}
	}
}
