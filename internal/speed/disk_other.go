//go:build !linux

package speed

import "os"

// openDirect opens a file for reading; the page cache is not gone past here.
func openDirect(path string) (f *os.File, direct bool, err error) {
	f, err = os.Open(path)
	return f, false, err
}

// forget does nothing: the page cache is not asked to drop the file here.
func forget(*os.File) {}
