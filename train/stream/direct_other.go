//go:build !linux

package stream

import "os"

// Unbuffered reads are made on Linux alone.

func openDirect(string) (*os.File, error) { return nil, errNotDirect }

func readDirect(*os.File, []byte, int64, int) error { return errNotDirect }

func forget(*os.File, int64, int64) {}

func largePages([]byte) {}
