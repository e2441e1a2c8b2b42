// Package ucd knows the general category of every character, in the version of
// Unicode that Hugging Face's tokenizers split text by: 16.0, which its regular
// expression engine Oniguruma brings. Go's own package unicode is older, and
// changes with Go, so that the same text would be split into other tokens.
//
// categories.bin is made by testdata/gen/unicode_tables.py. The package knows
// nothing of what the categories are asked for.
package ucd
