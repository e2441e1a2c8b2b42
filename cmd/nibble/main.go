package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Nearly all memory is buffers that are used again and again, so a collector
	// that runs often costs nothing, and what nibble promises is little memory.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(20)
	}
	// The first signal asks the command to end in order; after that a second
	// one kills.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes, as the help lists them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInput       = 3
	exitInterrupted = 130
)

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{out: stdout, err: stderr}
	if err := a.exec(ctx, args...); err != nil {
		return reportError(stderr, err)
	}
	return exitDone
}

// reportError prints an error, what to do about it, and returns the exit code.
func reportError(w io.Writer, err error) int {
	if errors.Is(err, errDifferent) {
		return exitFailed
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "nibble: interrupted")
		if h := hint.Of(err); h != "" {
			fmt.Fprintln(w, "hint:", h)
		}
		return exitInterrupted
	}
	fmt.Fprintln(w, "nibble:", errorText(err))
	if h := hint.Of(err); h != "" {
		fmt.Fprintln(w, "hint:", h)
	}
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, tensor.ErrMalformed), errors.Is(err, tensor.ErrUnsupported):
		return exitInput
	}
	return exitFailed
}

// errorText returns the text of err with the middle left out of lines that are
// too long to read: a hostile file can have names of many megabytes.
func errorText(err error) string {
	const half = 500
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		if n := len(line) - 2*half; n > half {
			lines[i] = fmt.Sprintf("%s [... %d bytes ...] %s",
				strings.ToValidUTF8(line[:half], ""), n, strings.ToValidUTF8(line[len(line)-half:], ""))
		}
	}
	return strings.Join(lines, "\n")
}

// usageError is a fault in the command line rather than in what it names.
type usageError struct{ error }

func (u *usageError) Unwrap() error { return u.error }

// badUsage marks err as a fault of the command line.
func badUsage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}
