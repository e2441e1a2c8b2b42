//go:build unix && !race

package stream

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// newRegion returns n bytes of zeroed memory that begin at a page, beyond the
// collector's reach. They take up none before they are written to.
func newRegion(n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("%d bytes of memory: %w", n, err)
	}
	largePages(b)
	return b, nil
}

// freeRegion gives the memory back.
func freeRegion(b []byte) {
	if b != nil {
		_ = unix.Munmap(b) // of what Mmap returned it cannot fail
	}
}
