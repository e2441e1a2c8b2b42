//go:build !linux

package fsx

import (
	"errors"
	"os"
)

// OpenDirect fails: the page cache is not gone past here.
func OpenDirect(path string) (*os.File, error) {
	return nil, &os.PathError{Op: "open", Path: path, Err: errors.ErrUnsupported}
}

// Forget does nothing: the page cache is not asked to forget anything here.
func Forget(*os.File, int64, int64) {}
