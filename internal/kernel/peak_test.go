package kernel

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMultiplyAdd(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		var sum, a, b [16]float32
		for i := range a {
			a[i], b[i] = 1, 2
		}
		use.fma(&sum, &a, &b, 5)
		var total float32
		for _, s := range sum {
			total += s
		}
		require.Equal(t, float32(use.flops/2*5*2), total)
		require.Equal(t, float64(7*use.flops), MultiplyAdd(7))
		require.Zero(t, MultiplyAdd(0))
	})
}

func TestSumWords(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{n}, func(b [][]byte) {
				var want uint64
				for i := range b[0] {
					b[0][i] = byte(rng.Uint32())
					want += uint64(b[0][i]) << (i % 8 * 8)
				}
				require.Equal(t, want, SumWords(b[0]), "%d bytes", n)
			})
		}
	})
}

func TestStreamCopy(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	eachVariant(t, func(t *testing.T) {
		for _, n := range lengths() {
			guarded(t, []int{n, n}, func(b [][]byte) {
				for i := range b[1] {
					b[1][i] = byte(rng.Uint32())
				}
				StreamCopy(b[0], b[1])
				require.Equal(t, b[1], b[0], "%d bytes", n)
			})
		}
		require.Panics(t, func() { StreamCopy(make([]byte, 3), make([]byte, 4)) })
	})
}

func TestWith(t *testing.T) {
	before, _ := Variant()
	failed := errors.New("failed")
	for _, name := range Variants() {
		require.ErrorIs(t, With(name, func() error {
			got, _ := Variant()
			require.Equal(t, name, got)
			return failed
		}), failed)
	}
	require.Error(t, With("mmx", func() error { return nil }))
	after, _ := Variant()
	require.Equal(t, before, after)
}

func BenchmarkMultiplyAdd(b *testing.B) {
	for _, name := range Variants() {
		b.Run(name, func(b *testing.B) {
			with(b, mustChoose(b, name))
			var flops float64
			for b.Loop() {
				flops += MultiplyAdd(1 << 16)
			}
			b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

func mustChoose(t testing.TB, name string) *variant {
	t.Helper()
	v, err := choose(name)
	require.NoError(t, err)
	return v
}
