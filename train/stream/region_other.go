//go:build !unix || race

package stream

import "unsafe"

// newRegion returns n bytes of zeroed memory that begin at a page. It is the
// collector's, so that the race detector sees what is done with it.
func newRegion(n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n+page)
	skip := -int64(uintptr(unsafe.Pointer(&b[0]))) & (page - 1)
	return b[skip : skip+n : skip+n], nil
}

func freeRegion([]byte) {}
