package bnb

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// matcher tells whether a module is named by a list of modules to skip.
type matcher []struct {
	text string
	// to matches the module or one it is in; within matches a prefix that ends
	// in a dot.
	to, within *regexp.Regexp
}

// newMatcher reads a list as transformers 5.23 does
// (quantizers_utils.should_convert_module): a pattern matches a module whose
// name it ends, and, as a regular expression, one whose name it begins up to a
// dot or the end.
func newMatcher(patterns []string) (matcher, error) {
	m := make(matcher, len(patterns))
	for i, p := range patterns {
		to, err := regexp.Compile(`^(?:` + p + `)(?:\.|$)`)
		if err != nil {
			return nil, hint.Add(fmt.Errorf("%w: module to skip %q: %w", tensor.ErrUnsupported, p, err),
				"give the end of a module's name, its whole path, or a regular expression that Go's regexp knows")
		}
		m[i].text, m[i].to, m[i].within = p, to, regexp.MustCompile(`^(?:`+p+`)$`)
	}
	return m, nil
}

// match reports whether the list names the module, and by which pattern.
func (m matcher) match(module string) (pattern string, ok bool) {
	for _, p := range m {
		if strings.HasSuffix(module, p.text) || p.to.MatchString(module) {
			return p.text, true
		}
		for i := range len(module) {
			if module[i] == '.' && p.within.MatchString(module[:i+1]) {
				return p.text, true
			}
		}
	}
	return "", false
}

// moduleOf returns the name of the module that a weight belongs to.
func moduleOf(weight string) string { return strings.TrimSuffix(weight, ".weight") }
