package data_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/seed18967229/nibble/train/data"
	"github.com/stretchr/testify/require"
)

func TestPermutation(t *testing.T) {
	require.Equal(t, []int32{}, data.Permutation(1, 0, 0))
	require.Equal(t, []int32{0}, data.Permutation(1, 0, 1))
	// The order of a run must not change with the version of nibble or of Go.
	require.Equal(t, golden[0], data.Permutation(0, 0, 12))
	require.Equal(t, golden[1], data.Permutation(0, 1, 12))
	require.Equal(t, golden[2], data.Permutation(3407, 7, 12))

	for _, n := range []int{2, 3, 1000, 100_003} {
		p := data.Permutation(42, 3, n)
		require.Equal(t, p, data.Permutation(42, 3, n))
		slices.Sort(p)
		for i, v := range p {
			require.Equal(t, int32(i), v)
		}
	}

	// All orders of four are equally likely: 24 classes of 1000 expected; the
	// 0.999 quantile of chi-squared with 23 degrees of freedom is 49.7.
	count := map[string]int{}
	for epoch := range int64(24_000) {
		count[fmt.Sprint(data.Permutation(9, epoch, 4))]++
	}
	require.Len(t, count, 24)
	chi := 0.0
	for _, c := range count {
		chi += float64((c-1000)*(c-1000)) / 1000
	}
	require.Less(t, chi, 49.7)
}

// golden are permutations of 12 by an implementation of PCG-DXSM in Python.
var golden = [3][]int32{
	{5, 4, 11, 7, 10, 6, 8, 2, 9, 0, 3, 1},
	{8, 11, 7, 9, 1, 3, 10, 6, 2, 0, 4, 5},
	{1, 9, 5, 11, 8, 6, 2, 0, 4, 7, 10, 3},
}
