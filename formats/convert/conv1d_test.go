package convert

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
)

func TestOutIn(t *testing.T) {
	m := tensortest.TinyModel(t, "gpt2", nil)
	src := tensortest.NewModel(t, m, 1)
	v, err := Canonical(src, m)
	require.NoError(t, err)
	turned, err := v.OutIn(m, codecs)
	require.NoError(t, err)
	tensortest.TestSource(t, turned)
	n := 0
	for _, x := range m.Tensors() {
		before, after := tensortest.Floats(t, v, x.Name), tensortest.Floats(t, turned, x.Name)
		info, err := turned.Info(x.Name)
		require.NoError(t, err)
		if !x.Transposed {
			require.Equal(t, before, after)
			continue
		}
		n++
		require.EqualValues(t, []int64{x.Dims[1], x.Dims[0]}, info.Shape)
		require.Equal(t, transpose, turned.Origin(x.Name).Change)
		rows, cols := int(x.Dims[0]), int(x.Dims[1])
		for i := range rows {
			for j := range cols {
				require.Equal(t, before[i*cols+j], after[j*rows+i])
			}
		}
	}
	require.Equal(t, 4*3, n)

	// What is not of bitsandbytes is the right way round already.
	same, err := v.InOut(m, codecs)
	require.NoError(t, err)
	require.Same(t, v, same)
	llama := tensortest.TinyLlama(t, nil)
	v, err = Canonical(tensortest.NewModel(t, llama, 1), llama)
	require.NoError(t, err)
	same, err = v.OutIn(llama, codecs)
	require.NoError(t, err)
	require.Same(t, v, same)
}
