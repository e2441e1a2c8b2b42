// Package python spells values as Python does, whose programs read and compare
// what nibble writes. It knows nothing of files.
package python
