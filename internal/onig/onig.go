package onig

import (
	"errors"
	"fmt"
)

// ErrSyntax is wrapped by errors about patterns that Oniguruma refuses too.
var ErrSyntax = errors.New("malformed regular expression")

// ErrUnsupported is wrapped by errors about patterns that are sound and not
// done here.
var ErrUnsupported = errors.New("unsupported regular expression")

const (
	// maxPattern bounds the length of a pattern in bytes. The longest of a known
	// tokenizer has 1,100.
	maxPattern = 1 << 15

	// maxProgram bounds what a pattern is compiled to, in instructions.
	maxProgram = 1 << 13

	// maxRanges bounds the ranges of characters of all its sets.
	maxRanges = 1 << 19

	// maxDepth bounds how deeply groups and sets are nested.
	maxDepth = 64

	// maxRepeat bounds the numbers in {n,m}, as Oniguruma does.
	maxRepeat = 100_000

	// maxBehind bounds the characters a look-behind looks back.
	maxBehind = 255
)

// Regexp is a compiled pattern. It is safe for concurrent use.
type Regexp struct {
	pattern string
	prog    []inst
	sets    []*set
	behind  []behind
	splits  int // how many branches there are
	runs    int // how many loops over one set
	loops   int // how many loops over what may match nothing
}

// String returns the pattern.
func (re *Regexp) String() string { return re.pattern }

// Compile parses a pattern. Errors wrap ErrSyntax or ErrUnsupported.
func Compile(pattern string) (*Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("%w: %d bytes; at most %d", ErrUnsupported, len(pattern), maxPattern)
	}
	p := &parser{src: pattern, sets: map[string]*set{}}
	root, err := p.parse()
	if err == nil {
		c := &compiler{re: &Regexp{pattern: pattern}, index: map[*set]int32{}}
		if err = c.compile(root); err == nil {
			return c.re, nil
		}
	}
	if len(pattern) > 100 {
		pattern = pattern[:100] + "..."
	}
	return nil, fmt.Errorf("%w in %q", err, pattern)
}
