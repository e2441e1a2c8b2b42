//go:build !race

package model

import (
	"fmt"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/train/stream"
)

// A block's passes leave nothing to the collector but what the kernels need to share
// their work, once there is room. The race detector has pools forget what they hold.
func TestPassesAllocateLittle(t *testing.T) {
	s := setupOf(t, tensortest.TinyModel(t, "llama", func(c *arch.Config) {
		c.HiddenSize, c.IntermediateSize, c.NumHiddenLayers, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim = 128, 384, 1, 4, 2, 32
	}))
	s.adapt(t, 4, 1, "proj")
	for _, a := range s.train.Adapters {
		a.Dropout = 0.3
	}
	st, err := stream.New(s.src, codecs, s.arch, stream.Options{})
	require.NoError(t, err)
	defer st.Close()
	lease, err := st.Lease(t.Context(), 0)
	require.NoError(t, err)
	defer lease.Release()
	m := New(s.arch, s.train, 512)
	block, err := m.Block(0, lease)
	require.NoError(t, err)
	b := &Batch{}
	b.Add(make([]int32, 301), 0)
	n := len(b.Tokens)
	x, dx, kept := make([]float32, n*m.Hidden()), make([]float32, n*m.Hidden()), make([]float32, m.KeptFloats(0, n))
	for i := range x {
		x[i], dx[i] = float32(i%7), float32(i%5)
	}
	key := uint64(1)
	for _, kept := range [][]float32{kept, nil} {
		pass := func() {
			require.NoError(t, block.Forward(dx, b, &key, kept))
			require.NoError(t, block.Backward(dx, x, b, &key, kept))
		}
		m.Reserve(max(ForwardFloats(s.arch, m.Adapted(), 0, n, kept != nil), BackwardFloats(s.arch, m.Adapted(), 0, n, kept != nil)))
		least := uint64(math.MaxUint64) // kernels keep scratch memory for as many workers as ever needed it at once
		for range 8 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			pass()
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		require.Less(t, least, uint64(96<<10), fmt.Sprint("kept ", kept != nil))
	}
}
