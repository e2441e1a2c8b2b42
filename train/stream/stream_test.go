package stream

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

func model(t *testing.T, layers int64) (*arch.Model, tensor.Source) {
	m := tensortest.TinyLlama(t, func(c *arch.Config) { c.NumHiddenLayers, c.AttentionBias = layers, true })
	return m, tensortest.NewModel(t, m, 7)
}

// check compares every tensor of a lease with the source.
func check(t *testing.T, m *arch.Model, src tensor.Source, l *Lease, layer int) {
	t.Helper()
	for _, x := range m.Block(layer) {
		want := tensortest.Floats(t, src, x.Name)
		if len(x.Dims) == 1 {
			got, err := l.Vector(x.Name)
			require.NoError(t, err)
			require.Equal(t, want, got, x.Name)
			continue
		}
		w, err := l.Matrix(x.Name)
		require.NoError(t, err)
		equal(t, want, w, x.Name)
	}
}

// equal compares a matrix with its values.
func equal(t *testing.T, want []float32, w kernel.Matrix, name string) {
	t.Helper()
	rows, cols := w.Dims()
	require.Equal(t, len(want), rows*cols, name)
	got := make([]float32, rows*cols)
	require.NoError(t, w.DecodeRows(got, 0))
	require.True(t, slices.Equal(want, got), name)
	require.NoError(t, w.DecodeRows(got[:cols], rows-1))
	require.Equal(t, want[(rows-1)*cols:], got[:cols])

	tiles, ok := w.(kernel.Tiles)
	require.True(t, ok)
	require.Equal(t, 1, tiles.TileStep())
	require.NoError(t, tiles.DecodeTile(got[:2*3], 3, rows-2, 2, 1, 3))
	require.Equal(t, want[(rows-2)*cols+1:][:3], got[:3])
	require.Equal(t, want[(rows-1)*cols+1:][:3], got[3:6])
}

func TestLeases(t *testing.T) {
	m, src := model(t, 5)
	z, err := NewSizes(src, m, nil)
	require.NoError(t, err)
	for _, slots := range []int{0, 2, 3, 5, 99} {
		s, err := New(src, codecs, m, Options{Slots: slots})
		require.NoError(t, err)
		order := []int{0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1, 2}
		for i, b := range order {
			l, err := s.Lease(context.Background(), b, order[i+1:]...)
			require.NoError(t, err)
			check(t, m, src, l, b)
			l.Release()
		}
		if slots >= 5 {
			require.Equal(t, 5*z.Blocks[0], s.Stats().BytesRead, "a resident model is read once")
		}

		// In any order, with any hints.
		rng := rand.New(rand.NewPCG(1, uint64(slots)))
		for range 50 {
			b := rng.IntN(5)
			l, err := s.Lease(context.Background(), b, rng.IntN(7)-1, rng.IntN(7)-1)
			require.NoError(t, err)
			check(t, m, src, l, b)
			l.Release()
		}
		s.Close()
	}
}

func TestTwoLeasesAtATime(t *testing.T) {
	m, src := model(t, 4)
	s, err := New(src, codecs, m, Options{Slots: 2})
	require.NoError(t, err)
	defer s.Close()
	a, err := s.Lease(context.Background(), 0, 1)
	require.NoError(t, err)
	b, err := s.Lease(context.Background(), 3) // while block 1 is being read for nobody
	require.NoError(t, err)
	check(t, m, src, a, 0)
	check(t, m, src, b, 3)
	_, err = s.Lease(context.Background(), 2)
	require.ErrorContains(t, err, "all 2 slots are leased")
	again, err := s.Lease(context.Background(), 3)
	require.NoError(t, err, "a block may be leased twice")
	b.Release()
	check(t, m, src, again, 3)
	again.Release()
	a.Release()
}

