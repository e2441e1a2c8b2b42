package records

import "strings"

// Named says what a file of a data set is by its name, stem, a dot and an extension that
// may be followed by that of a compression: whether it is one of a format that is known,
// and whether that is read.
func Named(name, stem string) (known, read bool) {
	_, name = compressedAs(name)
	ext, ok := strings.CutPrefix(name, stem+".")
	if !ok || strings.Contains(ext, ".") {
		return false, false
	}
	f, read := formatOf(name)
	return f != nil || !read, read
}
