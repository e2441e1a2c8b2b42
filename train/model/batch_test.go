package model

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Documents of one example are the sequences that they would be alone.
func TestDocumentsAreSequences(t *testing.T) {
	tokens := []int32{1, 5, 6, 2, 1, 7, 2, 9, 1, 8}
	loss := []bool{true, false, true, true, true, true, false, true, false, true}
	var packed, alone Batch
	packed.AddDocuments(tokens, loss, []int{4, 7, 8, 10})
	for _, d := range [][2]int{{0, 4}, {4, 7}, {7, 8}, {8, 10}} {
		alone.AddDocuments(tokens[d[0]:d[1]], loss[d[0]:d[1]], nil)
	}
	require.Equal(t, alone, packed)
	require.Equal(t, Batch{
		Tokens: []int32{1, 5, 6, 1, 7, 1},
		Labels: []int32{-1, 6, 2, 7, -1, 8},
		Pos:    []int32{0, 1, 2, 0, 1, 0},
		Ends:   []int{3, 5, 6}, // a token alone predicts nothing
	}, packed)

	var all, from Batch
	all.AddDocuments(tokens, nil, nil)
	from.Add(tokens, 0)
	require.Equal(t, from, all)
}
