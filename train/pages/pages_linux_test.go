package pages

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/scratch"
	"github.com/seed18967229/nibble/train/optim"
)

// TestDiskFull has a disk that fills up though it had promised room: the step that wrote
// there fails.
func TestDiskFull(t *testing.T) {
	opt, err := optim.New("adamw", optim.DefaultOptions())
	require.NoError(t, err)
	s, err := New(model(), opt, Options{Paged: true, Scratch: t.TempDir()})
	require.NoError(t, err)
	require.NoError(t, s.Init())
	s.Close()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	s.file = scratch.New(full, "/scratch", s.disk)
	defer s.Close()
	s.Begin()
	release, err := s.Lease(context.Background(), 2, true)
	require.NoError(t, err)
	require.NoError(t, release(), "it is written behind")
	err = s.Update(func(*optim.Param, [][]byte) error { return nil })
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotEmpty(t, hint.Of(err))
}
