package records_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed18967229/nibble/train/data/records"
	"github.com/stretchr/testify/require"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// row is a row that has been read.
type row struct {
	value string
	line  int64
}

// read returns the rows of a file, up to the first error.
func read(t testing.TB, path string) ([]row, error) {
	t.Helper()
	r, err := records.Open(path, records.Options{ScratchDir: t.TempDir()})
	if err != nil {
		return nil, err
	}
	defer func() { require.NoError(t, r.Close()) }()
	var out []row
	for {
		rec, err := r.Next()
		if err == io.EOF {
			require.Equal(t, r.Size(), r.Position())
		}
		if err != nil {
			_, again := r.Next()
			require.Equal(t, err, again)
			if err == io.EOF {
				err = nil
			}
			return out, err
		}
		require.LessOrEqual(t, r.Position(), r.Size())
		out = append(out, row{string(rec.Value), rec.Line})
	}
}

func TestLines(t *testing.T) {
	rows, err := read(t, write(t, "x.jsonl", "\ufeff{\"text\": \"a\"}\r\n\n {\"text\": \"b\"}"))
	require.NoError(t, err)
	require.Equal(t, []row{{`{"text": "a"}`, 1}, {`{"text": "b"}`, 3}}, rows)
}
