//go:build amd64 && !purego

package kernel

import "github.com/seed18967229/nibble/internal/kernel/simd"

// Prefetch asks for n bytes at each of some rows of b, stride bytes apart from at on, which
// are read soon: as many rows as b has. Nothing else comes of it.
func Prefetch(b []byte, at, stride, rows, n int) {
	if at < 0 || n <= 0 || stride <= 0 || at+n > len(b) {
		return
	}
	simd.PrefetchRows(&b[at], uintptr(stride), min(rows, 1+(len(b)-n-at)/stride), n)
}
