package speed

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/kernel"
)

func TestRoundsAreInterleaved(t *testing.T) {
	var order []string
	used, last := kernel.Variants(), ""
	one := func(name string, want int, variant string) func() error {
		return func() error {
			if name != last { // it is repeated until the time can be measured
				order = append(order, name)
			}
			last = name
			if want > 0 {
				require.Equal(t, want, runtime.GOMAXPROCS(0))
			}
			v, err := kernel.Variant()
			require.NoError(t, err)
			require.Equal(t, variant, v)
			return nil
		}
	}
	before := runtime.GOMAXPROCS(0)
	cases := []Case{
		{Run: one("a", 0, used[0]), Work: 1},
		{Run: one("b", 3, used[0]), Threads: 3, Work: 1},
		{Run: one("c", 1, "go"), Threads: 1, Variant: "go", Work: 1, Most: 1},
	}
	timings := 0
	rates, err := Rounds(t.Context(), cases, 3, func() { timings++ })
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c", "a", "b", "a", "b"}, order)
	require.Equal(t, 7, timings)
	require.Equal(t, 7, Timings(cases, 3))
	require.Len(t, rates[0], 3)
	require.Len(t, rates[2], 1)
	require.Positive(t, rates[0].Median())
	require.Equal(t, before, runtime.GOMAXPROCS(0))
}

func TestRoundsEnd(t *testing.T) {
	failed := errors.New("failed")
	_, err := Rounds(t.Context(), []Case{{Run: func() error { return failed }}}, 2, func() {})
	require.ErrorIs(t, err, failed)
	_, err = Rounds(t.Context(), []Case{{Variant: "mmx", Run: func() error { return nil }}}, 2, func() {})
	require.ErrorContains(t, err, "mmx")
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Rounds(ctx, []Case{{Run: func() error { cancel(); return nil }}}, 9, func() {})
	require.ErrorIs(t, err, context.Canceled)
}

func TestRates(t *testing.T) {
	r := Rates{3, 1, 2}
	require.Equal(t, 2.0, r.Median())
	require.Equal(t, 3.0, r.Best())
	require.Equal(t, 1.5, Rates{1, 2}.Median())
	require.Zero(t, Rates(nil).Median())
	require.Equal(t, Rates{3, 0.5}, r.Over(Rates{1, 2}))
}

func TestShare(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	for _, n := range []int{0, 1, 7, 64, 65, 1000} {
		seen := make([]int, n)
		var mu sync.Mutex
		require.NoError(t, Share(n, 8, func(from, to int) error {
			mu.Lock()
			defer mu.Unlock()
			require.Zero(t, from%8*(n-from), "n %d", n)
			for i := from; i < to; i++ {
				seen[i]++
			}
			return nil
		}))
		for i, k := range seen {
			require.Equal(t, 1, k, "%d of %d", i, n)
		}
	}
	failed := errors.New("failed")
	require.ErrorIs(t, Share(8, 1, func(int, int) error { return failed }), failed)
}

func TestMeasureDisk(t *testing.T) {
	for _, size := range []int64{1, 5000, diskChunk, 3*diskChunk + 17} {
		dir := t.TempDir()
		var total int64
		var mu sync.Mutex
		d, err := MeasureDisk(t.Context(), dir, size, 2, func(n int64) {
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
		require.NoError(t, err)
		require.Len(t, d.Read, 2)
		require.Len(t, d.Write, 2)
		require.Positive(t, d.Read.Best())
		require.Equal(t, 2*2*size, total)
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestInterruptedDisk(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := MeasureDisk(ctx, dir, 64*diskChunk, 1, func(int64) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = MeasureDisk(t.Context(), dir+"/none", 1, 1, func(int64) {})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestMachine(t *testing.T) {
	require.NotEmpty(t, CPU())
	require.GreaterOrEqual(t, FreeMemory(), int64(0))
	require.Empty(t, field("/nowhere", "x"))
}

func TestBuffer(t *testing.T) {
	b := NewBuffer(4099, 7)
	require.Len(t, b.Bytes, 4096)
	require.Len(t, b.Floats, 1024)
	signs := 0
	for i, x := range b.Floats {
		if x < 0 {
			signs++
			x = -x
		}
		require.True(t, x >= 0x1p-7 && x < 0x1p-3, "%v", x)
		half := kernel.F16ToF32(uint16(b.Bytes[4*i]) | uint16(b.Bytes[4*i+1])<<8)
		require.True(t, max(half, -half) >= 1 && max(half, -half) < 2, "%v", half)
	}
	require.InDelta(t, 512, signs, 100)
	b.Bytes[0], b.Bytes[3] = 0, 0
	require.Less(t, b.Floats[0], float32(0x1p-100), "the same memory")
	require.Equal(t, make([]float32, 2), NewBuffer(8, 0).Floats)
}