func TestOutside(t *testing.T) {
	m, src := model(t, 2)
	s, err := New(src, codecs, m, Options{})
	require.NoError(t, err)
	defer s.Close()
	l, err := s.Lease(context.Background(), 0)
	require.NoError(t, err)
	defer l.Release()
	for _, name := range []string{"model.embed_tokens.weight", "lm_head.weight"} {
		w, err := l.Matrix(name)
		require.NoError(t, err)
		row := make([]float32, 18)
		require.NoError(t, w.DecodeRows(row, 5))
		require.Equal(t, tensortest.Floats(t, src, name)[5*18:6*18], row)
	}
	v, err := s.Vector("model.norm.weight")
	require.NoError(t, err)
	require.Equal(t, tensortest.Floats(t, src, "model.norm.weight"), v)
	_, err = l.Matrix("model.layers.1.mlp.up_proj.weight")
	require.ErrorIs(t, err, tensor.ErrNotFound, "another block's")
	_, err = l.Vector("none")
	require.ErrorIs(t, err, tensor.ErrNotFound)
}

func TestWrongModels(t *testing.T) {
	m, src := model(t, 2)
	bigger, _ := model(t, 3)
	_, err := New(src, codecs, bigger, Options{})
	require.ErrorIs(t, err, tensor.ErrNotFound)
	require.ErrorContains(t, err, "model.layers.2.input_layernorm.weight")
	other := tensortest.TinyLlama(t, func(c *arch.Config) { c.IntermediateSize, c.NumHiddenLayers, c.AttentionBias = 24, 2, true })
	_, err = New(src, codecs, other, Options{})
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, "[23, 18]")
	_, err = New(src, tensor.Codecs{}, m, Options{})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	_, err = New(src, codecs, bigger, Options{Skip: func(name string) bool { return len(name) > 15 && name[:15] == "model.layers.2." }})
	require.NoError(t, err)
}

// sweep leases blocks from one end to the other, up or down, as a training step does.
func sweep(t *testing.T, s *Stream, up bool, use func(l *Lease, b int)) {
	t.Helper()
	n := len(s.blocks)
	at := func(i int) int { // forward is followed by backward
		if i = i % (2 * n); i >= n {
			i = 2*n - 1 - i
		}
		return i
	}
	for i := range n {
		if !up {
			i += n
		}
		var next []int
		for k := 1; k < len(s.slots); k++ {
			next = append(next, at(i+k))
		}
		l, err := s.Lease(context.Background(), at(i), next...)
		require.NoError(t, err)
		use(l, at(i))
		l.Release()
	}
}

// settle waits until nothing is being read any more.
func settle(s *Stream) {
	for {
		s.mu.Lock()
		quiet, busy := s.quiet, slices.ContainsFunc(s.slots, func(x *slot) bool { return x.busy > 0 })
		s.mu.Unlock()
		if !busy {
			return
		}
		<-quiet
	}
}

func TestSizes(t *testing.T) {
	m, src := model(t, 9)
	z, err := NewSizes(src, m, nil)
	require.NoError(t, err)
	var stored int64
	for _, x := range m.Block(0) {
		info, err := src.Info(x.Name)
		require.NoError(t, err)
		stored += info.Size()
	}
	require.Equal(t, slices.Repeat([]int64{stored}, 9), z.Blocks)
	require.Equal(t, make([]int64, 9), z.Experts)

	for _, o := range []Options{{}, {Slots: 3}, {Slots: 5, Pinned: 2}, {Slots: 6, Pinned: 6}, {Slots: 8, Pinned: 6}, {Slots: 9}} {
		s, err := New(src, codecs, m, o)
		require.NoError(t, err)
		var mem int64
		for _, x := range s.slots {
			mem += int64(len(x.mem)) + 4*int64(len(x.floats))
		}
		require.LessOrEqual(t, mem, z.Memory(o, 0))
		require.Greater(t, mem+int64(len(s.slots))*20*openedBytes+z.HeadMemory(false, 0)+z.Rest, z.Memory(o, 0), "and no more than that")
		var passes []int64
		for pass := range 6 {
			before := s.Stats().BytesRead
			sweep(t, s, pass%2 == 0, func(l *Lease, b int) { check(t, m, src, l, b) })
			settle(s)
			passes = append(passes, s.Stats().BytesRead-before)
		}
		s.Close()
		require.Equal(t, 9*stored, passes[0], "%+v", o)
		require.Equal(t, slices.Repeat([]int64{z.PassBytes(o, 0)}, 4), passes[2:], "%+v", o)
	}
}
