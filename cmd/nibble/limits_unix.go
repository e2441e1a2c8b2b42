//go:build unix

package main

import (
	"os/signal"
	"syscall"
)

// A file that grows past the limit of its owner (ulimit -f) is an error of writing
// like any other, after which the output is removed, and not the end of the
// process.
func init() { signal.Ignore(syscall.SIGXFSZ) }
