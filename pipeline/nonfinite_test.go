package pipeline

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

func TestNonFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	panel := func() []float32 { return []float32{1, -2, inf, 3, nan, -inf, 4} }
	for name, p := range map[string]*NonFinite{"nil": nil, "zero value": {}} {
		w := panel()
		err := p.Check("w", w, 1000)
		var bad *tensor.NonFiniteError
		require.ErrorAs(t, err, &bad, name)
		require.ErrorIs(t, err, tensor.ErrMalformed, name)
		require.Equal(t, tensor.NonFiniteError{Index: 1002, Value: inf}, *bad, name)
		require.Contains(t, hint.Of(err), "--nan-as-zero", name)
		require.Equal(t, float32(1), w[0], name)
		require.NoError(t, p.Check("w", []float32{math.MaxFloat32, -math.MaxFloat32, 0}, 0), name)
		require.Empty(t, p.Notes(), name)
	}

	p := &NonFinite{AsZero: true}
	w := panel()
	require.NoError(t, p.Check("a", w, 0))
	require.Equal(t, []float32{1, -2, 0, 3, 0, 0, 4}, w)
	require.NoError(t, p.Check("a", panel(), 7))
	require.NoError(t, p.Check("b", []float32{nan}, 0))
	require.NoError(t, p.Check("c", []float32{5}, 0))
	require.Equal(t, []string{
		"a: 6 elements that are NaN or infinite became 0",
		"b: 1 elements that are NaN or infinite became 0",
	}, p.Notes())

	for i := range 12 {
		require.NoError(t, p.Check(fmt.Sprintf("d%02d", i), []float32{inf, 0}, 0))
	}
	notes := p.Notes()
	require.Len(t, notes, shown+1)
	require.Equal(t, "6 more tensors: 6 elements that are NaN or infinite became 0", notes[shown])
}
