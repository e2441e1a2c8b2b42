package tensor

import (
	"errors"
	"fmt"
	"io"
)

// The two ways in which an input can be at fault. Every reader wraps one of
// them, so that callers (and the command line's exit code) can tell a broken
// file from one that is sound but beyond us, and both from a failing disk.
var (
	// ErrMalformed says that the input breaks the rules of its own format.
	ErrMalformed = errors.New("malformed input")

	// ErrUnsupported says that the input is sound, but nibble does not handle
	// what it asks for.
	ErrUnsupported = errors.New("unsupported input")
)

// ErrNotFound is returned when a Source has no tensor of the given name.
var ErrNotFound = errors.New("no such tensor")

// Truncated returns err, which comes from reading the named part, marked as
// malformed input if the bytes end too early.
func Truncated(err error, part string) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %s: %w", ErrMalformed, part, err)
	}
	return fmt.Errorf("%s: %w", part, err)
}

// A NonFiniteError says that an element cannot be encoded because it is NaN or
// infinite. It wraps ErrMalformed.
type NonFiniteError struct {
	Index int64 // in row-major order
	Value float32
}

// Error implements error.
func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("element %d is %v, which no block can hold", e.Index, e.Value)
}

// Unwrap returns ErrMalformed.
func (e *NonFiniteError) Unwrap() error { return ErrMalformed }
