package imatrix

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// FuzzParse checks that no input panics, that what is refused is refused for
// one of the two reasons, and that what is read can be written and read again.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"imatrix.gguf", "none.gguf", "imatrix.dat"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parse(b)
		if err != nil {
			require.True(t, errors.Is(err, tensor.ErrMalformed) != errors.Is(err, tensor.ErrUnsupported), "%v", err)
			return
		}
		path := filepath.Join(t.TempDir(), "again.gguf")
		if err := Write(path, file, false); err != nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported) // a name that GGUF cannot hold
			return
		}
		again, err := Read(path)
		require.NoError(t, err)
		require.Len(t, again.Entries, len(file.Entries))
		for _, m := range file.Entries {
			values, mats, _ := file.Importance(m.Name)
			got, n, ok := again.Importance(m.Name)
			require.True(t, ok)
			require.Equal(t, mats, n)
			require.Equal(t, values, got)
		}
	})
}
