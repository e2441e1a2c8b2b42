package kernel

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// guard returns n bytes between pages that must not be touched: right before the
// one at the end, or right behind the one at the beginning.
func guard(t testing.TB, n int, atEnd bool) (b []byte, free func()) {
	page := os.Getpagesize()
	size := (n + page - 1) / page * page
	all, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	require.NoError(t, err)
	require.NoError(t, unix.Mprotect(all[:page], unix.PROT_NONE))
	require.NoError(t, unix.Mprotect(all[page+size:], unix.PROT_NONE))
	b = all[page : page+n : page+n]
	if atEnd {
		b = all[page+size-n : page+size : page+size]
	}
	return b, func() { require.NoError(t, unix.Munmap(all)) }
}
