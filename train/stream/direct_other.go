//go:build !linux

package stream

import "os"

// Unbuffered reads are made on Linux alone.

func readDirect(*os.File, []byte, int64, int) error { return errNotDirect }

func largePages([]byte) {}
