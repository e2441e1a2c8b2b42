package tensor_test

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

func TestConcat(t *testing.T) {
	var parts []tensor.Part
	for _, s := range []string{"abc", "", "defgh", "i"} {
		parts = append(parts, tensor.Part{Size: int64(len(s)), Open: func() (io.ReaderAt, error) { return strings.NewReader(s), nil }})
	}
	r, err := tensor.Concat(parts...)()
	require.NoError(t, err)
	for from := range 10 {
		for n := range 12 {
			p := make([]byte, n)
			got, err := r.ReadAt(p, int64(from))
			want := "abcdefghi"[from:min(9, from+n)]
			require.Equal(t, want, string(p[:got]))
			if got < n {
				require.Equal(t, io.EOF, err)
			} else if n > 0 {
				require.NoError(t, err)
			}
		}
	}
	_, err = r.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)

	parts[2].Size = 6 // one more than there is
	r, err = tensor.Concat(parts...)()
	require.NoError(t, err)
	_, err = r.ReadAt(make([]byte, 10), 0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}
