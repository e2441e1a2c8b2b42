package jinja

import "fmt"

// Kind is why a template did not render.
type Kind int

const (
	// Syntax: the source is no template.
	Syntax Kind = iota
	// Runtime: Python would have raised an error.
	Runtime
	// Raised: the template called raise_exception; Message is what it said.
	Raised
	// Limit: the template did more than Limits allow.
	Limit
)

// Error is why a template did not parse or render, and where.
type Error struct {
	Kind         Kind
	Line, Column int
	Message      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("template line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// position is a place in the source, from 1.
type position struct{ line, column int }

func (p position) fail(kind Kind, format string, args ...any) {
	panic(&Error{Kind: kind, Line: p.line, Column: p.column, Message: fmt.Sprintf(format, args...)})
}

// recovered turns a panic of fail into an error; any other panic goes on.
func recovered(err *error) {
	switch e := recover().(type) {
	case nil:
	case *Error:
		*err = e
	default:
		panic(e)
	}
}
