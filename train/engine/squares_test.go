package engine

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
)

func inBlocks(t arch.Tensor) bool { return t.Layer >= 0 }

func TestSquares(t *testing.T) {
	a := tensortest.TinyModel(t, "mixtral", nil)
	s := NewSquares(a, inBlocks)
	q, _ := a.Find(arch.Query, "weight", 0)
	head, _ := a.Find(arch.Head, "weight", -1)
	expert := func(e int) arch.Tensor {
		x, found := a.FindExpert(arch.Down, 1, e)
		require.True(t, found)
		return x
	}
	row := func(n int, v float32) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = v
		}
		x[0] = 3 * v
		return x
	}
	s.Observe(q, append(row(q.In(), 1), row(q.In(), 2)...), 2)
	s.Observe(q, row(q.In(), 10), 1)
	s.Observe(expert(2), row(expert(2).In(), 1), 1)
	s.Observe(expert(0), nil, 0)
	s.Observe(head, row(head.In(), 1), 1)
	list, err := s.All()
	require.NoError(t, err)
	require.Len(t, list, 2, "the head was not asked for")

	require.Equal(t, "blk.0.attn_q.weight", list[0].Name)
	require.Equal(t, []int64{3}, list[0].Counts)
	require.Equal(t, []float32{9 * 105, 105}, list[0].Sums[:2])
	require.Len(t, list[0].Sums, q.In())

	require.Equal(t, "blk.1.ffn_down_exps.weight", list[1].Name)
	counts := make([]int64, a.NumExperts)
	counts[2] = 1
	require.Equal(t, counts, list[1].Counts)
	cols := expert(0).In()
	require.Len(t, list[1].Sums, cols*int(a.NumExperts))
	require.Zero(t, list[1].Sums[cols])
	require.Equal(t, []float32{9, 1}, list[1].Sums[2*cols:2*cols+2])

	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1)), 1e30} {
		s := NewSquares(a, inBlocks)
		s.Observe(q, row(q.In(), bad), 1)
		require.ErrorIs(t, s.Err(), tensor.ErrMalformed)
		_, err := s.All()
		require.ErrorContains(t, err, "column 0 of "+q.Name)
	}
}

// The sums are the same bits whatever is in memory and goes through at a time.
func TestSquaresDoNotDependOnGroupsOrSlots(t *testing.T) {
	a := tensortest.TinyLlama(t, nil)
	run := func(slots, group int) []*Inputs {
		s := NewSquares(a, inBlocks)
		e, err := New(tensortest.NewModel(t, a, 4), codecs, a, model.Trainable{}, Options{Choices: Choices{Slots: slots}, Positions: 64, Observer: s.Observe})
		require.NoError(t, err)
		defer e.Close()
		_, labels, err := Evaluate(context.Background(), e, 5, group, func(b *model.Batch, i int) error {
			b.AddWhole([]int32{1, int32(i), 3, 4, 5, 6, 7, 8}, 5)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 5*3, labels)
		list, err := s.All()
		require.NoError(t, err)
		return list
	}
	want := run(3, 5)
	require.Len(t, want, 7*int(a.NumHiddenLayers))
	for _, in := range want {
		require.Equal(t, []int64{5 * 8}, in.Counts, "the last token of each goes through too")
	}
	for _, group := range []int{1, 2} {
		require.ElementsMatch(t, want, run(2, group))
	}
}
