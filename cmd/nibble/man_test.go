package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// There is a page for every command that --help lists, and its flags are on it.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	ok(t, "man", dir)
	pages := func() map[string]string {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		all := make(map[string]string)
		for _, e := range entries {
			all[e.Name()] = readFile(t, filepath.Join(dir, e.Name()))
		}
		return all
	}
	first := pages()
	for _, c := range (&app{}).root().Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			require.Contains(t, first, "nibble-"+c.Name()+".1")
		}
	}
	require.Contains(t, first, "nibble-adapter-extract.1")
	require.Contains(t, first["nibble-train.1"], `\fB--grad-accumulation-steps\fP`)
	ok(t, "man", dir)
	require.Equal(t, first, pages())
}
