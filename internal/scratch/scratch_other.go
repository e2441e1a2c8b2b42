//go:build !linux

package scratch

import "os"

func open(dir string) (f *os.File, named bool, err error) {
	f, err = os.CreateTemp(dir, ".nibble-scratch-*")
	return f, true, err
}

func refused(error) bool { return false }

func buffered(*os.File) bool { return false }
