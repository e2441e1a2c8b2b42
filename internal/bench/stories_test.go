package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The search goes up or down, wherever the loss falls, and no farther.
func TestTune(t *testing.T) {
	for _, c := range []struct {
		first, best int
		tried       []int
	}{
		{2, 2, []int{2, 3, 1}},
		{2, 4, []int{2, 3, 4, 5}},
		{3, 1, []int{3, 4, 2, 1, 0}},
		{1, 0, []int{1, 2, 0}},
		{5, 6, []int{5, 6}},
	} {
		var tried []int
		got, err := tune(storiesMethod{first: c.first}, 1, func(rate, _ int) (*trainRun, error) {
			tried = append(tried, rate)
			loss := float64((rate - c.best) * (rate - c.best))
			return &trainRun{steps: []trainStep{{Step: 1, Eval: &loss}}}, nil
		})
		require.NoError(t, err)
		require.Equal(t, c.best, got.best)
		require.Equal(t, c.tried, tried)
	}
}

func TestSteady(t *testing.T) {
	r := trainRun{steps: []trainStep{{Step: 1, Elapsed: 9, Tokens: 10, asked: 100}, {Step: 2, Elapsed: 11, Tokens: 20, asked: 130}, {Step: 3, Elapsed: 13, Tokens: 30, asked: 160}}}
	s, err := r.steady(1)
	require.NoError(t, err)
	require.Equal(t, steady{steps: 2, seconds: 2, tokens: 10, asked: 30}, s)
	s, err = r.steady(0)
	require.NoError(t, err)
	require.InDelta(t, 13.0/3, s.seconds, 1e-12)
	_, err = r.steady(3)
	require.Error(t, err)
}
