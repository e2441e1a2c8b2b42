package bnb

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// No list of tensors makes View panic or allocate much; it fails in one of two
// ways, and what it returns can be read. (What a quant_state says is FuzzState's.)
func FuzzView(f *testing.F) {
	endings := []string{".weight", scbSuffix, formatSuffix, ".bias"}
	for _, s := range []string{absmaxSuffix, quantMapSuffix, nestedAbsmaxSuffix, nestedMapSuffix, stateInfix + "nf4", stateInfix + "fp4"} {
		endings = append(endings, ".weight"+s)
	}
	dtype := func(d tensor.DType) byte { return byte(d - tensor.Bool) }
	f.Add([]byte{0, dtype(tensor.I8), 2, 5, 7, 1, dtype(tensor.F32), 1, 5, 2, dtype(tensor.U8), 0}, byte(0))
	f.Add([]byte{0, dtype(tensor.I8), 2, 250, 250, 1, dtype(tensor.F16), 1, 250}, byte(3))
	f.Add([]byte{0, dtype(tensor.U8), 2, 32, 1, 4, dtype(tensor.F32), 1, 1, 8, dtype(tensor.U8), 1, 90}, byte('{'))
	f.Fuzz(func(t *testing.T, layout []byte, code byte) {
		view, err := ViewShaped(tensortest.FromBytes(layout, endings, code), tensor.BF16, func(string) tensor.Shape { return tensor.Shape{4, 6} })
		if err != nil {
			require.True(t, errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported), "%v", err)
			return
		}
		require.NoError(t, tensortest.ReadLastRows(view, codecs))
	})
}
