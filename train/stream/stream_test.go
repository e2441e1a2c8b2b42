package stream

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
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
		rows, cols := w.Dims()
		require.Equal(t, x.Dims, []int64{int64(rows), int64(cols)})
		got := make([]float32, rows*cols)
		require.NoError(t, w.DecodeRows(got, 0))
		require.Equal(t, want, got, x.Name)
		require.NoError(t, w.DecodeRows(got[:cols], rows-1))
		require.Equal(t, want[(rows-1)*cols:], got[:cols])

		tiles, ok := w.(kernel.Tiles)
		require.True(t, ok)
		require.Equal(t, 1, tiles.TileStep())
		require.NoError(t, tiles.DecodeTile(got[:2*3], 3, rows-2, 2, 1, 3))
		require.Equal(t, want[(rows-2)*cols+1:][:3], got[:3])
		require.Equal(t, want[(rows-1)*cols+1:][:3], got[3:6])
	}
}

func TestLeases(t *testing.T) {
	m, src := model(t, 5)
	one, err := BlockBytes(src, m)
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
			require.Equal(t, 5*one, s.Stats().BytesRead, "a resident model is read once")
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

// failing is a Source that cannot read one tensor for a while.
type failing struct {
	tensor.Source
	name string
	on   atomic.Bool
}

var errDisk = errors.New("the disk is gone")

func (f *failing) Raw(name string) (*io.SectionReader, error) {
	if name == f.name && f.on.Load() {
		return nil, errDisk
	}
	return f.Source.Raw(name)
}

func TestFailedRead(t *testing.T) {
	m, src := model(t, 3)
	f := &failing{Source: src, name: "model.layers.1.mlp.up_proj.weight"}
	f.on.Store(true)
	s, err := New(f, codecs, m, Options{Slots: 2})
	require.NoError(t, err)
	defer s.Close()
	l, err := s.Lease(context.Background(), 0, 1)
	require.NoError(t, err)
	l.Release()
	_, err = s.Lease(context.Background(), 1, 2)
	require.ErrorIs(t, err, errDisk)
	require.ErrorContains(t, err, "block 1")
	f.on.Store(false)
	l, err = s.Lease(context.Background(), 1)
	require.NoError(t, err, "the disk is back")
	check(t, m, src, l, 1)
	l.Release()
}

// stuck is a Source whose readers wait.
type stuck struct {
	tensor.Source
	go_ chan struct{}
}

func (s *stuck) Raw(name string) (*io.SectionReader, error) {
	<-s.go_
	return s.Source.Raw(name)
}

func TestCancelledLease(t *testing.T) {
	m, src := model(t, 3)
	slow := &stuck{src, make(chan struct{})}
	s, err := New(src, codecs, m, Options{Slots: 2})
	require.NoError(t, err)
	s.src = slow
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = s.Lease(ctx, 0, 1)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Lease(ctx, 2)
	require.ErrorIs(t, err, context.Canceled, "while both slots are being filled")
	close(slow.go_)
	l, err := s.Lease(context.Background(), 2)
	require.NoError(t, err)
	l.Release()
	s.Close()
}
