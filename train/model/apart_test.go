package model

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/train/stream"
)

// thereAndBack takes one batch through a model and back, and returns the last hidden
// states and the gradient of what went into the first block, a row for each token.
func thereAndBack(t *testing.T, s *setup, b *Batch) (hidden, grad []float32) {
	t.Helper()
	st, err := stream.New(s.src, codecs, s.arch, stream.Options{Slots: 3})
	require.NoError(t, err)
	defer st.Close()
	m := New(s.arch, s.train, 64)
	x := make([]float32, len(b.Tokens)*m.Hidden())
	require.NoError(t, m.Embed(x, b.Tokens, b.Pos, st))
	var bounds [][]float32
	for l := range int(s.arch.NumHiddenLayers) {
		lease, err := st.Lease(context.Background(), l)
		require.NoError(t, err)
		block, err := m.Block(l, lease)
		require.NoError(t, err)
		bounds = append(bounds, slices.Clone(x))
		require.NoError(t, block.Forward(x, b, nil, nil))
		lease.Release()
	}
	hidden = slices.Clone(x)
	_, err = m.Loss([][]float32{x}, []*Batch{b}, st, true, 1)
	require.NoError(t, err)
	for l := len(bounds) - 1; l >= 0; l-- {
		lease, err := st.Lease(context.Background(), l)
		require.NoError(t, err)
		block, err := m.Block(l, lease)
		require.NoError(t, err)
		require.NoError(t, block.Backward(x, bounds[l], b, nil, nil))
		lease.Release()
	}
	return hidden, x
}

// TestSequencesOfABatchDoNotSeeEachOther changes the tokens of the sequences around
// one, all longer than the windows: neither its hidden states nor its gradients change
// by a bit, in mixtures by no more than other numbers of rows through an expert make,
// which are summed otherwise. They are those of the sequence alone.
func TestSequencesOfABatchDoNotSeeEachOther(t *testing.T) {
	for _, f := range arch.Families() {
		t.Run(f.Name, func(t *testing.T) {
			s := setupOf(t, tensortest.TinyModel(t, f.Name, func(c *arch.Config) { c.WindowPattern = 2 }))
			s.adapt(t, 2, 1, s.arch.LinearModules()...)
			tokens := func(n, first int) (list []int32) {
				for i := range n {
					list = append(list, int32((first+7*i)%int(s.arch.VocabSize)))
				}
				return list
			}
			own := tokens(12, 3)
			among := func(first int) (hidden, grad []float32) {
				b := &Batch{}
				b.Add(tokens(10, first), 0)
				b.Add(own, 2)
				b.Add(tokens(8, first+5), 0)
				hidden, grad = thereAndBack(t, s, b)
				h := int(s.arch.HiddenSize)
				from, to := b.Ends[0]*h, b.Ends[1]*h
				require.NotZero(t, grad[0])
				return hidden[from:to], grad[from:to]
			}
			hidden, grad := among(1)
			otherHidden, otherGrad := among(2)
			if s.arch.NumExperts == 0 {
				require.Equal(t, hidden, otherHidden)
				require.Equal(t, grad, otherGrad)
			}
			close32(t, hidden, otherHidden, 1e-6, "hidden states")
			close32(t, grad, otherGrad, 1e-5, "gradients")

			b := &Batch{}
			b.Add(own, 2)
			aloneHidden, aloneGrad := thereAndBack(t, s, b)
			close32(t, aloneHidden, hidden, 1e-5, "hidden states")
			close32(t, aloneGrad, grad, 1e-4, "gradients") // few rows are summed otherwise
		})
	}
}
