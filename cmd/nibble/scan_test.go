package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

func TestSpans(t *testing.T) {
	panel := pipeline.PanelRows(1)
	for _, c := range []struct {
		shape  tensor.Shape
		opaque bool
		most   int64 // elements of a span
	}{
		{tensor.Shape{}, false, 1},
		{tensor.Shape{0, 7}, false, 0},
		{tensor.Shape{5}, false, 5},
		{tensor.Shape{1000, 1000}, false, panel},
		{tensor.Shape{3, 2*panel + 1}, false, panel},
		{tensor.Shape{7 * panel}, false, panel},
		{tensor.Shape{3, 2*panel + 1}, true, 2*panel + 1},
		{tensor.Shape{2, 3, 4}, true, 24},
	} {
		info := tensor.Info{Name: "x", DType: tensor.F32, Shape: c.shape}
		if c.opaque {
			info = tensor.NewOpaque("x", tensor.NF4, c.shape, 1)
		}
		at, cols := int64(0), c.shape.Cols()
		for _, s := range spansOf(info, info) {
			require.Equal(t, at, s.start, "%v", c.shape)
			require.Positive(t, s.n)
			require.LessOrEqual(t, s.n, c.most)
			whole := s.start%cols == 0 && s.n%cols == 0
			require.True(t, whole || s.start/cols == (s.start+s.n-1)/cols, "whole rows or a part of one")
			at += s.n
		}
		require.Equal(t, c.shape.Elems(), at)
	}
}

func TestScan(t *testing.T) {
	things := []int64{3, 0, 0, 1, 500, 0, 7}
	spans := func(i int) []span { return cut(things[i], 1) }
	for _, workers := range []int{1, 2, 9} {
		var opened atomic.Int64
		parts, err := scan(t.Context(), workers, len(things), spans,
			func(i int) (int, error) { opened.Add(1); return i, nil },
			func(i int, s span, _ *scratch) (int64, error) { return int64(i)*1000 + s.start, nil })
		require.NoError(t, err)
		require.Equal(t, int64(4), opened.Load(), "each thing that has spans is opened once")
		require.Len(t, parts, len(things))
		for i, n := range things {
			require.Len(t, parts[i], int(n))
			for k, p := range parts[i] {
				require.Equal(t, int64(i)*1000+int64(k), p)
			}
		}
	}
	_, err := scan(t.Context(), 3, 0, spans, func(int) (int, error) { return 0, nil }, func(int, span, *scratch) (int, error) { return 0, nil })
	require.NoError(t, err)
}

func TestScanEnds(t *testing.T) {
	failure := errors.New("failure")
	spans := func(int) []span { return cut(1000, 1) }
	var calls atomic.Int64
	work := func(_ int, s span, _ *scratch) (int, error) {
		calls.Add(1)
		if s.start == 10 {
			return 0, failure
		}
		return 0, nil
	}
	open := func(int) (int, error) { return 0, nil }
	_, err := scan(t.Context(), 4, 1000, spans, open, work)
	require.ErrorIs(t, err, failure)
	require.Less(t, calls.Load(), int64(100_000))
	_, err = scan(t.Context(), 4, 1000, spans, func(int) (int, error) { return 0, failure }, work)
	require.ErrorIs(t, err, failure)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = scan(ctx, 4, 1000, spans, open, func(int, span, *scratch) (int, error) { cancel(); return 0, nil })
	require.ErrorIs(t, err, context.Canceled)
}

// TestScanIsConcurrent has two spans of one tensor wait for each other.
func TestScanIsConcurrent(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	meet := make(chan struct{})
	_, err := scan(ctx, 2, 1, func(int) []span { return cut(2, 1) }, func(int) (int, error) { return 0, nil },
		func(_ int, s span, _ *scratch) (int, error) {
			if s.start == 0 {
				select {
				case meet <- struct{}{}:
				case <-ctx.Done():
				}
			} else {
				select {
				case <-meet:
				case <-ctx.Done():
				}
			}
			return 0, nil
		})
	require.NoError(t, err)
}
