package scratch

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
)

// TestDiskFull writes to a disk that is full though it had promised room.
func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	f := New(full, "/scratch", 10*Page)
	defer f.Close()
	err = f.Write(Buffer(Page), 0).Wait()
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "scratch file in /scratch: writing 4.00 KiB")
	require.Contains(t, hint.Of(err), "another disk")
}

func TestStreamOnAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	s := &Stream{file: full, dir: "/scratch"}
	_, err = s.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "scratch file in /scratch: writing: ")
	require.Contains(t, hint.Of(err), "another disk")
	require.NoError(t, s.Close())
}
