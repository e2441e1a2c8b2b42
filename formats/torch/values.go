package torch

import (
	"fmt"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// The values a pickle builds are nil, bool, int64, float64, string and the
// types below. Containers are pointers, so that a value in many places is held
// once.
type (
	tuple struct{ items []any }

	// list is a list or a set.
	list struct{ items []any }

	// dict keeps its items in order. A key that is set twice is there twice.
	dict struct{ items []item }

	item struct{ key, value any }

	// long is an integer beyond 64 bits: its bytes in the pickle,
	// little-endian two's complement.
	long string

	// inert stands for a value of which nothing is needed: bytes, a device,
	// what numpy makes.
	inert struct{ what string }
)

var (
	inertBytes = &inert{"bytes"}
	inertSet   = &inert{"a set"}
)

// describe names the kind of a value in an error.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case int64, long:
		return "an int"
	case float64:
		return "a float"
	case string:
		return "a string"
	case *tuple:
		return "a tuple"
	case *list:
		return "a list"
	case *dict:
		return "a dict"
	case *inert:
		return v.what
	case *global:
		return v.name
	case *storage:
		return "a storage"
	case *view:
		return "a tensor"
	}
	return fmt.Sprintf("%T", v)
}

// short returns a name from the file at a length that can be printed.
func short(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", tensor.ErrMalformed, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", tensor.ErrUnsupported, fmt.Sprintf(format, args...))
}
