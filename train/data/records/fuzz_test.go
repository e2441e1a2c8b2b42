package records_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/seed18967229/nibble/tensor"
	"github.com/stretchr/testify/require"
)

func isRefusal(err error) bool {
	return errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported)
}

// FuzzOpen reads any bytes under the name of every format.
func FuzzOpen(f *testing.F) {
	for name, text := range files(f) {
		f.Add([]byte(text))
		f.Add([]byte(gzipped(f, text)))
		f.Add([]byte(zstandard(f, text)))
		_ = name
	}
	f.Add([]byte("\xff\xfea\x00"))
	f.Add([]byte("{\"data\": [1, {\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		for _, ext := range []string{"", ".jsonl", ".json", ".csv", ".tsv", ".txt"} {
			path := filepath.Join(dir, "x"+ext)
			require.NoError(t, os.WriteFile(path, content, 0o644))
			if err := readAny(t, path); err != nil {
				require.True(t, isRefusal(err), "%v", err)
				require.False(t, strings.ContainsFunc(err.Error(), unicode.IsControl), "%q", err)
				require.Contains(t, err.Error(), path)
			}
		}
	})
}

// FuzzParquet reads any bytes as Parquet.
func FuzzParquet(f *testing.F) {
	for _, file := range goldens(f) {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "x.parquet")
		require.NoError(t, os.WriteFile(path, append([]byte("PAR1"), content...), 0o644))
		if err := readAny(t, path); err != nil {
			require.True(t, isRefusal(err), "%v", err)
			require.NotErrorIs(t, err, fs.ErrNotExist)
		}
	})
}
