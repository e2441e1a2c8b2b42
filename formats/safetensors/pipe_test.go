//go:build unix

package safetensors

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/safeio"
)

// TestOpenNamedPipe must not wait for a writer that never comes.
func TestOpenNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err := Open(path)
	require.ErrorIs(t, err, safeio.ErrRefused)
}
